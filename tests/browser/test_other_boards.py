"""The boards of PPO and of a reward model: their panels fill, the clip slider acts, a board out of sight is drawn."""

from tests.browser.jupyter import points

SETUP = """
import torch
torch.set_num_threads(1)
from rlhflab import Board, recipes

clips = []
"""
PPO = """
ppo = Board(
    recipes.PPO(steps=30, batch_size=63, evaluate_every=5), title="PPO",
    sinks=[lambda record: clips.append(record.knobs["clip_range"])],
)
ppo
"""
REWARD = """
reward = Board(recipes.Reward(pairs=300, steps=20, evaluate_every=10), title="Reward")
reward
"""
SPACE = "for line in range(200): print(line)"


def test_ppo_and_a_reward_model_on_their_boards(steady, world, sft):
    lab = steady
    lab.write("other.ipynb", SETUP, PPO, *[SPACE] * 6, REWARD)
    lab.open("other.ipynb")
    lab.run_all()
    ppo, reward = lab.board("PPO"), lab.board("Reward")
    lab.poll(lambda: lab.in_kernel("'reward' in globals()"), 60)

    # PPO: its own panels from the start; the clip slider is found in the records.
    lab.show_cell("recipes.PPO(")
    assert ppo.locator(".rlhf-panel").count() == 10
    ppo.get_by_role("button", name="Start").click()
    lab.poll(lambda: points(ppo, "ratio") >= 40, 90)
    lab.drag(ppo.get_by_role("slider", name="clip ε"), 0.9)
    moved = lab.poll(lambda: next((clip for clip in lab.in_kernel("clips") if clip > 0.3), None), 60)
    # Scrolled away from, it ends filled.
    lab.show_cell("recipes.Reward(")
    lab.poll(lambda: lab.in_kernel("ppo.state") == "finished", 90)
    assert lab.in_kernel("clips[-1]") >= moved
    for panel in ("reward", "kl", "plane", "regret", "clip", "update", "value", "entropy", "length"):
        lab.poll(lambda panel=panel: points(ppo, panel) >= 7, 30)
    box = ppo.bounding_box()
    assert box is None or box["y"] + box["height"] < 0, "the board was to be out of sight"

    # The reward model: whole numbers stay whole; scatter, calibration and weights are there.
    slider = reward.get_by_role("slider", name="label noise")
    lab.drag(slider, 0.0)
    assert lab.poll(lambda: lab.in_kernel("reward.player.knobs['label_noise']") == 0.0, 30)
    lab.drag(reward.get_by_role("slider", name="pairs"), 0.3)
    pairs = lab.settled("reward.player.knobs['pairs']", 2000)
    assert pairs == round(pairs)
    reward.get_by_role("button", name="Start").click()
    lab.poll(lambda: lab.in_kernel("reward.state") == "finished", 120)
    for panel, least in (("scatter", 300), ("calibration", 2), ("loss", 20), ("weights", 20), ("regret", 3)):
        reward.locator(f"[data-panel='{panel}']").scroll_into_view_if_needed()
        lab.poll(lambda panel=panel, least=least: points(reward, panel) >= least, 30)
    assert "policy" not in reward.locator(".rlhf-pairs").inner_text()

    # In another theme the plots are drawn anew, although nothing else changes.
    plot = reward.locator("[data-panel='regret'] .rlhf-plot")
    for theme, colour in (("Dark", "#2fd0a2"), ("Light", "#00805f")):
        lab.page.evaluate(
            "theme => void window.jupyterapp.commands.execute('apputils:change-theme', { theme })",
            f"JupyterLab {theme}",
        )
        lab.poll(lambda colour=colour: plot.evaluate("plot => plot.data[0].line.color") == colour, 30)
