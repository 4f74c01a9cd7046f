"""Trials on a device: every kind is there, what fails is named with its place, and a GPU's speed is remembered."""

from __future__ import annotations

import pytest
import torch

from rlhflab import doctor
from rlhflab.recipes import LANGUAGE, trials


def test_every_algorithm_is_tried_on_the_tiny_and_on_a_real_model(tmp_path):
    configs = trials.trials(tmp_path)
    tiny = {config["algorithm"] for config in configs.values() if config["world"] == "micro"}
    assert tiny == set(LANGUAGE)
    real = {f"{name}, LoRA" for name in set(LANGUAGE) - {"pretrain"}} | {"dpo, 4 bits"}
    real |= {f"{name}, LoRA, TRL" for name in ("sft", "reward", "dpo")}
    assert {name for name, config in configs.items() if "model" in config} == real
    assert {name for name, config in configs.items() if "engine" in config} == {n for n in real if "TRL" in n}


def test_what_fails_is_named_with_its_place_and_the_others_go_on(monkeypatch):
    good = {"algorithm": "ppo", "world": "CartPole-v1", "steps": 4, "envs": 2}

    def broken(prompts, answers):
        return [1.0] * (len(answers) + 1)

    bad = {
        "algorithm": "ppo",
        "world": "micro",
        "reward": broken,
        "steps": 4,
        "batch_size": 9,
        "progress": False,
    }
    monkeypatch.setattr(trials, "trials", lambda folder: {"bad": bad, "good": good})
    failed, fine = trials.try_on("cpu")
    assert failed.name == "bad" and "one number per answer" in failed.error and "(rewards.py:" in failed.error
    assert fine.name == "good" and fine.error == "" and fine.seconds > 0
    checks = {check.name: check for check in doctor.report("cpu")}
    assert checks["bad"].problem and "paste this whole report" in checks["bad"].fix
    assert not checks["good"].problem and checks["good"].found.endswith(" s")


def test_a_trial_makes_as_many_updates_as_asked_for_and_says_how_long_they_took(monkeypatch):
    made, clock = [], [5.0]

    class Training:
        def __next__(self):
            made.append(1)
            clock[0] += 2.0

    monkeypatch.setattr(trials, "trials", lambda folder: {"one": {}})
    monkeypatch.setattr(trials, "built", lambda config, device: Training())
    monkeypatch.setattr(trials.time, "perf_counter", lambda: clock[0])
    assert list(trials.try_on("cpu")) == [trials.Outcome("one", 2.0)] and len(made) == 1
    assert list(trials.try_on("cpu", trials.STEPS)) == [trials.Outcome("one", 2.0 * trials.STEPS)]


@pytest.mark.parametrize(("per_step", "words"), [(0.5, "there"), (2.0, "on the CPU")])
def test_speed_is_time_over_time_and_is_remembered(monkeypatch, per_step, words):
    clock, kept, made = [0.0], [], []

    class Training:
        def __init__(self, seconds):
            self.step, self.seconds = 0, seconds

        def __next__(self):
            self.step += 1
            clock[0] += self.seconds if self.step > 1 else 100.0  # the first one warms up

    def built(config, device):
        made.append((device, config["evaluate_every"]))
        return Training(1.0 if len(made) == 1 else per_step)

    monkeypatch.setattr(trials, "built", built)
    monkeypatch.setattr(trials.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(trials, "remember_speed", lambda device, speed: kept.append((device, speed)))
    line = trials.compared(torch.device("cuda", 0))
    assert made == [("cpu", 25), ("cuda", 25)] and kept == [(torch.device("cuda", 0), 1 / per_step)]
    assert line == f"cuda, {1 / per_step:.2g} times the CPU: auto trains the tiny model {words}"
