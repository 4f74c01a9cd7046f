"""The race: the same start and pairs for everybody, exact paths under the frontier, exact resume."""

import copy
import math

import pytest

from rlhflab import recipes
from rlhflab.algorithms.reward_modelling import RewardModelling
from rlhflab.data.sampled import SampledReference
from rlhflab.evaluation.race_judge import ExactRaceJudge
from rlhflab.objectives.optimum import frontier_reward, reward_levels
from rlhflab.recipes.racing import CONTESTANTS, DRAWS, Race
from rlhflab.settings.race import RaceSettings

SHORT = {"dpo": 6, "ppo_learned": 3, "preferred": 4, "ppo": 3, "trpo": 2, "reinforce": 3}


def build(**settings):
    return recipes.Race(
        **{"pairs": 100, "laps": 2, "updates": SHORT, "reward_updates": 20, **settings}
    ).build()


@pytest.fixture(scope="module")
def run():
    race = build()
    return race, list(race)


def test_everybody_starts_at_the_reference_and_runs_all_laps(run):
    race, records = run
    assert len(records) == race.steps == 10 + 2 * len(CONTESTANTS)
    arrays = records[-1].arrays
    for name in CONTESTANTS:
        assert arrays[f"{name}/lap"] == (0.0, 0.5, 1.0)
        assert arrays[f"{name}/kl"][0] == 0 and arrays[f"{name}/kl"][-1] > 0
        assert race.contestants[name].step == SHORT[name]
        assert records[-1].scalars[f"{name}/regret"] == arrays[f"{name}/regret"][-1]
    assert len({arrays[f"{name}/regret"][0] for name in CONTESTANTS}) == 1
    assert arrays["best_of_n/lap"] == tuple(map(float, DRAWS)) and arrays["best_of_n/kl"][0] == pytest.approx(
        0, abs=1e-9
    )


def test_nobody_passes_the_frontier(run):
    race, records = run
    arrays = records[-1].arrays
    levels = reward_levels(race.reference.logps, race.reference.rewards)
    for name in (*CONTESTANTS, "best_of_n"):
        for kl, reward, regret in zip(
            *(arrays[f"{name}/{column}"] for column in ("kl", "reward", "regret")), strict=True
        ):
            assert regret >= 0 and kl >= 0
            assert reward <= frontier_reward(*levels, kl) + 1e-6
    assert all(exact["efficiency"] <= 1 + 1e-9 for exact in race.results().values())
    reached = max(max(arrays[f"{name}/kl"]) for name in (*CONTESTANTS, "best_of_n"))
    far = 1.2 * max(reached, race.backdrop.at(1.0).kl)  # as far as there is something to compare with it
    points = sorted(zip(race.backdrop.kl, race.backdrop.reward, strict=True))
    points = [(0.0, race.backdrop.ref_reward), *(point for point in points if point[0] <= far)]
    assert [*zip(arrays["frontier/kl"], arrays["frontier/reward"], strict=True)] == points
    assert len(points) > 5 and "frontier/reward_se" not in arrays


def test_all_who_know_pairs_know_the_same_ones(run):
    race, _ = run
    assert race.contestants["dpo"].pairs.pairs is race.pairs
    assert race._fitting.rankings.pairs is race.pairs
    assert len(race.contestants["preferred"].data.input_ids) == len(race.pairs) == 100
    assert not any(parameter.requires_grad for parameter in race.reward_model.parameters())


def test_the_reference_is_left_as_it_was(run, world):
    race, _ = run
    assert race.reference.logps.equal(world.logps(race.contestants["ppo"].task.ref_policy))


