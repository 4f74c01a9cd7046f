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
        assert duels["10,000 pairs"]["dpo"] < duels["200 pairs"]["dpo"]
        assert duels["10,000 pairs"]["ppo_learned"] < duels["200 pairs"]["ppo_learned"]
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
