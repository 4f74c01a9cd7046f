"""Algorithms of one's own, written in a cell: their sliders act and their plots fill, as those of the package."""

from tests.browser.jupyter import points

DESCENT = """
import time
from rlhflab import Board, DPO, Knob, Knobs, Record, recipes

knobs = Knobs({"rate": Knob(0.001, 0.001, 1.0, log=True, label="rate", help="Step size.")})
rates = []

def descent():
    x = 5.0
    for step in range(1, 601):
        time.sleep(0.05)
        now = knobs.snapshot()
        rates.append(now["rate"])
        x -= now["rate"] * 2 * x
        yield Record(step, {"loss": x * x, "away <b>": x}, now)

mine = Board(descent, title="Mine", knobs=knobs)
mine
"""
IPO = """
class IPOUpdate(DPO):
    def loss(self, policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta):
        _, chosen, rejected = super().loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
        margins = (policy_chosen - ref_chosen) - (policy_rejected - ref_rejected)
        return (margins - 1 / (2 * beta)) ** 2, chosen, rejected

class IPO(recipes.DPO):
    training = IPOUpdate

ipo = Board(IPO(pairs=200, steps=40, evaluate_every=10), title="IPO", autostart=True)
ipo
"""


def test_an_iterator_and_a_variant_of_dpo_on_their_boards(steady, world, sft):
    lab = steady
    lab.write("yours.ipynb", DESCENT, IPO)
    lab.open("yours.ipynb")
    lab.run_all()

    # The iterator: a slider before anything has run, general panels for what its records hold, as texts.
    mine = lab.board("Mine")
    lab.poll(lambda: mine.get_by_role("slider", name="rate").count() == 1, 60)
    lab.poll(lambda: lab.in_kernel("'ipo' in globals()"), 60)
    mine.get_by_role("button", name="Start").click()
    lab.poll(lambda: mine.locator("[data-panel='general-loss']").count(), 30)
    lab.poll(lambda: points(mine, "general-loss") >= 5, 30)
    assert "away <b>" in mine.inner_text()
    lab.drag(mine.get_by_role("slider", name="rate"), 0.6)
    rate = lab.settled("mine.player.knobs['rate']", 0.001)
    assert 0.01 < rate < 0.5
    lab.poll(lambda: lab.in_kernel("rates[-1]") == rate, 10)
    lab.poll(lambda: lab.in_kernel("mine.player.record.scalars['loss'] < 1e-3"), 30)
    mine.get_by_role("button", name="Stop").click()
    lab.poll(lambda: lab.in_kernel("mine.state") == "stopped", 10)

    # The variant: DPO's panels, exactly judged.
    lab.show_cell("IPOUpdate")
    ipo = lab.board("IPO")
    lab.poll(lambda: lab.in_kernel("ipo.state") == "finished", 90)
    for name in ("loss", "kl", "plane"):
        lab.poll(lambda name=name: points(ipo, name) >= 4, 30)
    assert lab.in_kernel("0 < ipo.history.judged['kl']")
