"""Which faults are made of a file, and what is spared."""

import pytest

from tests.mutants import operators
from tests.mutants.operators import sample

CODE = '''"""Not 1 + 1 here."""
import torch
from typing import Protocol


class Shape(Protocol):
    def area(self) -> "int": return 1 + 1


def clip(values: "list[int] | None", low, high=1 + 2) -> "int | None":
    """Nor 1 + 1 here."""
    if low > high:
        raise ValueError(f"{1 + low} is above" + str(high))
    total = sum(values) * low - high
    values.append(total)
    for a, b in zip(values, values, strict=bool(low)):
        total += max(a, b)
    values.insert(low, high)
    return total.item()
'''


@pytest.fixture(autouse=True)
def only_ours(monkeypatch):
    """cosmic-ray's have their own tests."""
    monkeypatch.setattr(operators, "_cosmic_ray", lambda code: ())


def faults(code, size=1000, seed=0):
    return {(mutant.before, mutant.after) for mutant in sample({"a.py": code}, size, seed)}


def test_what_people_forget_is_left_out_and_the_rest_spared():
    """Not among them: texts, hints, the protocol, the import, `strict`, a swap that changes nothing."""
    head = 'def clip(values: "list[int] | None", low, high=1 + 2) -> "int | None":'
    changes = {
        head: [head.replace("1 + 2", "(1)"), head.replace("1 + 2", "(2)")],
        'raise ValueError(f"{1 + low} is above" + str(high))': ["pass"],
        "total = sum(values) * low - high": [
            "total = (sum(values) * low)", "total = (high)", "total = (sum(values)) - high", "total = (low) - high",
            "total = values * low - high",
        ],
        "values.append(total)": ["values", "pass"],
        "total += max(a, b)": ["pass", "total += a"],
        "values.insert(low, high)": ["values", "pass", "values.insert(high, low)"],
        "for a, b in zip(values, values, strict=bool(low)):": [],
        "return total.item()": ["return total"],
    }  # fmt: skip
    assert faults(CODE) == {(before, after) for before, all_of_it in changes.items() for after in all_of_it}


def test_a_sample_is_seeded_and_a_change_elsewhere_leaves_most_of_it():
    whole = faults(CODE)
    few = faults(CODE, size=4)
    assert len(few) == 4 and few < whole and few == faults(CODE, size=4) != faults(CODE, size=4, seed=1)
    moved = CODE.replace("import torch\n", "import torch\n\n\nLIMIT = max(1, 2)\n")
    assert len(faults(moved, size=4) & few) >= 3


def test_a_fault_knows_its_statement_and_its_file():
    for mutant in sample({"a.py": CODE}, 1000, 0):
        lines = CODE.splitlines()
        assert mutant.before in lines[mutant.first - 1].strip()
        assert mutant.at_import == mutant.before.startswith("def clip")
        assert mutant.last == (
            len(lines) if mutant.at_import else mutant.first
        )  # what a default is for runs there
        assert mutant.code != CODE and compile(mutant.code, "a.py", "exec")
        assert mutant.name == f"a.py: {mutant.before} → {mutant.after}"
