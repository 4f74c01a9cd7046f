"""The grid explorable: states, actions, a policy, trajectories and their returns in a world that fits on a page.

A step leads to the next cell in the direction of the action; with probability `slip` it goes off to one of its sides. A
wall or the edge leaves it where it is. A step costs 0.04; the cell + ends the episode with a reward of 1, − with −1.
The policy takes the best action but, with probability ε, any of the four.

The grid is that of Russell & Norvig, "Artificial intelligence: a modern approach", chapter 17.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import traitlets
from torch import Tensor

from rlhflab.explore.explorable import Explorable, Number

if TYPE_CHECKING:
    import plotly.graph_objects as go

GRID = ("...+", ".#.-", "@...")
WAYS = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left: rows and columns
STEP_REWARD, ENDS = -0.04, {"+": 1.0, "-": -1.0}
TRAJECTORIES = 300


class GridValues(NamedTuple):
    """Exact values of a policy on a grid.

    Attributes:
        policy: [cells, 4], π(a|s), ways in the order up, right, down, left.
        values: [cells], V^π(s); 0 where an episode is over, and in walls.
    """

    policy: Tensor
    values: Tensor


class GridExplorable(Explorable):
    """A grid world with an ε-greedy policy, its exact values, and trajectories drawn from it.

    Args:
        grid: rows of "." free, "#" wall, "+" and "-" ends, "@" start.
        epsilon: ε, the chance of a random action.
        slip: the chance that a step goes off to a side.
        gamma: the discount, 0.5 to 1.

    Attributes:
        start: the first cell, row by row from 0; drag it in the grid.
        trajectory: number of the trajectory shown, 1 to 300.

    Raises:
        ValueError: rows of different lengths, unknown letters, not exactly one start, or no way to an end.
    """

    _script = "grid.js"

    epsilon = Number(0.2, 0.0, 1.0)
    slip = Number(0.2, 0.0, 0.8)
    gamma = Number(1.0, 0.5, 1.0)
    start = traitlets.Int(0).tag(sync=True)
    trajectory = traitlets.Int(1).tag(sync=True)

    def __init__(
        self, grid: Sequence[str] = GRID, epsilon: float = 0.2, slip: float = 0.2, gamma: float = 1.0
    ) -> None:
        cells = "".join(grid)
        if len(set(map(len, grid))) != 1 or set(cells) - set(".#+-@") or cells.count("@") != 1:
            raise ValueError(f"a grid is rows of one length of . # + - and one @, got {list(grid)}")
        if not _all_lead_to_an_end(grid):
            raise ValueError(
                "a grid needs an end, + or -, for every free cell: else an episode would never be over"
            )
        payload = {
            "rows": [row.replace("@", ".") for row in grid],
            "stepReward": STEP_REWARD,
            "ends": ENDS,
            "trajectories": TRAJECTORIES,
        }
        super().__init__(payload, epsilon=epsilon, slip=slip, gamma=gamma, start=cells.index("@"))

    @traitlets.validate("start")
    def _check_start(self, proposal: dict[str, int]) -> int:
        cells, index = "".join(self.data.get("rows", ())), proposal["value"]
        if cells and not (0 <= index < len(cells) and cells[index] == "."):
            raise ValueError(f"start must be a free cell, got {index}")
        return index

    @traitlets.validate("trajectory")
    def _check_trajectory(self, proposal: dict[str, int]) -> int:
        if not 1 <= proposal["value"] <= TRAJECTORIES:
            raise ValueError(f"trajectory must be from 1 to {TRAJECTORIES}, got {proposal['value']}")
        return proposal["value"]

    def exact(self) -> GridValues:
        """Return π and V^π at the present ε, slip and γ: value iteration, then V = (I − γP)⁻¹r."""
        cells, moves = "".join(self.data["rows"]), self._moves()
        reward = torch.tensor([ENDS.get(cell, STEP_REWARD) for cell in cells], dtype=torch.float64)
        over = torch.tensor([cell != "." for cell in cells])
        values = torch.zeros(len(cells), dtype=torch.float64)
        for _ in range(500):
            action_values = moves @ (reward + self.gamma * values)  # [cells, 4]
            values = action_values.max(1).values.masked_fill(over, 0.0)
        policy = torch.full_like(action_values, self.epsilon / 4)
        policy[torch.arange(len(cells)), action_values.argmax(1)] += 1 - self.epsilon
        step = torch.einsum("sa,sat->st", policy, moves)
        step[over] = 0.0
        exact = torch.linalg.solve(
            torch.eye(len(cells), dtype=torch.float64) - self.gamma * step, step @ reward
        )
        return GridValues(policy, exact)

    def _moves(self) -> Tensor:
        """P(s'|s,a), [cells, 4, cells]."""
        rows = self.data["rows"]
        height, width = len(rows), len(rows[0])
        moves = torch.zeros(height * width, 4, height * width, dtype=torch.float64)
        for row in range(height):
            for column in range(width):
                for way in range(4):
                    for turn, chance in ((0, 1 - self.slip), (1, self.slip / 2), (3, self.slip / 2)):
                        down, right = WAYS[(way + turn) % 4]
                        r, c = row + down, column + right
                        free = 0 <= r < height and 0 <= c < width and rows[r][c] != "#"
                        moves[row * width + column, way, r * width + c if free else row * width + column] += (
                            chance
                        )
        return moves

    def figure(self) -> go.Figure:
        """Return a static plotly figure: the values of all cells, and the best action in each."""
        import plotly.graph_objects as go

        rows, exact = self.data["rows"], self.exact()
        arrows = ["↑→↓←"[way] for way in exact.policy.argmax(1).tolist()]
        marks = [way if cell == "." else cell for way, cell in zip(arrows, "".join(rows), strict=True)]
        width = len(rows[0])
        text = [marks[at : at + width] for at in range(0, len(marks), width)]
        values = exact.values.reshape(len(rows), -1).tolist()
        heat = go.Heatmap(z=values, text=text, texttemplate="%{text} %{z:.2f}", colorscale="RdBu", zmid=0)
        figure = go.Figure(heat)
        figure.update_yaxes(autorange="reversed")
        return figure.update_layout(template="plotly_white", height=360, title_text="V of every cell")


def _all_lead_to_an_end(grid: Sequence[str]) -> bool:
    """Whether every free cell has a way to an end: found from the ends backwards."""
    cells = {(r, c): cell for r, row in enumerate(grid) for c, cell in enumerate(row) if cell != "#"}
    reached = fresh = {place for place, cell in cells.items() if cell in ENDS}
    while fresh:
        beside = {(r + down, c + right) for r, c in fresh for down, right in WAYS}
        fresh = {place for place in beside if place in cells} - reached
        reached = reached | fresh
    return set(cells) == reached
