"""%%exact: a notebook cell that needs the list of all answers runs if there is one, else it says in a line why not.

So one setting at the top of a lab switches its world, and cells for enumerable worlds need no branches.
"""

from __future__ import annotations

import ast
from typing import Any


def exact_cells(world: Any) -> None:
    """Make cells that begin with %%exact run if `world` can be enumerated, and be skipped with one line if not.

    Args:
        world: its `name` and whether it is `enumerable`; see `worlds.world.World`.

    Raises:
        RuntimeError: outside IPython, where there are no cells.
    """
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is None:
        raise RuntimeError("%%exact needs a notebook or IPython")

    def exact(_line: str, cell: str) -> Any:
        if world.enumerable:
            return _run(shell, cell)
        print(f"Skipped: needs the list of all answers, and the {world.name} world has too many.")
        return None

    shell.register_magic_function(exact, "cell", "exact")


def _run(shell: Any, cell: str) -> Any:
    """Run a cell in the notebook's namespace; its last expression is the value, an error is the cell's own."""
    source = shell.transform_cell(cell)
    name = shell.compile.cache(source, shell.execution_count, cell)  # so that tracebacks show its lines
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), shell.user_ns)
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), name, "eval"), shell.user_ns)
