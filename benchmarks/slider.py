"""How long after a move of the β slider the page shows it, in a real JupyterLab and a real Chromium.

explorable: `BetaExplorable` (mathematics in the page) against a plotly FigureWidget with an ipywidgets FloatLogSlider,
whose observer computes the same optimum in the kernel and updates the same bars, points and title.

live β: a move on the Board of a running DPO training until a record with the new β is drawn, against the same training
shown by a FigureWidget with the same eight plots, which draws as fast as its page answers, ten times a second at most.

Times run inside the page, from the event that moves the slider to the end of the drawing that shows it; moves are made
one at a time, at random moments, the two sides in turns.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import digits, emit, machine, notebook, parser, percentiles, poll, say

LOW, HIGH = 0.05, 10.0

# ---- in the notebook's kernel ---------------------------------------------------------------------------------------


def explorable() -> Any:
    """The micro world's explorable, all 37,701 answers to each of nine prompts."""
    from rlhflab.explore import BetaExplorable
    from rlhflab.recipes.reference import tiny_reference
    from rlhflab.recipes.worlds import world_named
    from rlhflab.worlds.micro import ReferencePoint

    world = world_named("micro")
    point = ReferencePoint(world, tiny_reference(world, progress=False))
    return BetaExplorable(world.prompts, world.answers, point.logps, world.rewards)


def _slider() -> Any:
    import ipywidgets

    return ipywidgets.FloatLogSlider(value=1.0, min=-1.3, max=1.0, step=0.005, description="β")


def explorable_peer(view: Any) -> Any:
    """The same plots as a FigureWidget that the kernel updates."""
    import ipywidgets
    import numpy as np
    import plotly.graph_objects as go

    figure, slider = go.FigureWidget(view.figure()), _slider()
    means = [np.mean(view.data[key][view.prompt]) for key in ("chosen", "rejected")]

    def follow(change: Any) -> None:
        beta = change["new"]
        now, (_, _, _, best) = view.optimum(beta), view._bars(beta)
        with figure.batch_update():
            figure.data[1].x = best
            figure.data[3].x, figure.data[3].y = [now.kl], [now.reward]
            for trace, mean in zip((figure.data[5], figure.data[7]), means, strict=True):
                trace.x, trace.y = [beta], [mean / beta - now.log_z]
            figure.layout.title.text = f"β = {beta:g} · E[r] = {now.reward:.3f} · KL = {now.kl:.3f}"

    slider.observe(follow, "value")
    return ipywidgets.VBox([slider, figure])


def _recipe() -> Any:
    from rlhflab import recipes

    return recipes.DPO(steps=1_000_000, progress=False)


def board() -> Any:
    from rlhflab.live.board import Board

    return Board(_recipe(), "ours")


