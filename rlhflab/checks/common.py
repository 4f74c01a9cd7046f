"""All exercise checks: try a learner's function on cases, compare values and gradients, name the mistake."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from random import Random
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlhflab.boundary import own_line

Function = Callable[..., Any]


class Verdict(int):
    """1 if the answer is right, else 0; shows nothing as the last value of a cell, as all has been printed."""

    def __repr__(self) -> str:
        return str(bool(self))

    def _ipython_display_(self) -> None:
        pass


class Case(NamedTuple):
    """Arguments of one call."""

    args: tuple[Any, ...]
    where: str = ""  # in words; by default the arguments themselves
    slip: str = ""  # what is wrong with a function that fails here only


def drawn(random: Random, *shape: int, scale: float = 1.0) -> Tensor:
    """Normal numbers to two decimals, of the shape; from Python's generator, so the same on every device."""
    return torch.tensor([round(random.gauss(0, scale), 2) for _ in range(math.prod(shape))]).reshape(shape)


@dataclass(frozen=True)
class Exercise:
    """A function that a learner writes.

    Args:
        names: of its arguments, in order.
        cases: makes the test cases, anew at each call, as a function may overwrite its arguments. The first case is
            worked out by hand; the others reject answers that are right in it by chance.
        right: the correct function.
        mistakes: what is wrong, in words → a function with that mistake.
        praise: for the right answer.
        each: what each value belongs to, in the singular: "pair"; "" if the function returns a number.
        what: that value, or that number.
        learns: arguments that a gradient must reach.
        hint: a special message for a returned value or an exception; "" for none.
    """

    names: tuple[str, ...]
    cases: Callable[[], list[Case]]
    right: Function
    mistakes: Mapping[str, Function]
    praise: str
    each: str = ""
    what: str = "loss"
    learns: tuple[str, ...] = ()
    hint: Callable[[Any], str] = lambda _: ""

    def check(self, function: Function) -> Verdict:
        """Try a learner's function, print the result in one line, and return whether it is right."""
        wrong = f"give the function itself, not {_a(function)}"
        if callable(function):
            wrong = self._wrong(function)
        print(f"✗ {wrong}" if wrong else f"✓ {self.praise}")
        return Verdict(not wrong)

    def values(self, function: Function) -> list[Tensor]:
        """The values of a working function on each case, in double precision."""
        return [_doubles(function(*args)) for _, args, _ in self._calls()]

    def _calls(self) -> Iterator[tuple[Case, list[Any], dict[str, Tensor]]]:
        """Each case, its arguments, and the leaves of the gradient by name.

        Arguments that need a gradient are copies with a graph, like a model's output: overwriting a leaf is an error.
        """
        for case in self.cases():
            named = zip(self.names, case.args, strict=True)
            leaves = {name: arg.requires_grad_() for name, arg in named if name in self.learns}
            copies = {name: leaf.clone() for name, leaf in leaves.items()}
            yield case, [copies.get(n, arg) for n, arg in zip(self.names, case.args, strict=True)], leaves

    @torch.inference_mode(False)
    @torch.enable_grad()
    def _wrong(self, function: Function) -> str:
        wanted, found, slopes, failure = self.values(self.right), [], [], ""
        for at, (_, args, leaves) in enumerate(self._calls()):
            try:
                answer = _called(function, self.names, args)
            except Exception as error:  # the learner's own code: any error is a result
                failure = self._raised(error)
                break
            values = self._read(answer, wanted[at])
            if isinstance(values, str):
                failure = values
                break
            found.append(values.detach())
            slopes.append((values, leaves))
        if any(not _close(*both) for both in zip(found, wanted, strict=False)):
            return self._mistake(found, wanted)
        if failure:
            return f"for {self._where(len(found))} {failure}" if found else failure
        return self._wrong_gradient(slopes) if self.learns else ""

    def _read(self, answer: Any, wanted: Tensor) -> Tensor | str:
        """The values as wanted, or what is wrong with what was returned."""
        wish = f"a tensor with one {self.what} {_article(self.each)}" if self.each else f"a {self.what}"
        if answer is None or answer is ...:
            return f"not written yet: return {wish}"
        if hint := self.hint(answer):
            return hint
        number = not self.each and isinstance(answer, Real)
        if not number and not isinstance(answer, Tensor):
            return f"it returned {_a(answer)}; {wish} is wanted"
        values = _doubles(answer)
        if values.numel() == wanted.numel() == 1 and values.ndim <= 1:
            return values.reshape(wanted.shape)  # squeeze() of a batch of one
        if values.shape == ():
            return f"it returned one number; keep one {self.what} {_article(self.each)}, the mean comes later"
        if values.shape != wanted.shape:
            number_of = f"{len(wanted)} {self.each}{'s' * (len(wanted) != 1)}" if self.each else wish
            return f"it returned the shape {tuple(values.shape)} for {number_of}; {tuple(wanted.shape)} is wanted"
        return values

    def _raised(self, error: Exception) -> str:
        """The learner's own error in one line, with the line of the learner's code that it came from."""
        if hint := self.hint(error):
            return hint
        text, frame = str(error).strip().partition("\n")[0], own_line(error)
        if isinstance(error, NotImplementedError) and not text:
            return "not written yet: it raised NotImplementedError"
        if "Can't call numpy()" in text:  # torch's own advice, to detach, would cut the gradient off
            text = "numpy takes no tensor with a gradient, and would lose it; use torch's functions"
        place = f"it is called with {', '.join(self.names)}"
        if frame:
            place = f"{frame.name}, line {frame.lineno}" + (f": {frame.line}" if frame.line else "")
        return f"it raised {type(error).__name__}{': ' * bool(text)}{text} ({place})"

    def _mistake(self, found: list[Tensor], wanted: list[Tensor]) -> str:
        """The mistake's name if it is known; else the first case that is wrong."""
        cases = self.cases()
        wrong = [at for at, values in enumerate(found) if not _close(values, wanted[at])]
        usual = [at for at in range(len(found)) if not cases[at].slip]
        slips = {words: self.values(mistake) for words, mistake in self.mistakes.items()}
        by_hand = (
            [0] if self.each else []
        )  # where another slip hides it in the rest; one number would say too little
        for places in (usual, by_hand):
            if not set(places).isdisjoint(wrong):
                for words, values in slips.items():
                    if all(_close(found[at], values[at]) for at in places):
                        return words
        first = wrong[0]
        right = "it should give" if first else "by hand it is"
        differs = f"it gives {_shown(found[first])}; {right} {_shown(wanted[first])}"
        slip = cases[first].slip
        return f"{slip}; {differs}" if slip else f"for {self._where(first)} {differs}"

    def _where(self, at: int) -> str:
        case = self.cases()[at]
        named = list(zip(self.names, case.args, strict=True))
        if case.where:
            return case.where
        if sum(arg.numel() for _, arg in named if isinstance(arg, Tensor)) > 16:
            return f"the arguments in {self.cases.__module__}.cases()[{at}]"
        return ", ".join(f"{name} = {_shown(arg)}" for name, arg in named)

    def _wrong_gradient(self, found: list[tuple[Tensor, dict[str, Tensor]]]) -> str:
        """Compare the gradients of the sums, by autograd of the learner's function and of the right one."""
        for at, (_, args, by) in enumerate(self._calls()):
            wanted = torch.autograd.grad(self.right(*args).sum(), list(by.values()))
            values, leaves = found[at]
            slopes: tuple[Tensor | None, ...] = (None,) * len(leaves)
            if values.requires_grad:
                try:
                    slopes = torch.autograd.grad(values.sum(), list(leaves.values()), allow_unused=True)
                except Exception as error:
                    return f"the values are right, but no gradient can be taken: {_why_no_gradient(error)}"
            pairs = list(zip(by, slopes, wanted, strict=True))
            if lost := [
                name for name, slope, right in pairs if right.any() and (slope is None or not slope.any())
            ]:
                return (
                    f"the values are right, but no gradient reaches {' and '.join(lost)}: it was detached "
                    "(detach, item, torch.tensor and no_grad all do that)"
                )
            for name, slope, right in pairs:
                if slope is not None and not _close(_doubles(slope), _doubles(right)):
                    return (
                        f"the values are right, the gradient is not: for {self._where(at)} it is {_shown(slope)} by "
                        f"{name}, instead of {_shown(right)}; is a part of it detached?"
                    )
        return ""


