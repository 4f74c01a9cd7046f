"""Every notebook runs from top to bottom, headless, and leaves what its reader is promised."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

LABS = Path(__file__).resolve().parent.parent / "labs"

# What must hold in the kernel after the last cell of a lab.
PROMISES = {
    "00_start_here": """
        assert board.state == "finished" and board.history.step == 600
        assert 0 < board.history.exact["efficiency"] <= 1
        assert board.history.exact["objective"] > board.history.exact["ref_reward"]
        assert len(board.figure().data) >= 8
    """,
    "01_policy_gradients": """
        assert board.state == "finished" and board.history.estimated["return"] > 400
        assert abs(by_autograd - closed_form) < 1e-12 and abs(samples.mean() - closed_form) < 4 * error
        assert min(exact) < 0.02 < exact[0]
        assert all(abs(m - exact_variance(b)) < 0.1 * m + 0.001 for m, b in zip(measured, baselines))
        assert exact_variance(best) < 1e-12 < exact_variance(mean_return)
        assert variance[0] > 2 * variance[1] > 2 * variance[2]
        assert trained.data["rewards"].count(1) > 2 * len(player.data["rewards"])
        assert trained.data["cartpole"] and abs(G[0, -1] - 1) < 1e-6
        assert reuse[0] > 63.99 and reuse[0] > reuse[1] > reuse[2] > 30 > 10 > reuse[5] and reuse[20] < 5
        assert not any(diagnoses["A"]) and "where is γ" in diagnoses["B"][2]
        assert "V has not moved" in diagnoses["C"][0] and "wrong action is learnt" in diagnoses["D"][3]
    """,
    "04_pretrain_and_sft": """
        assert pretraining.state == sft.state == "finished" and list(tables) == [0, 25, 100, 400]
        assert abs(cross_entropy - entropy - kl) < 1e-9
        learnt = pretraining.history.exact
        assert 0 < learnt["cross_entropy"] - learnt["entropy"] < 0.07
        assert abs(learnt["grammatical"] - learnt["grammatical_texts"]) < 0.03
        shares = [table.exp()[:, clean].sum(1).mean() for table in (start, before, after)]
        assert shares[0] < 0.1 and 0.7 < shares[1] < 0.85 and shares[2] > 0.96
        assert (before - tables[400]).abs().max() < 0.1
        assert (total - between - within).abs().max() < 1e-9 and between.mean() > 0.7 * total.mean()
        assert change[gained].min() > 0 > change[lost].max() and world.is_grammatical[gained].all()
        assert abs(worth.mean() - (-0.319)) < 0.05
        assert records[-1].scalars["loss"] < records[-1].exact["entropy"] < records[-1].exact["cross_entropy"] - 0.3
        assert len(chat.rounds) == 3 and all(len(replies) == 3 for _, replies in chat.rounds)
        assert len(pretraining.figure().data) >= 10 and len(sft.figure().data) >= 10
    """,
    "05_reward_model": """
        assert board.state == blind.state == "finished"
        assert max(abs(a - b) for a, b in zip(won, model)) < 0.03
        assert (answer_scores(packaged, batch) - by_hand).abs().max() < 1e-5 and same.abs().max() < 1e-5
        assert (weights + slope).abs().max() < 1e-6
        assert board.history.exact["rank_correlation"] > 0.5 and 0.6 < board.history.exact["efficiency"] <= 1
        assert abs(loss["r_φ"] - loss["r_φ + constant"]) < 1e-9
        lost = few_records[-1].scalars["eval/loss"], records[-1].scalars["eval/loss"]
        assert lost[0] > 0.6931 > lost[1]
        assert difference < 1e-12 and abs(total - 1) < 1e-9 and set(regrets) == {2, 4}
        assert (blind_raw[0] - blind_raw[3]).abs().max() == 0
        assert len(set(world.rewards.max(1).values.tolist())) == 1
        assert all(found.reward[0] < found.reward.max() - 0.2 for found in pursuits.values())
        bought = pursuits["100 pairs"]
        assert bought.reward[0] < bought.reward.max() - 0.2 and bought.score[0] > bought.score[-1] + 2
        assert len(board.figure().data) >= 12
    """,
    "06_ppo": """
        assert board.state == trpo.state == learned.state == "finished"
        assert gap < 1e-4
        assert (exact_gradient - score_function).abs().max() < 1e-6 < exact_gradient.abs().max()
        assert all(quality[0] < quality[-1] for _, quality in cosines.values())
        assert cosines["leave-one-out baseline"][1][-1] > max(0.8, cosines["no baseline, every reward + 3"][1][-1])
        assert R.std(-1).max() < 1e-9 and difference.abs().max() < 1e-9
        assert errors["exact V"][1][0] < 1e-5 and all(min(e) < min(e[0], e[-1]) for _, e in list(errors.values())[:2])
        assert board.history.exact["efficiency"] > 0.8 and board.history.exact["regret"] < 0.2
        assert all(0 <= regret[-1] < regret[0] for _, regret in regrets.values())
        assert all(r.scalars["trpo/kl_old"] <= r.scalars["trpo/max_kl"] for r in trpo_records)
        last = {name: done[-1].exact for name, done in zoo.items()}
        assert min(last, key=lambda name: last[name]["regret"]) == "right"
        assert last["mean for sum"]["reward"] > last["right"]["reward"]
        estimates = [r.scalars["objective/kl"] for r in zoo["cut sampling"]]
        assert sum(estimates) / len(estimates) < 0.1 < last["cut sampling"]["kl"] and min(estimates) < 0
        assert by_model > 1.5 * by_truth > 0
    """,
    "07_dpo": """
        assert board.state == noisy.state == "finished"
        assert (by_autograd - by_formula).abs().max() < 1e-6 < by_autograd.abs().max()
        assert abs(scales[losses_by_scale.index(min(losses_by_scale))] - 1) <= 0.2
        assert weights[swapped].mean() > weights[~swapped].mean()
        assert list(regrets) == ["100 pairs", "1000 pairs", "fresh pairs"]
        assert all(min(regret) >= 0 for _, regret in regrets.values())
        assert (run.folder / "report.html").stat().st_size > 100_000
    """,
    "08_ppo_vs_dpo": """
        assert race.state == hacked.state == "finished"
        assert all(exact["efficiency"] <= 1 + 1e-9 and exact["regret"] >= 0 for exact in results.values())
        assert min(results["ppo"]["regret"], results["trpo"]["regret"]) < results["dpo"]["regret"] < start
        assert all(duels[10_000][name]["regret"] < duels[200][name]["regret"] for name in words)
        assert scores[-1] > scores[best - 1] and gold[-1] < gold[best - 1]
        assert best_of["what the annotators see"] == sorted(best_of["what the annotators see"])
    """,
}


@pytest.mark.parametrize("path", sorted(LABS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_lab_runs_and_keeps_its_promises(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    promise = "\n".join(line.strip() for line in PROMISES[path.stem].strip().splitlines())
    notebook.cells.append(nbformat.v4.new_code_cell(promise))
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error"
            assert "Traceback" not in output.get("text", ""), cell.source