def board_peer() -> Any:
    """The same training and the same plots by ipywidgets and a FigureWidget."""
    import ipywidgets
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    from rlhflab.live.player import Player
    from rlhflab.plots.history import History
    from rlhflab.plots.panels_dpo import DPO_PANELS

    panels = [panel for panel in DPO_PANELS if not panel.report_only]
    plots = make_subplots(rows=2, cols=4, subplot_titles=[panel.title for panel in panels])
    draws: list[Callable[[dict[str, Any]], dict[str, Any]]] = []

    def add(at: int, trace: Any, draw: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        plots.add_trace(trace, row=at // 4 + 1, col=at % 4 + 1)
        draws.append(draw)

    def curve(data: dict[str, Any], name: str) -> dict[str, Any]:
        entry = data["series"].get(name)
        return {"x": data["x"][entry["x"]], "y": entry["y"]} if entry else {}

    def heat_map(data: dict[str, Any]) -> dict[str, Any]:
        heat = data.get("heat")
        return {"x": heat["x"], "z": list(zip(*heat["z"], strict=True))} if heat else {}

    for at, panel in enumerate(panels):
        for line in panel.lines:
            add(at, go.Scatter(name=line.name, mode="lines"), lambda d, name=line.series: curve(d, name))
        if panel.kind == "weights":
            add(at, go.Bar(), lambda d: {"y": d["batch"]["clean"]} if "batch" in d else {})
        elif panel.kind == "heatmap":
            heat = go.Heatmap(showscale=False)
            add(
                at,
                heat,
                lambda d: (
                    {"x": d["heat"]["x"], "z": list(zip(*d["heat"]["z"], strict=True))} if "heat" in d else {}
                ),
            )
        elif panel.kind == "plane":
            trail = go.Scatter(mode="lines")
            add(
                at,
                trail,
                lambda d: {"x": d["trail"]["kl"], "y": d["trail"]["reward"]} if "trail" in d else {},
            )
    plots.update_layout(height=640, showlegend=False, title="β")
    figure, slider, run = go.FigureWidget(plots), _slider(), ipywidgets.ToggleButton(description="Run")
    history = History()
    player = Player(_recipe().build, [history.add], "thread", "peer")
    slider.observe(lambda change: player.set_knob("beta", change["new"]), "value")
    run.observe(lambda change: player.start() if change["new"] else player.pause(), "value")

    answered = threading.Event()
    figure.observe(lambda _: answered.set(), "_js2py_traceDeltas")

    def pump() -> None:
        shown = 0
        while True:
            time.sleep(0.1)
            if history.records == shown:
                continue
            answered.wait(1)  # a queue of frames would make the page late
            answered.clear()
            shown, data = history.records, history.snapshot()
            with figure.batch_update():
                for trace, draw in zip(figure.data, draws, strict=True):
                    trace.update(draw(data), overwrite=True)
                figure.layout.title.text = f"β = {history.knobs['beta']:.4g}"

    threading.Thread(target=pump, daemon=True).start()
    return ipywidgets.VBox([ipywidgets.HBox([run, slider]), figure])


# ---- in the page ----------------------------------------------------------------------------------------------------

SCRIPT = """() => {
const deep = (selector, root = document) => root.querySelector(selector) // shadow trees included
  || [...root.querySelectorAll("*")].reduce((at, e) => at || (e.shadowRoot && deep(selector, e.shadowRoot)), null);
/** Milliseconds from `move()` until `shown()` differs from before; `listen(check)` calls check after every drawing. */
const timed = (move, shown, listen) => new Promise((done) => {
  const before = shown();
  let stop = null, timer = null;
  const check = () => {
    if (shown() === before) return;
    const spent = performance.now() - began;
    clearTimeout(timer);
    stop();
    done(spent);
  };
  stop = listen(check);
  timer = setTimeout(() => { stop(); done(null); }, 15000);
  const began = performance.now();
  move();
});
const mutations = (node) => (check) => {
  const watch = new MutationObserver(check);
  watch.observe(node, { subtree: true, childList: true, characterData: true });
  return () => watch.disconnect();
};
const plots = (plot) => (check) => {
  plot.on("plotly_afterplot", check);
  return () => plot.removeListener("plotly_afterplot", check);
};
const native = (slider, fraction) => () => {
  slider.value = String(Number(slider.min) + fraction * (slider.max - slider.min));
  for (const type of ["pointerdown", "input", "change", "pointerup"])
    slider.dispatchEvent(new Event(type, { bubbles: true }));
};
const widget = (fraction) => () => {
  const { noUiSlider } = deep(".widget-slider .noUi-target, .jupyter-widget-slider .noUi-target");
  const { min, max } = noUiSlider.options.range;
  noUiSlider.set([].concat(min)[0] + fraction * ([].concat(max)[0] - [].concat(min)[0]));
};
const title = (plot) => () => plot.layout.title.text;
window.bench = {
  deep,
  explorable: (fraction) => {
    const root = deep(".rlhf-stage"), table = root.querySelector("table");
    return timed(native(root.querySelector("input[type=range]"), fraction), () => table.textContent, mutations(table));
  },
  peer: (fraction) => {
    const plot = deep(".jupyter-widgets .js-plotly-plot");
    return timed(widget(fraction), title(plot), plots(plot));
  },
  board: (fraction) => {
    const plot = deep("[data-panel=reward] .rlhf-plot"), marks = () => (plot.layout.annotations || []).at(-1)?.text;
    return timed(native(deep(".rlhf-knobs input[type=range]"), fraction), marks, plots(plot));
  },
  optimum: (fraction) => {
    const plot = deep("[data-panel=reward] .rlhf-plot"), level = () => plot.data.find((t) => t.name === "π*")?.y[0];
    return timed(native(deep(".rlhf-knobs input[type=range]"), fraction), level, plots(plot));
  },
};
}"""


class Hand:
    """Moves sliders to places well apart, at random moments."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.rng = random.Random(0)
        self.at = {"left": 0.1, "right": 0.6}
        self.side = "left"

    def move(self, what: str, pause_ms: float) -> float | None:
        self.side = "right" if self.side == "left" else "left"
        self.page.wait_for_timeout(pause_ms * (0.3 + self.rng.random()))
        fraction = self.at[self.side] + 0.3 * self.rng.random()
        spent: float | None = self.page.evaluate(f"fraction => bench.{what}(fraction)", fraction)
        return spent

    def moves(self, what: str, count: int, pause_ms: float, samples: dict[str, list[float]]) -> None:
        for number in range(count + 1):
            spent = self.move(what, pause_ms)
            if spent is None:
                say(f"{what}: a move was not shown within 15 s")
                spent = 15_000.0
            if number:  # the first of a turn warms up
                samples.setdefault(what, []).append(spent)


def compare_explorables(count: int, turns: int) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {}
    cells = (
        "from benchmarks import slider\nview = slider.explorable()\nview",
        "slider.explorable_peer(view)",
    )
    with tempfile.TemporaryDirectory() as name, notebook(Path(name), *cells) as page:
        page.evaluate(SCRIPT)
        ready = "Boolean(bench.deep('.rlhf-stage canvas') && bench.deep('.jupyter-widgets .js-plotly-plot .main-svg'))"
        poll(lambda: page.evaluate(ready), 180, "both explorables")
        page.wait_for_timeout(3000)
        hand = Hand(page)
        for _ in range(turns):
            hand.moves("explorable", count // turns, 60, samples)
            hand.moves("peer", count // turns, 60, samples)
            say({what: percentiles(values) for what, values in samples.items()})
    return samples


def compare_boards(count: int, turns: int) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {}
    cells = ("from benchmarks import slider\nslider.board()", "slider.board_peer()")
    with tempfile.TemporaryDirectory() as name, notebook(Path(name), *cells) as page:
        page.evaluate(SCRIPT)
        peer = "bench.deep('.jupyter-widgets .js-plotly-plot')"
        ready = f"Boolean(bench.deep('.rlhf-plot .main-svg') && {peer}?.querySelector('.main-svg'))"
        poll(lambda: page.evaluate(ready), 180, "both boards")
        say("both boards are open")
        hand = Hand(page)
        press = "bench.deep('.rlhf-primary').click()"
        toggle = "document.querySelector('.widget-toggle-button, .jupyter-widget-toggle-button').click()"
        trained = "plot => (bench.deep(plot)?.data || []).some((trace) => trace.x?.length > 2)"
        for turn in range(turns):
            page.evaluate(press)
            if not turn:
                page.wait_for_timeout(500)
                poll(
                    lambda: page.evaluate(trained, "[data-panel=kl] .rlhf-plot"), 120, "the board's training"
                )
            hand.moves("board", count // turns, 300, samples)
            hand.moves("optimum", count // turns, 300, samples)
            page.evaluate(press)
            page.wait_for_timeout(1500)
            page.evaluate(toggle)
            if not turn:
                poll(
                    lambda: (
                        "="
                        in page.evaluate("bench.deep('.jupyter-widgets .js-plotly-plot').layout.title.text")
                    ),
                    120,
                    "peer",
                )
            hand.moves("peer", count // turns, 300, samples)
            page.evaluate(toggle)
            page.wait_for_timeout(1500)
            say({what: percentiles(values) for what, values in samples.items()})
    return samples


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--only", choices=("explorable", "board"), help="one of the two comparisons")
    args = options.parse_args()
    count, turns = (16, 2) if args.quick else (80, 4)
    about = machine()
    figures: dict[str, Any] = {}
    targets = []
    for name, compare in (("explorable", compare_explorables), ("board", compare_boards)):
        if args.only not in (None, name):
            continue
        samples = compare(count, turns)
        part = {f"{what}_ms": percentiles(values) for what, values in samples.items()}
        ratio = digits(part[f"{name}_ms"]["p50"] / part["peer_ms"]["p50"])
        figures["live_beta" if name == "board" else name] = {**part, "over_peer_p50": ratio}
        if name == "explorable":
            targets.append(("explorable over FigureWidget, p50 (3× faster)", ratio, 0.333))
        else:
            targets.append(("live β over FigureWidget, p50 (not slower)", ratio, 1.0))
    emit("slider", about, figures, targets)


if __name__ == "__main__":
    main()
