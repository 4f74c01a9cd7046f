"""Sources of a board: a recipe, kept runs, a function that makes an algorithm, or an iterator of records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from rlhflab.core.algorithm import Algorithm
from rlhflab.core.knobs import Knobs
from rlhflab.core.recipe import Recipe
from rlhflab.core.record import Backdrop, Record
from rlhflab.live.controls import Choice


class Stream:
    """Any iterator of records as an algorithm: it ends when the iterator does, and cannot be saved or continued.

    Args:
        records: made one at a time; a generator reads `knobs` for each of them.
        knobs: the values behind the sliders.
        name: of the algorithm.
    """

    def __init__(self, records: Iterable[Record], knobs: Knobs, name: str) -> None:
        self.name, self.knobs = name, knobs
        self.step, self.steps = 0, len(records) if isinstance(records, Sequence) else 0  # 0: unknown
        self.backdrop: Backdrop | None = getattr(records, "backdrop", None)
        self._records = iter(records)

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        record = next(self._records)
        if not isinstance(record, Record):
            raise TypeError(
                f"a board draws records, got {type(record).__name__}: yield Record(step, scalars, knobs)"
            )
        self.step = record.step
        return record

    def rewind(self) -> bool:
        """Never possible: a generator that has failed has ended."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """Not supported.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"{self.name} is an iterator of records without a state_dict: its run cannot be continued"
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Not supported."""
        self.state_dict()


@runtime_checkable
class Keeper(Protocol):
    """What keeps the runs of a recipe, such as `runs.kept.KeptRuns`; called with every record."""

    recipe: Recipe

    @property
    def before(self) -> Iterable[Record]:
        """The records so far of a run that is continued."""
        ...

    def make(self, **changes: Any) -> Algorithm:
        """An algorithm whose settings differ from the recipe's in `changes`."""
        ...

    def __call__(self, record: Record) -> None: ...


@dataclass(frozen=True)
class Source:
    """What a board shows.

    Attributes:
        make: builds a fresh algorithm from the choices on the board.
        name: the algorithm's; empty while unknown.
        recipe: what declares its settings, if anything does.
        before: records of a continued run, shown until a reset.
        sinks: called with every record.
    """

    make: Callable[..., Algorithm]
    name: str = ""
    recipe: Recipe | None = None
    before: Iterable[Record] = ()
    sinks: tuple[Callable[[Record], Any], ...] = ()


def source_of(given: Any, knobs: type[Knobs] | Knobs | None = None) -> Source:
    """Return what a board shows, given what it was handed.

    Args:
        given: see `Board`.
        knobs: for an iterator that has none of its own.

    Raises:
        ValueError: not a valid source, in one line.
    """
    if isinstance(given, Source):
        return given
    if isinstance(given, Recipe):
        return Source(lambda **chosen: as_algorithm(given.but(**chosen).build(), knobs), given.name, given)
    if isinstance(given, Keeper):
        return Source(given.make, given.recipe.name, given.recipe, given.before, (given,))
    name = getattr(given, "name", "")
    if callable(given):
        own = getattr(given, "__name__", "")
        return Source(lambda **chosen: as_algorithm(given(**chosen), knobs, own), name)
    if isinstance(given, Iterable):
        return Source(_once(as_algorithm(given, knobs)), name)
    raise ValueError(
        "a board needs a recipe, a function that makes an algorithm, or an iterator of records, got "
        f"{type(given).__name__}"
    )


def as_algorithm(made: Any, knobs: type[Knobs] | Knobs | None = None, name: str = "") -> Algorithm:
    """Return an algorithm unchanged, and any other iterator of records as a `Stream`."""
    if all(hasattr(made, attribute) for attribute in ("knobs", "steps", "state_dict")):
        algorithm: Algorithm = made
        return algorithm
    found = knobs() if isinstance(knobs, type) else knobs
    own = getattr(made, "name", "") or ("" if name == "<lambda>" else name)
    return Stream(
        made, found if found is not None else getattr(made, "knobs", Knobs()), own or type(made).__name__
    )


def _once(algorithm: Algorithm) -> Callable[..., Algorithm]:
    given = [algorithm]

    def make() -> Algorithm:
        if not given:
            raise ValueError(
                "an iterator runs only once: give the board a recipe, or a function that makes an iterator"
            )
        return given.pop()

    return make


def choices_of(recipe: Recipe | None, choices: Mapping[str, Choice | Sequence[Any]]) -> dict[str, Choice]:
    """The form of a board: what can be chosen, with labels and help from the recipe if there is one.

    Args:
        recipe: its own value becomes the first option, if it is among them.
        choices: name of a setting → its options, or a `Choice`.
    """
    found = {}
    for name, options in choices.items():
        if isinstance(options, Choice):
            found[name] = options
            continue
        declared = recipe.declared().get(name) if recipe is not None else None
        label = (declared.spec.label if declared else "") or name.replace("_", " ")
        own = getattr(recipe, name, None)
        ordered = sorted(options, key=lambda option: option != own)  # what is chosen at first stands first
        values = {option: str(option) if option != "" else "nothing" for option in ordered}
        found[name] = Choice(label, values, declared.spec.help if declared else "")
    return found
