"""Lab 03 for real: the clip is dragged, its epochs are played, PPO's board on CartPole fills and its slider acts."""

from tests.browser.test_course import drawn, open_lab
from tests.browser.test_dpo_lab import shot
from tests.browser.test_ladder import dragged, explorable


def test_in_lab_03_the_clip_is_dragged_and_the_epochs_are_played(steady):
    lab, page = steady, steady.page
    open_lab(lab, "03_ppo", "import torch", "clip = ClipExplorable()")
    view = explorable(lab, "The clip")
    lab.poll(view.count, 60)
    loss = view.locator("[data-panel='loss']")
    dragged(lab, loss.locator("canvas[role=img]"), (0.53, 0.4), (0.27, 0.4))
    ratio = lab.poll(lambda: (found := lab.in_kernel("clip.ratio")) < 0.7 and found, 30)
    assert "the minimum keeps the gradient that leads back" in loss.inner_text()
    assert f"ratio {ratio:.2f}" in loss.locator("canvas[role=img]").get_attribute("aria-label")
    view.get_by_role("combobox", name="the batch is trained with").select_option(label="ρA, no clip")
    view.get_by_role("button", name="Play epochs").click()
    lab.poll(lambda: lab.in_kernel("(clip.epoch, clip.objective)") == [100, "none"], 30)
    largest = view.locator("tr", has=page.locator("th:text-is('largest ρ')")).locator("td.now").inner_text()
    assert abs(float(largest) - lab.in_kernel("float(clip.ascent().largest[-1])")) < 0.1
    shot(lab, "03-clip-played")


def test_ppo_on_cartpole_on_its_board(steady):
    lab = steady
    open_lab(lab, "03_ppo", "import torch", 'title="PPO on CartPole"')
    view = lab.board("PPO on CartPole")
    lab.poll(view.count, 90)
    assert view.get_by_role("slider", name="β").count() == 0  # there is no reference here
    drawn(lab, view, "ratio", 40)
    drawn(lab, view, "return", 4)
    lab.drag(view.get_by_role("slider", name="clip ε"), 0.8)
    lab.poll(lambda: lab.in_kernel("board.history.knobs['clip_range']") > 0.3, 60)
    lab.poll(lambda: lab.in_kernel("board.state") == "finished", 120)
    drawn(lab, view, "ratio", 40)
    for panel, least in (
        ("return", 20),
        ("episode_length", 20),
        ("clip", 90),
        ("update", 90),
        ("value", 90),
        ("entropy", 90),
    ):
        drawn(lab, view, panel, least)
    titles = view.locator(".rlhf-plot").evaluate_all(
        "plots => plots.map((plot) => plot.layout?.yaxis?.title?.text)"
    )
    assert len(titles) == 7 and all(titles), "every panel's axis has a name"
    assert "token" not in view.inner_text()
    view.scroll_into_view_if_needed()
    shot(lab, "03-board")
