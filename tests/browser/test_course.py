"""Labs 05 and 06 for real: they start by themselves, their plots fill, β and the form act; and the chat answers."""

import shutil

from tests.browser.jupyter import points
from tests.browser.test_dpo_lab import LABS, run_cell, shot

LEVEL = """(plot, name) => {
  const line = (plot.data || []).find((trace) => trace.name === name);
  return line ? line.y[0] : null;
}"""


def optimum(view, panel):
    """Height of the π* line of a panel; None where there is none."""
    return view.locator(f"[data-panel='{panel}'] .rlhf-plot").evaluate(LEVEL, "π*")


def open_lab(lab, name, *cells):
    """Open a lab of the course and run the cells with these words in them: a board needs not all that comes before."""
    shutil.copy(LABS / f"{name}.ipynb", lab.folder / f"{name}.ipynb")
    lab.open(f"{name}.ipynb")
    sources = lab.page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.content.widgets.map((c) => c.model.sharedModel.source)"
    )
    for words in cells:
        run_cell(lab, next(at for at, source in enumerate(sources) if words in source))
    lab.show_cell(cells[-1])


def drawn(lab, view, panel, least):
    """Wait until a panel has that many points; scrolled to, as what is out of sight waits."""
    view.locator(f"[data-panel='{panel}']").scroll_into_view_if_needed()
    lab.poll(lambda: points(view, panel) >= least, 60)


def test_in_lab_06_beta_moves_the_optimum_and_the_training_follows(steady, world, sft):
    lab = steady
    open_lab(lab, "06_ppo", "WORLD =", 'title="PPO with the true reward"')
    view = lab.board("PPO with the true reward")
    lab.poll(view.count, 90)
    drawn(lab, view, "ratio", 40)
    drawn(lab, view, "reward", 2)
    before = lab.poll(lambda: optimum(view, "reward"), 30)
    lab.drag(view.get_by_role("slider", name="β"), 0.2)
    beta = lab.settled("board.player.knobs['beta']", 1.0)
    assert beta < 0.5
    exact = lab.in_kernel(f"board.backdrop.at({beta}).reward")
    assert exact > before + 0.3  # a smaller β: the best policy has more reward
    lab.poll(lambda: abs(optimum(view, "reward") - exact) < 1e-3, 30)
    lab.poll(lambda: lab.in_kernel("board.history.knobs['beta']") == beta, 30)
    for panel in ("kl", "plane", "regret", "clip", "value", "entropy"):
        drawn(lab, view, panel, 2)
    shot(lab, "06-beta-dragged")
    lab.in_kernel("board.stop()")


def test_in_lab_05_another_choice_begins_anew_and_beta_moves_the_optimum(steady, world, sft):
    lab = steady
    open_lab(lab, "05_reward_model", "WORLD =", "choices = {", 'title="Reward model on 5,000 pairs"')
    view = lab.board("Reward model on 5,000 pairs")
    lab.poll(view.count, 90)
    drawn(lab, view, "loss", 10)
    drawn(lab, view, "scatter", 300)
    drawn(lab, view, "plane", 2)
    diamond = "plot => plot.data.find((trace) => trace.marker?.symbol === 'diamond')?.y[0] ?? null"
    plane = view.locator("[data-panel='plane'] .rlhf-plot")
    before = lab.poll(lambda: plane.evaluate(diamond), 30)
    lab.drag(view.get_by_role("slider", name="β"), 0.2)
    drawn(lab, view, "plane", 2)  # it was out of sight of the sliders
    lab.poll(lambda: plane.evaluate(diamond) > before + 0.3, 30)
    view.get_by_label("blind to").select_option("film")
    lab.poll(
        lambda: lab.in_kernel("board.algorithm is not None and board._form.chosen['blind']") == "film", 60
    )
    lab.poll(lambda: lab.in_kernel("board.state == 'running' and board.history.step >= 5"), 60)
    lab.poll(lambda: view.locator(".rlhf-ghost").count() == 1, 30)  # with the next frame
    assert lab.in_kernel("sorted(board.player.knobs)") == ["beta", "label_noise", "learning_rate", "pairs"]
    view.get_by_label("blind to").scroll_into_view_if_needed()
    shot(lab, "05-form")
    lab.in_kernel("board.stop()")


CHAT = """
from rlhflab.recipes.reference import tiny_reference
from rlhflab.recipes.worlds import world_named
from rlhflab.data.sampled import speaker
from rlhflab.live.chat import Chat

world = world_named("micro")
hostile = lambda prompt, seed: ("<img src=x onerror=alert(1)>", 0.5, 0.0)
chat = Chat(world.prompts, {"SFT": speaker(world, tiny_reference(world)), "<b>bold</b>": hostile})
chat
"""


def test_the_chat_answers_the_prompt_that_was_chosen_and_texts_stay_texts(steady, world, sft):
    lab = steady
    lab.write("chat.ipynb", CHAT)
    lab.open("chat.ipynb")
    lab.run_all()
    output = lab.page.locator(".jp-OutputArea-output")
    lab.poll(lambda: output.get_by_role("button", name="answer").count(), 60)
    output.locator("select").select_option("the thriller was")
    output.get_by_role("button", name="answer").click()
    lab.poll(lambda: "the thriller was …" in output.first.inner_text(), 30)
    asked, replies = lab.in_kernel("[chat.rounds[-1][0], [reply.answer for reply in chat.rounds[-1][1]]]")
    assert asked == "the thriller was" and lab.in_kernel("len(chat.rounds)") == 2
    text = output.first.inner_text()
    assert replies[0] in text and "<img src=x onerror=alert(1)>" in text and "<b>bold</b>" in text
    assert lab.page.locator("img[src=x]").count() == 0
    shot(lab, "chat")
