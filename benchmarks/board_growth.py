"""What a board costs as a run grows: bytes a frame, kernel time, draw time, at 100 to 100,000 recorded steps.

Each record has 8 scalars and 32 pairs, whose weights make the heat map. Beside it a plotly FigureWidget holds the
same data in the same run, twice: with every step, and thinned to 1,000 points a series (its heat map is always
thinned to the board's 100 columns). Bytes are those of the messages that would go to the page, JSON and buffers.
Draw times are those of plotly.js (the same file for all) in real Chromium, all panels of one frame together.
"""

from __future__ import annotations

import gc
import json
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.common import chromium, digits, emit, machine, median, parser, poll, say

LENGTHS = (100, 1_000, 10_000, 100_000)
SERIES = (
    "loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "rewards/chosen_std",
    "rewards/rejected_std", "grad_norm",
)  # fmt: skip
KINDS = ("board", "figurewidget", "figurewidget_1000_points")
FRAMES_A_SECOND = 10
EVALUATE_EVERY = (
    10  # so that the curves of exact values are full at 1,000 steps too, from where all must be flat
)


def records(seed: int = 0) -> Iterator[Any]:
    """A run without end: noisy curves, an exact evaluation every 10 steps, 2,000 pairs in batches of 32."""
    from rlhflab.core.record import Pairs, Record

    rng = random.Random(seed)
    batches = []
    for first in range(0, 2000, 32):
        ids = tuple(range(first, first + 32))
        weights = tuple(rng.betavariate(2, 3) for _ in ids)
        texts = [
            tuple(f"the {word} was not very good {i}" for i in ids) for word in ("plot", "chosen", "rejected")
        ]
        rewards = [tuple(rng.gauss(mean, 1) for _ in ids) for mean in (0.3, -0.4)]
        flipped = tuple(rng.random() < 0.1 for _ in ids)
        batches.append(Pairs(ids, *texts, *rewards, weights, flipped))
    step = 0
    while True:
        step += 1
        trend = math.log1p(step)
        scalars = {name: trend * (place - 3) / 10 + rng.gauss(0, 0.3) for place, name in enumerate(SERIES)}
        exact = None
        if step == 1 or step % EVALUATE_EVERY == 0:
            kl = 0.2 * trend + rng.gauss(0, 0.02)
            exact = {
                "reward": math.sqrt(kl),
                "kl": kl,
                "regret": 1 / step,
                "efficiency": 0.9,
                "ref_reward": -0.3,
            }
        yield Record(
            step, scalars, {"beta": 1.0, "learning_rate": 1e-3}, batches[step % len(batches)], (), exact
        )


class Wire:
    """Counts what widgets send, in place of the notebook's comms."""

    def __init__(self) -> None:
        import comm

        self.bytes = 0
        wire = self

        class Comm(comm.base_comm.BaseComm):
            def publish_msg(
                self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **_: Any
            ) -> None:
                wire.bytes += len(json.dumps(data or {}).encode()) + sum(
                    memoryview(b).nbytes for b in buffers or ()
                )

        comm.create_comm = Comm

    def of(self, action: Callable[[], Any]) -> int:
        """Bytes sent during `action`."""
        self.bytes = 0
        action()
        return self.bytes


class Peer:
    """A FigureWidget with 8 curves and a heat map, updated in place as its documentation says."""

    def __init__(self) -> None:
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots

        figure = make_subplots(rows=1, cols=2)
        for name in SERIES:
            figure.add_trace(go.Scatter(name=name, mode="lines"), row=1, col=1)
        figure.add_trace(go.Heatmap(showscale=False), row=1, col=2)
        self.widget = go.FigureWidget(figure)
        self._nudge = 0.0

    def update(self, steps: Any, columns: list[Any], heat: dict[str, Any]) -> None:
        self._nudge += 1e-6  # values must differ from the last ones, as in a run: equal ones are not sent
        with self.widget.batch_update():
            for trace, values in zip(self.widget.data, columns, strict=False):
                trace.x, trace.y = steps + self._nudge, values + self._nudge
            heat_x = [x + self._nudge for x in heat["x"]]
            self.widget.data[-1].x, self.widget.data[-1].z = heat_x, list(zip(*heat["z"], strict=True))

    def page_data(self) -> dict[str, Any]:
        figure = json.loads(
            self.widget.to_json()
        )  # arrays of numbers travel as base64 here, as in the widget's messages
        return {"data": figure["data"], "layout": {**figure["layout"], "width": 1100, "height": 420}}


