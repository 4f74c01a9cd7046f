"""One thread for the tiny model, all for real ones, unless somebody chose: each case in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

TINY = "from rlhflab.models.tiny import new_tiny_model; from rlhflab.recipes.worlds import world_named; "
MAKE = "new_tiny_model(world_named('micro').tokenizer); "
TAKE = "from rlhflab.models.threads import take_one_thread; take_one_thread(); "  # as the tiny model does
SAY = "print(torch.get_num_threads())"


def threads(code, **variables):
    """What a fresh Python prints, without a number of threads in its environment."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", f"import torch; {code}"], env={**environment, **variables},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [int(number) for number in done.stdout.split()]


def test_the_first_tiny_model_takes_one_thread():
    assert threads(TINY + MAKE + SAY) == [1]


@pytest.mark.parametrize("chosen", [1, 2, 3])
def test_a_number_that_somebody_set_stays(chosen):
    assert threads(f"torch.set_num_threads({chosen}); " + TAKE + SAY) == [chosen]
    assert threads(TAKE + f"torch.set_num_threads({chosen}); " + TAKE + SAY) == [chosen]


def test_a_variable_that_is_set_stays():
    assert threads(TAKE + SAY, OMP_NUM_THREADS="2") == [2]


def test_a_real_model_takes_all_cores_again_and_the_next_tiny_one_one():
    code = "from rlhflab.models.threads import *; "
    every = "before = torch.get_num_threads(); "
    said = "print(torch.get_num_threads() == before); take_one_thread(); " + SAY
    code = f"{code}{every}take_all_threads(); take_one_thread(); {SAY}; take_all_threads(); {said}"
    assert threads(
        code.replace(
            "print(torch.get_num_threads() == before)", "print(int(torch.get_num_threads() == before))"
        )
    ) == [1, 1, 1]


def test_threads_of_python_that_were_there_before_take_one_too():
    """OpenMP keeps a number for each: a board builds its model in a thread of its own, cells run in another."""
    code = (
        "torch.zeros(9).exp(); import threading; from rlhflab.models.threads import take_one_thread as take; "
        "other = threading.Thread(target=take); other.start(); other.join(); take(); "
    )
    assert threads(code + SAY) == [1]
