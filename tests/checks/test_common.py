"""What holds for every exercise: its mistakes are told apart, and what is no fault of the mathematics is explained."""

import ast
import re
import textwrap
import warnings
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
import torch
from ipykernel.compiler import XCachingCompiler
from IPython.core.compilerop import CachingCompiler
from IPython.core.formatters import DisplayFormatter

from rlhflab.checks import dpo, gae, memory, policy_gradient, ppo, reward, supervised, trpo

EXERCISES = {
    name.__name__.rpartition(".")[2]: name.EXERCISE
    for name in (dpo, gae, memory, policy_gradient, ppo, reward, supervised, trpo)
}
every_exercise = pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES.keys())
LEARNING = {name: one for name, one in EXERCISES.items() if one.learns}
every_loss = pytest.mark.parametrize("exercise", LEARNING.values(), ids=LEARNING.keys())


@pytest.mark.parametrize("name", EXERCISES)
def test_every_mistake_is_made_by_a_wrong_answer_of_its_own(name):
    """Words of a test's table name one mistake and no other."""
    module = import_module(f"tests.checks.test_{name}")
    marks = [mark for test in vars(module).values() for mark in getattr(test, "pytestmark", ())]
    words = [row[1] for mark in marks if mark.args[0] == ("wrong", "words") for row in mark.args[1]]
    mistakes = EXERCISES[name].mistakes
    named = [[mistake for mistake in mistakes if word in mistake] for word in words]
    assert {mistake for found in named if len(found) == 1 for mistake in found} == set(mistakes)


@every_exercise
def test_no_two_mistakes_look_alike_and_none_looks_right(exercise):
    usual = [at for at, case in enumerate(exercise.cases()) if not case.slip]

    def seen(function):
        values = exercise.values(function)
        return torch.cat([values[at].flatten() for at in usual])

    answers = torch.stack([seen(exercise.right), *map(seen, exercise.mistakes.values())])
    assert torch.cdist(answers, answers, p=torch.inf).add(torch.eye(len(answers))).min() > 1e-2
    assert len(exercise.mistakes) >= 6


@every_exercise
def test_every_mistake_is_named(exercise, capsys):
    for words, mistake in exercise.mistakes.items():
        assert not exercise.check(mistake)
        assert capsys.readouterr().out == f"✗ {words}\n"


@every_exercise
def test_the_right_answer_passes_in_any_precision_and_by_keyword(exercise, capsys):
    for number in (lambda x: x.double() if isinstance(x, torch.Tensor) else x, lambda x: x):
        assert exercise.check(lambda *args, number=number: number(exercise.right(*args)))
    by_name = ", ".join(exercise.names)
    assert exercise.check(eval(f"lambda *, {by_name}: right({by_name})", {"right": exercise.right}))
    assert capsys.readouterr().out == f"✓ {exercise.praise}\n" * 3


@every_exercise
def test_a_function_may_overwrite_what_it_is_given(exercise):
    def greedy(*args):
        answer = exercise.right(
            *(arg.clone() if isinstance(arg, torch.Tensor) and arg.ndim else arg for arg in args)
        )
        for name, arg in zip(exercise.names, args, strict=True):
            if isinstance(arg, torch.Tensor) and name not in ("kl", "theta"):
                arg.zero_()
        return answer

    if exercise.names[0] == "kl":  # what a gradient is taken by must stay itself
        assert exercise.check(lambda kl, theta, v: greedy_vector(exercise.right, kl, theta, v))
    else:
        assert exercise.check(greedy)
    assert exercise.check(exercise.right)


def greedy_vector(right, kl, theta, vector):
    answer = right(kl, theta, vector.clone())
    vector.zero_()
    return answer


@every_loss
def test_a_detached_argument_is_named(exercise, capsys):
    for lost in exercise.learns:

        def detached(*args, lost=lost):
            named = zip(exercise.names, args, strict=True)
            return exercise.right(*(arg.detach() if name == lost else arg for name, arg in named))

        assert not exercise.check(detached)
        assert f"no gradient reaches {lost}: it was detached" in capsys.readouterr().out


@every_loss
@pytest.mark.parametrize(
    "cut", [torch.Tensor.detach, lambda x: torch.tensor(x.tolist()), torch.Tensor.data.__get__]
)
def test_a_detached_loss_is_refused(exercise, cut, capsys):
    assert not exercise.check(lambda *args: cut(exercise.right(*args)))
    assert not exercise.check(torch.no_grad()(exercise.right))
    assert capsys.readouterr().out.count(f"reaches {' and '.join(exercise.learns)}: it was detached") == 2


@every_loss
def test_a_wrong_gradient_is_refused(exercise, capsys):
    name = exercise.learns[0]

    def half(*args):
        args = dict(zip(exercise.names, args, strict=True))
        args[name] = (args[name] + args[name].detach()) / 2
        return exercise.right(*args.values())

    assert not exercise.check(half)
    out = capsys.readouterr().out
    assert "the values are right, the gradient is not" in out and f"by {name}, instead of" in out


