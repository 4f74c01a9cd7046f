"""Every algorithm on a GPU that is not there: it trains, and goes on on another device as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from rlhflab import recipes
from rlhflab.core.settings import Settings
from rlhflab.recipes.trials import trials
from rlhflab.settings.dpo import DPOSettings
from tests.cuda import cut
from tests.cuda.virtual import missing
from tests.cuda.worker import differences, routes


@pytest.fixture(scope="module", autouse=True)
def virtual_device():
    """Skipped with a line where the device cannot be made, but never in CI."""
    why = missing()
    if why and os.environ.get("RLHFLAB_REQUIRE_VIRTUAL_CUDA"):
        pytest.fail(f"the virtual CUDA device cannot be made: {why}")
    if why:
        pytest.skip(f"no virtual CUDA device: {why}")


@pytest.mark.parametrize("group", ["tiny", "sft and reward", "dpo", "policies"])
def test_every_algorithm_goes_on_on_every_device(group, tmp_path, root):
    configs = {name: config for name, config in trials(tmp_path).items() if group_of(config) == group}
    command = [sys.executable, "-m", "tests.cuda.worker", str(tmp_path), *configs]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    found = {(line["name"], *line["route"]): line for line in lines}
    assert set(found) == {(name, *route) for name, config in configs.items() for route in routes(config)}, (
        done.stderr
    )
    wrong = [problem for key, line in found.items() for problem in problems(configs[key[0]], line)]
    assert not wrong, "\n".join(wrong)


def test_the_trainings_of_a_lab_are_cut(monkeypatch):
    monkeypatch.setattr(Settings, "__post_init__", Settings.__post_init__)
    cut.trainings(6)
    made = (
        recipes.DPO(),
        recipes.PPOControl(steps=50),
        DPOSettings(steps=9),
        recipes.TRPO(steps=4).but(beta=3),
    )
    assert [each.steps for each in made] == [6, 6, 6, 4]


def group_of(config):
    if "model" not in config:
        return "tiny"
    return {"sft": "sft and reward", "reward": "sft and reward", "dpo": "dpo"}.get(
        config["algorithm"], "policies"
    )


def problems(config, line):
    """What is wrong with one route, a line each."""
    name = f"{line['name']}, {' to '.join(line['route'])}"
    if "error" in line:
        return [f"{name}: {line['error']}\n{line['traceback']}"]
    return [f"{name}: {words}" for words in differences(config, line)]