def test_beta_acts_on_everybody_who_has_one_and_the_data_wait_for_the_next_start():
    race = build(updates={**dict.fromkeys(CONTESTANTS, 0), "dpo": 4, "preferred": 2}, reward_updates=5)
    losses = ["reward_model/loss" in next(race).scalars for _ in range(11)]
    assert losses == [True, False] * 5 + [False]  # five updates in ten turns: the first comes at once
    race.knobs.beta, race.knobs.pairs = 0.3, 5000
    while race.step < race.steps:
        record = next(race)
    assert race.contestants["dpo"].knobs.beta == 0.3 and len(race.pairs) == 100
    assert record.knobs["beta"] == 0.3
    assert record.arrays["optimum/kl"] == (race.backdrop.at(0.3).kl,)


@pytest.mark.parametrize("stop", [4, 13])
def test_a_stopped_race_continues_bit_for_bit(run, stop):
    _, whole = run
    stopped = build()
    for _ in range(stop):
        next(stopped)
    fresh = build()
    fresh.load_state_dict(copy.deepcopy(stopped.state_dict()))
    assert list(fresh) == whole[stop:]


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="laps must be a whole number ≥ 1, got 0"):
        build(laps=0)
    with pytest.raises(ValueError, match="unknown contestant 'sac'; known: dpo, ppo_learned"):
        build(updates={"sac": 3})
    with pytest.raises(ValueError, match="pairs must be a whole number ≥ 32 and ≤ 100000, got 3"):
        build(pairs=3)


def test_where_answers_cannot_be_listed_the_standings_are_estimates_with_their_errors(world, sft, run):
    """The micro world, seen through samples: every point of the path agrees with the exact one, within its error."""
    exact_race, _ = run
    updates = {**dict.fromkeys(CONTESTANTS, 0), "dpo": 20, "ppo": 3}
    config = RaceSettings(laps=1, updates=updates, reward_updates=20, pairs=100)
    race = Race(SampledReference(world, sft), sft, config)
    arrays = list(race)[-1].arrays
    assert len(arrays["frontier/kl"]) == len(arrays["frontier/reward_se"]) > 5
    exact = ExactRaceJudge(exact_race.reference)
    for name, estimated in race.results().items():
        if name == "best_of_n":
            tables = exact.best_of_n(race.reward_model, DRAWS, 1.0)
            true = min(tables, key=lambda standing: abs(standing["kl"] - estimated["kl"]))
        else:
            true = exact.policy(race.contestants[name].policy, 1.0)
            assert abs(estimated["kl"] - true["kl"]) < 4 * estimated["kl_se"] + 0.02
            assert estimated["reward"] == arrays[f"{name}/reward"][-1]
            assert estimated["reward_se"] == arrays[f"{name}/reward_se"][-1] > 0
        for column in ("reward", "regret"):
            assert abs(estimated[column] - true[column]) < 4 * estimated[f"{column}_se"] + 0.05, (
                name,
                column,
            )
    race.knobs.beta = 0.05  # too small to know its optimum
    results = race.results()
    assert all(math.isnan(standing["regret"]) for standing in results.values())
    bounds = {name: standing["regret_at_least"] for name, standing in results.items()}
    assert math.isnan(bounds.pop("best_of_n")) and all(bound > 0.5 for bound in bounds.values())
    for name, bound in bounds.items():
        assert bound < exact.policy(race.contestants[name].policy, 0.05)["regret"]
    assert "optimum/kl" not in race._arrays(0.05) and race.backdrop.knows(1.0)


def test_it_goes_back_where_everybody_can(run, monkeypatch):
    race, asked = run[0], []

    def answers(name, can=True):
        return lambda *_: asked.append(name) or can

    monkeypatch.setattr(RewardModelling, "rewind", answers("reward_model"))
    for name, contestant in race.contestants.items():
        monkeypatch.setattr(contestant, "rewind", answers(name))
    assert race.rewind() and asked == ["reward_model", *CONTESTANTS]
    monkeypatch.setattr(race.contestants["ppo"], "rewind", answers("ppo", can=False))
    assert not race.rewind()
    asked.clear()
    assert build().rewind() and not asked  # nobody has begun