@every_loss
@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_a_check_works_where_gradients_are_switched_off(exercise, off, capsys):
    with off():
        assert exercise.check(exercise.right)
    assert "✓" in capsys.readouterr().out


def helper(numbers):
    return numbers @ torch.ones(77)  # a line of the learner's own


def broken(*args):
    return helper(args[0])


def answers_late(policy_chosen, *args):
    return (
        dpo.EXERCISE.right(policy_chosen, *args) if len(policy_chosen) < 3 else policy_chosen.no_such_method()
    )


def goes_backward(*args):
    losses = dpo.EXERCISE.right(*args)
    losses.mean().backward()
    return losses


def unfinished(*args):
    raise NotImplementedError


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (broken, ["it raised RuntimeError: ", "(helper, line", ": return numbers @ torch.ones(77)"]),
        (answers_late, ["✗ for policy_chosen = [", "it raised AttributeError: ", "(answers_late, line"]),
        (goes_backward, ["no gradient can be taken: the function has called backward itself"]),
        (unfinished, ["not written yet: it raised NotImplementedError"]),
        (lambda *args: ..., ["not written yet: return a tensor with one loss a pair"]),
        (lambda: 0, ["it raised TypeError", "it is called with policy_chosen, policy_rejected, ref_chosen"]),
        (torch.zeros(2), ["give the function itself, not a Tensor"]),
        (None, ["give the function itself, not a NoneType"]),
        (lambda *args: args[0].numpy(), ["it raised RuntimeError: numpy takes no tensor with", "(<lambda>, line"]),
        (lambda *args: args[0].detach().numpy(), ["it returned an ndarray; a tensor with one loss a pair is wanted"]),
        (lambda *args: dpo.EXERCISE.right(*args) * float("nan"), ["it gives [nan, nan]; by hand it is [0.0486,"]),
    ],
)  # fmt: skip
def test_what_else_goes_wrong_is_one_line(function, words, capsys):
    assert not dpo.check_dpo_loss(function)
    out = capsys.readouterr().out
    assert out.startswith("✗") and len(out.splitlines()) == 1 and all(part in out for part in words), out


@pytest.mark.parametrize("compiler", [CachingCompiler, XCachingCompiler], ids=["IPython", "ipykernel"])
def test_the_line_of_a_cell_is_shown(compiler, capsys):
    cell = "def mine(*args):\n    x = args[0]\n    return x @ x @ x\n"
    names = {}
    exec(compile(cell, compiler().cache(cell), "exec"), names)
    assert not dpo.check_dpo_loss(names["mine"])
    assert "(mine, line 3: return x @ x @ x)" in capsys.readouterr().out


def test_a_verdict_is_a_truth_value():
    right, wrong = dpo.check_dpo_loss(dpo.EXERCISE.right), dpo.check_dpo_loss(lambda *args: None)
    assert right and right == True and not wrong and wrong == False  # noqa: E712
    assert repr(wrong) == "False" and sum([right, wrong, right]) == 2
    assert DisplayFormatter().format(wrong) == ({}, {})  # a notebook shows nothing below the printed line


def exercise_of(path):
    """The cell of a lab in which the learner writes a function, and the solution that stands above it."""
    cells = nbformat.read(path, as_version=4).cells
    at = next((at for at, cell in enumerate(cells) if "from rlhflab.checks." in cell.source), None)
    if at is None:
        return None
    solution = cells[at - 1].source.partition("<summary>Solution</summary>")[2]
    block = solution.partition("```\n")[2].partition("```")[0]
    return cells[at].source, block or "\n".join(re.findall(r"`(.*?)`", solution))


LABS = Path(__file__).resolve().parents[2] / "labs"
STUBS = [found for path in sorted(LABS.glob("*.ipynb")) if (found := exercise_of(path))]


@pytest.mark.parametrize("name", EXERCISES)
def test_a_lab_asks_for_what_its_check_gives_and_its_own_solution_passes(name, capsys):
    ((cell, solution),) = [found for found in STUBS if f"from rlhflab.checks.{name} " in found[0]]
    (stub,) = [node for node in ast.parse(cell).body if isinstance(node, ast.FunctionDef)]
    assert tuple(argument.arg for argument in stub.args.args) == EXERCISES[name].names
    exec(cell, {})
    assert capsys.readouterr().out.startswith("✗ not written yet: return ")
    exec(re.sub(r"    \.\.\..*", lambda _: textwrap.indent(solution, "    "), cell), {"torch": torch})
    assert capsys.readouterr().out == f"✓ {EXERCISES[name].praise}\n"


def test_cases_are_the_same_each_time_and_each_ones_own():
    for exercise in EXERCISES.values():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            first, second = exercise.values(exercise.right), exercise.values(exercise.right)
        assert all(torch.equal(*both) for both in zip(first, second, strict=True))
        assert len(first) >= 3