def in_kernel(repeats: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return figures by length, and what the page shall draw. A board and two peers a length, timed in turns."""
    import numpy as np

    wire = Wire()
    from rlhflab.live.board import Board
    from rlhflab.plots.panels_dpo import DPO_PANELS

    actions: dict[tuple[int, str, str], Callable[[], Any]] = {}
    figures: dict[str, Any] = {str(length): {} for length in LENGTHS}
    pages: dict[str, Any] = {"setup": None, "lengths": {}}
    boards = []
    for length in LENGTHS:
        board, source = Board(lambda: None, f"growth {length}", panels=DPO_PANELS), records()
        boards.append(board)
        whole = np.empty((len(SERIES) + 1, length))
        for at in range(length):
            record = next(source)
            board.history.add(record)
            whole[:, at] = [record.step, *record.scalars.values()]
        keep = np.linspace(0, length - 1, min(length, 1000)).astype(int)
        heat = board.history.snapshot()["heat"]
        peers = {"figurewidget": whole, "figurewidget_1000_points": whole[:, keep]}
        shown = pages["lengths"][length] = {"frame": board.frame()}
        row = figures[str(length)]
        row["board"] = {"bytes": wire.of(lambda board=board: board.widget.send(board.frame()))}
        more = list(islice(source, 20 * (repeats + 1)))[::-1]
        actions[length, "board", "add_20_us"] = partial(_add, board.history, more)
        actions[length, "board", "frame_ms"] = partial(_frame, board)
        for name, values in peers.items():
            peer = Peer()
            update = partial(peer.update, values[0], list(values[1:]), heat)
            row[name] = {"bytes": wire.of(update)}
            shown[name] = peer.page_data()
            actions[length, name, "update_ms"] = update
        say(f"{length} steps:", {name: part["bytes"] for name, part in row.items()}, "bytes")
    pages["setup"] = boards[0].setup()
    for key, times in in_turns(actions, repeats).items():
        length, name, what = key
        if what == "add_20_us":
            figures[str(length)][name]["add_us"] = 1e6 * times / 20
        else:
            figures[str(length)][name][what] = 1e3 * times
    for board in boards:
        board.close()
    return figures, pages


def _add(history: Any, more: list[Any]) -> None:
    for _ in range(20):
        history.add(more.pop())


def _frame(board: Any) -> str:
    return json.dumps(board.frame())


def in_turns(actions: dict[Any, Callable[[], Any]], repeats: int) -> dict[Any, float]:
    """Median seconds of each action; a round runs every action once, so that a busy moment hits all alike."""
    gc.collect()
    gc.freeze()
    times: dict[Any, list[float]] = {key: [] for key in actions}
    kinds = sorted(
        actions, key=lambda key: (key[1], key[2])
    )  # alike beside alike: caches are as warm for each
    for turn in range(repeats + 1):  # the first warms up
        for key in kinds:
            if key[1] == "figurewidget" and turn > repeats // 4 + 1:
                continue  # slow
            began = time.perf_counter()
            actions[key]()
            if turn:
                times[key].append(time.perf_counter() - began)
    return {key: statistics.median(values) for key, values in times.items()}


PAGE = """<!doctype html><meta charset=utf-8><div id=board></div><div id=peer></div>
<script src=plotly.js></script><script type=module>
import widget from "./board.js";
const listeners = [];
const model = { get: () => "", set() {}, send() {}, save_changes() {}, off() {},
  on: (name, f) => { if (name === "msg:custom") listeners.push(f); } };
widget.render({ model, el: document.getElementById("board") });
const tell = (message) => listeners.forEach((f) => f(structuredClone(message), []));
const peer = document.getElementById("peer");
let spent = 0;
const react = Plotly.react;
Plotly.react = (...a) => {
  const t = performance.now(), drawn = react.apply(Plotly, a);
  spent += performance.now() - t;
  return drawn;
};
const rest = (ms) => new Promise((done) => setTimeout(done, ms));
window.setup = (message) => tell(message);
/** Milliseconds in plotly.js for one frame, all panels. */
window.drawBoard = async (frame) => {
  peer.hidden = true;
  spent = 0;
  tell(frame);
  let last = -1;
  while (spent !== last) { last = spent; await rest(400); }
  return spent;
};
window.drawPeer = async ({ data, layout }) => {
  peer.hidden = false;
  const empty = structuredClone(data).map((t) => ({ ...t, x: [], y: [], z: t.z && [] }));
  if (!peer.data) await Plotly.newPlot(peer, empty, layout);
  const lines = data.slice(0, -1), heat = data[data.length - 1], t = performance.now();
  await Plotly.restyle(peer, { x: lines.map((d) => d.x), y: lines.map((d) => d.y) }, lines.map((_, i) => i));
  await Plotly.restyle(peer, { x: [heat.x], z: [heat.z] }, [lines.length]);
  return performance.now() - t;
};
window.ready = true;
</script>"""


def in_browser(pages: dict[str, Any], repeats: int) -> dict[str, dict[str, float]]:
    """Return the milliseconds that plotly.js takes to draw each, by length."""
    import http.server
    import threading

    from plotly.offline import get_plotlyjs

    from rlhflab.live.page import BoardWidget

    times: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        Path(name, "plotly.js").write_text(get_plotlyjs(), encoding="utf-8")
        Path(name, "board.js").write_text(str(BoardWidget._esm), encoding="utf-8")
        Path(name, "index.html").write_text(PAGE, encoding="utf-8")
        handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
        with (
            http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=name)) as server,
            chromium(1500, 2400) as page,
        ):
            threading.Thread(target=server.serve_forever, daemon=True).start()
            page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
            poll(lambda: page.evaluate("window.ready === true"), 30, "page")
            page.evaluate("message => setup(message)", pages["setup"])
            for turn in range(repeats + 1):  # the first turn warms up
                for length, shown in pages["lengths"].items():
                    row = times.setdefault(str(length), {kind: [] for kind in KINDS})
                    for kind in row:
                        if kind == "figurewidget" and length > 10_000 and turn > 2:
                            continue  # seconds each
                        call = (
                            "frame => drawBoard(frame)" if kind == "board" else "figure => drawPeer(figure)"
                        )
                        spent = page.evaluate(call, shown["frame" if kind == "board" else kind])
                        if turn:
                            row[kind].append(spent)
                say(f"drawn, round {turn} of {repeats}")
            server.shutdown()
    return {length: {kind: median(values) for kind, values in row.items()} for length, row in times.items()}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--no-browser", action="store_true", help="kernel figures only")
    args = options.parse_args()
    about = machine()
    figures, pages = in_kernel(repeats=10 if args.quick else 60)
    if not args.no_browser:
        for length, row in in_browser(pages, repeats=2 if args.quick else 7).items():
            for kind, spent in row.items():
                figures[length][kind]["draw_ms"] = spent
    figures = {
        length: {kind: {key: digits(value) for key, value in part.items()} for kind, part in row.items()}
        for length, row in figures.items()
    }
    longer = [str(length) for length in LENGTHS if length > 1_000]
    growth = {
        what: max(figures[length]["board"][what] / figures["1000"]["board"][what] for length in longer)
        for what in figures["1000"]["board"]
    }
    largest = max(row["board"]["bytes"] for row in figures.values())
    targets = [
        *(
            (f"growth of {what} from 1,000 to 100,000 steps", digits(value), 1.2)
            for what, value in growth.items()
        ),
        ("bytes a frame", largest, 50_000),
        ("bytes a second at 10 frames a second", largest * FRAMES_A_SECOND, 500_000),
    ]
    emit("board_growth", about, {"steps": figures}, targets)


if __name__ == "__main__":
    main()
