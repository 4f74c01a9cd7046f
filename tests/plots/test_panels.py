"""Every panel is filled by records that its algorithm really writes; general panels show any records."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rlhflab.core.record import Record
from rlhflab.plots.history import History
from rlhflab.plots.panel import COLOURS, Panel, arrays_of, series_of
from rlhflab.plots.panels import PANELS, panels_of, stored_name
from rlhflab.plots.panels_dpo import PLANE, REWARD
from rlhflab.plots.panels_general import general_panels
from rlhflab.recipes.racing import COLUMNS, CONTESTANTS
from tests.real_records import names_in, real_run

OLDER = {"estimated/kl_k3"}  # of runs made before kl_rb
UNSHOWN = {
    # drawn as a level, a note or a dashed line, or known from what is drawn
    "exact/frontier_reward": "the frontier is drawn in the plane",
    "exact/objective": "regret is J* less it",
    "exact/optimum": "regret is it less J",
    "exact/ref_reward": "a dotted level",
    "estimated/objective": "regret is J* less it",
    "estimated/objective_se": "regret has its own error",
    "estimated/ref_reward_se": "the same samples for every step: a level",
    "estimated/optimum": "regret is it less J",
    "estimated/optimum_se": "regret has its own error",
    "estimated/optimum_at_least": "regret_at_least is it less J",
    "estimated/log_z": "J* = β · log Z",
    "estimated/log_z_se": "J* = β · log Z",
    # says whether another number can be trusted
    "estimated/ess": "decides whether J* is told at all",
    "estimated/optimum_trusted": "decides whether J* is told at all",
    # what a report shows as also recorded
    "estimated/length": "of sampled answers; a board shows the batch's",
    "learning_rate": "its schedule is known beforehand",
    "grad_norm": "beside the loss it says little, but for REINFORCE, which shows it",
    "logps/chosen": "implicit rewards are their differences to π_ref, times β",
    "logps/rejected": "implicit rewards are their differences to π_ref, times β",
    "max_reward": "margins tell what counts of scores",
    "mean_reward": "margins tell what counts of scores",
    "min_reward": "margins tell what counts of scores",
    "loss/policy_avg": "about 0 at every step by construction, however well it goes",
    "objective/rlhf_reward": "score less β · KL, both of which are drawn",
    "objective/scores_std": "beside the score it says little",
    "policy/updates": "constant",
    "trpo/cg_residual": "the last point of conjugate gradient now",
    "env_steps": "the steps times a constant",
    "episode/length_100": "a mean of the curve that is drawn",
    "episode/return_100": "a mean of the curve that is drawn",
}
"""What algorithms record and no panel of theirs shows: why not."""
GOAL_UNSHOWN = {
    f"{kind}/{name}" for kind in ("exact", "estimated") for name in ("efficiency", "regret", "regret_se")
}
BEST_OF_N_UNSHOWN = {
    f"best_of_n/{name}" for name in ("kl_se", "lap", "regret", "regret_at_least", "regret_se")
}
ALSO_UNSHOWN = {
    **dict.fromkeys(
        ("sft", "pretrain", "supervised"), GOAL_UNSHOWN | {"estimated/regret_at_least"}
    ),  # it has no goal
    "race": BEST_OF_N_UNSHOWN,  # it takes no laps, and knows its KL
}


@pytest.fixture(scope="module")
def estimated() -> set[str]:
    """What evaluations from samples find: of a policy, of a language, of a reward model; J* known where β is large."""
    runs = (("dpo", 10.0), ("sft", 1.0), ("reward", 30.0))
    found = {name for run, beta in runs for name in names_in(real_run(run, "reviews", beta)[0])}
    return {name for name in found if name.startswith("estimated/")}


def estimated_in_a_race(written: set[str]) -> set[str]:
    """What a race records in a world that cannot be enumerated: the same columns for everybody."""
    names = [name.removesuffix("/lap") for name in written if name.endswith("/lap")]
    return {"frontier/reward_se", *(f"{name}/{column}" for name in names for column in COLUMNS)}


def drawn_by(panels: tuple[Panel, ...]) -> set[str]:
    return {*series_of(panels), *arrays_of(panels)}


@pytest.mark.parametrize("name", PANELS)
def test_every_series_of_a_panel_is_one_that_its_algorithm_writes(name: str, estimated: set[str]) -> None:
    written = names_in(real_run({"supervised": "sft"}.get(name, name))[0])
    if name == "race":
        written |= estimated_in_a_race(written)
    missing = drawn_by(PANELS[name]) - written - OLDER
    assert {series for series in missing if not series.startswith("estimated/")} == set()
    assert missing <= estimated


@pytest.mark.parametrize("name", PANELS)
def test_boards_leave_to_reports_what_their_plane_shows_already(name: str) -> None:
    spared = {panel.id for panel in PANELS[name] if panel.report_only}
    plane = (
        {"efficiency", "grammatical"} if name in ("dpo", "rejection", "reinforce", "ppo", "trpo") else set()
    )
    assert spared == ({"reward", "kl", "efficiency"} if name == "reward" else plane)


def test_who_trains_on_the_true_reward_is_dashed_in_a_race() -> None:
    plane, regret = (panel for panel in PANELS["race"] if panel.id in ("race-plane", "race-regret"))
    assert plane.big
    for panel in (plane, regret):
        runners = [line for line in panel.lines if line.series.split("/")[0] in CONTESTANTS]
        dashed = {line.name for line in runners if line.dash == "dash"}
        assert dashed == {"PPO, true r", "TRPO, true r", "REINFORCE, true r"}
        solid = {line.name for line in runners if line.dash == "solid"}
        assert solid == {"DPO", "PPO, learned r", "preferred FT"}


@pytest.mark.parametrize("name", PANELS)
def test_what_an_algorithm_writes_is_shown_or_there_is_a_reason(name: str) -> None:
    written = names_in(real_run({"supervised": "sft"}.get(name, name))[0])
    assert written - drawn_by(PANELS[name]) - UNSHOWN.keys() - ALSO_UNSHOWN.get(name, set()) == set()


def test_there_is_no_reason_for_what_nobody_writes(estimated: set[str]) -> None:
    names = [name for name in PANELS if name != "supervised"]
    assert UNSHOWN.keys() <= {name for run in names for name in names_in(real_run(run)[0])} | estimated


def history_of(records: Iterator[Record] | list[Record]) -> History:
    history = History()
    for record in records:
        history.add(record)
    return history


def test_records_of_an_unknown_algorithm_fill_general_panels_and_no_others() -> None:
    scalars = {"loss": 1.0, "noise": 0.1, "noise_std": 0.2, "acts/left": 1.0, "acts/right": 2.0}
    judged = {"kl_rb": 0.5, "kl_rb_se": 0.1, "reward": 1.0, "reward_se": 0.2}
    records = [Record(step, scalars, {}, estimated=judged, arrays={"sizes": (1.0, 2.0)}) for step in (1, 2)]
    history = history_of(records)
    panels = panels_of("mine", history)
    assert panels is panels_of("mine", history)  # boards compare them ten times a second
    frame = history.snapshot()
    shown = {
        panel.title: [(line.series, line.spread) for line in panel.lines]
        for panel in panels
        if panel.shown_by(frame)
    }
    assert shown == {
        "Reward against KL": [],
        "Acts": [("acts/left", ""), ("acts/right", "")],
        "KL": [("estimated/kl_rb", "estimated/kl_rb_se")],
        "Reward": [("estimated/reward", "estimated/reward_se")],
        "Loss": [("loss", "")],
        "Noise": [("noise", "noise_std")],
        "Sizes": [("sizes", "")],
    }
    assert len({panel.id for panel in panels}) == len(panels)
    assert panels_of("mine", History()) == ()


def test_many_scalars_of_one_prefix_are_divided_among_panels_of_different_colours() -> None:
    panels = [p for p in general_panels([f"layer/{i:02}" for i in range(14)]) if p.kind == "lines"]
    assert [len(panel.lines) for panel in panels] == [6, 6, 2]
    assert [panel.title for panel in panels] == ["Layer, 1", "Layer, 2", "Layer, 3"]
    for panel in panels:
        assert len({line.colour for line in panel.lines}) == len(panel.lines)
        assert {line.colour for line in panel.lines} <= COLOURS.keys()


def test_general_panels_leave_out_what_others_draw() -> None:
    names = ["exact/reward", "exact/kl", "loss"]
    beside = general_panels(names, beside=(REWARD, PLANE))
    assert [panel.title for panel in beside if panel.kind == "lines"] == ["KL", "Loss"]
    assert "plane" not in {panel.kind for panel in beside}


def test_a_stored_run_of_control_gets_the_name_that_its_algorithm_had() -> None:
    for name in ("reinforce", "trpo", "ppo"):
        assert stored_name(name, history_of(list(real_run(name)[0]))) == name
        assert stored_name(name, history_of(list(real_run(f"{name}-control")[0]))) == f"{name}-control"
    dpo = history_of(list(real_run("dpo")[0]))
    assert (stored_name("", dpo), stored_name("mine", dpo), stored_name("dpo", dpo)) == ("", "mine", "dpo")