def _called(function: Function, names: tuple[str, ...], args: list[Any]) -> Any:
    """Arguments in order; keyword-only ones by name."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some built-in functions have no signature
        return function(*args)
    by_keyword = {name for name, one in parameters.items() if one.kind is one.KEYWORD_ONLY}
    named = list(zip(names, args, strict=True))
    return function(
        *(arg for name, arg in named if name not in by_keyword),
        **{name: arg for name, arg in named if name in by_keyword},
    )


def _why_no_gradient(error: Exception) -> str:
    if "inplace" in str(error):
        return (
            "a tensor that it needs was overwritten in place, by a function that ends in _ or by += and its like; "
            "make a new tensor there"
        )
    if "a second time" in str(error):
        return "the function has called backward itself; return the values only, training goes backward later"
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _doubles(values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values.cpu().double()
    try:
        return torch.tensor(float(values), dtype=torch.float64)
    except OverflowError:
        return torch.tensor(math.inf, dtype=torch.float64)


def _close(found: Tensor, wanted: Tensor) -> bool:
    return torch.allclose(found, wanted, rtol=1e-5, atol=1e-4)


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return str(value) if isinstance(value, bool) else f"{round(value, 4):.7g}"


def _article(noun: str) -> str:
    return f"{'an' if noun.startswith((*'aeiou', 'nd')) else 'a'} {noun}"


def _a(value: Any) -> str:
    return _article(type(value).__name__)
