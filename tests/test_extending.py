"""Every block of docs/extending.md runs in a notebook's kernel."""

import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "extending.md").read_text("utf-8")
PROMISES = {
    "sweep": "assert found.count('finished') == 4",
    "frame": "assert len(table) == 20 and (folder / 'plane.svg').read_text('utf-8').startswith('<svg')",
}
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def lines_of(block, begin):
    """Lines of code from the one that begins so to the next blank one."""
    lines = block[block.index(begin) :].splitlines()
    return next((at for at, line in enumerate(lines) if not line.strip()), len(lines))


def test_they_are_as_short_as_promised():
    variant = next(block for block in BLOCKS if "class IPOUpdate" in block)
    assert lines_of(variant, "class IPOUpdate") + lines_of(variant, "class IPO(") <= 12
    world = next(block for block in BLOCKS if "OwnWorld(" in block)
    assert world.index("board = ") and len(world[: world.index("board = ")].strip().splitlines()) <= 20


def test_all_run_in_a_kernel_and_show_what_they_trained(tmp_path):
    check = "assert board.state == 'finished' and len(board.figure().data) > 0; board.close(); del board"
    cells = []
    for block in BLOCKS:
        cells += [block, check if "Board(" in block else PROMISES[re.search(r"(sweep|frame)\(", block)[1]]]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
