// The board's page. It keeps only the newest frame, draws one panel at a time in requestAnimationFrame, visible ones
// first, and for at most about a third of the time. Everything is drawn from the frame, so a view opened late is
// complete at once.

import { isDark, watchLook } from "../../static/colours.js";
import { card, make, mount } from "../../static/dom.js";
import { steady } from "../../static/numbers.js";
import BOARD_CSS from "./board.css" with { type: "text" };
import { Header } from "./header.js";
import { ChoiceRow, KnobRow } from "./knobs.js";
import { adoptPlotlyStyle, getPlotly, receivePlotly } from "./plotly.js";
import { isOfArrays, plotOf } from "./plots.js";
import { Tables } from "./tables.js";

const NO_HURRY = 250; // ms between panels out of sight, and before a panel that has no size yet is tried again

class BoardView {
  constructor(model, el) {
    this.model = model;
    this.id = Math.random().toString(36).slice(2, 10);
    this.setup = null;
    this.frame = null;
    this.panels = [];
    this.dirty = new Set();
    this.scheduled = false;
    this.reportedMs = 0;
    this.closed = false;
    this.asked = 0;
    this.root = mount(el, "rlhf-board", BOARD_CSS);
    if (window.google && window.google.colab) document.body.classList.add("rlhf-colab");
    this.buildFrame();
    this.listen();
    this.hello();
  }

  // ---- messages ------------------------------------------------------------------------------------------------

  send(message) {
    try { this.model.send({ ...message, view: this.id }); } catch { /* no kernel: the picture stays */ }
  }

  hello(tries = 0) {
    // The first messages of a page may be lost, or wait in the main shell behind a running cell, until JupyterLab has a
    // subshell for it: ask until there is an answer.
    if (this.setup || this.closed) return;
    this.send({ op: "hello" });
    if (tries === 3) this.showPicture();
    setTimeout(() => this.hello(tries + 1), tries < 10 ? 1000 : 3000);
  }

  listen() {
    this.onMessage = (message, buffers) => {
      if (message.op === "frame") { this.frame = message; this.onFrame(); }
      else if (message.op === "setup") this.onSetup(message);
      else if (message.op === "plotly") receivePlotly(message, buffers).catch((e) => this.say(String(e)));
    };
    this.model.on("msg:custom", this.onMessage);
    this.endWatch = watchLook(this.root, () => this.restyle());
    this.sizeWatch = new ResizeObserver(() => { this.layOut(); this.redraw(); });
    this.sizeWatch.observe(this.grid);
    this.sight = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const panel = this.panels.find((p) => p.card === entry.target);
        if (panel) panel.visible = entry.isIntersecting;
      }
      this.schedule();
    }, { rootMargin: "80px" });
  }

  close() {
    this.closed = true;
    this.model.off("msg:custom", this.onMessage);
    this.endWatch();
    this.sizeWatch.disconnect();
    this.sight.disconnect();
    this.cards?.abort();
    for (const panel of this.panels) if (panel.drawn && window.Plotly) window.Plotly.purge(panel.plot);
  }

  // ---- the page ------------------------------------------------------------------------------------------------

  buildFrame() {
    this.header = new Header((what) => this.send({ op: "do", what }));
    this.knobs = new KnobRow({ page: this.id, post: (name, value) => this.send({ op: "knob", name, value }),
      notice: (text) => this.say(text), moved: (name) => { if (name === "beta") this.moveTargets(); } });
    this.choices = new ChoiceRow((name, at) => this.send({ op: "choose", name, at }));
    this.notice = make("div", { class: "rlhf-notice", role: "status", hidden: true });
    this.errorBox = make("div", { class: "rlhf-error", role: "alert", hidden: true });
    this.grid = make("div", { class: "rlhf-grid" });
    this.ghostRow = make("div", { class: "rlhf-ghosts", hidden: true });
    this.tables = new Tables();
    this.still = make("img", { class: "rlhf-still", alt: "The board as it was when the notebook was saved", hidden: true });
    this.root.append(
      this.header.node,
      this.choices.node, this.knobs.node, this.notice, this.errorBox, this.still, this.ghostRow, this.grid,
      make("div", { class: "rlhf-below" }, this.tables.pairsCard, this.tables.samplesCard));
    this.showState("connecting");
  }

  /** While a cell waits: ask the kernel for an answer, which shows whether and how it hears this page meanwhile. */
  askWhetherHeard() {
    this.asking = !this.closed && this.frame.awaited;
    if (!this.asking) { this.asked = 0; return; }
    this.header.writeProgress(this.frame, this.setup, this.asked);
    // More than once: JupyterLab may create its subshell only now, and then is heard from the next message on.
    if (this.asked++ < 4) this.send({ op: "ping" });
    setTimeout(() => this.askWhetherHeard(), 1000);
  }

  showPicture() {
    const picture = this.model.get("picture");
    if (!picture || this.setup) return;
    this.still.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(picture);
    this.still.hidden = false;
    this.header.say("No kernel: saved picture");
  }

  onSetup(setup) {
    const first = !this.setup;
    const text = JSON.stringify(setup);
    if (text === this.setupText) return;
    this.setupText = text;
    this.setupCount = (this.setupCount || 0) + 1;
    const panelsChanged = first || JSON.stringify(setup.panels) !== JSON.stringify(this.setup.panels);
    const knobsChanged = first || JSON.stringify(setup.controls) !== JSON.stringify(this.setup.controls);
    const choicesChanged = first || JSON.stringify(setup.choices) !== JSON.stringify(this.setup.choices);
    this.setup = setup;
    this.still.hidden = true;
    this.header.heading.textContent = setup.title;
    if (knobsChanged) this.knobs.build(setup.controls);
    if (choicesChanged) this.choices.build(setup.choices);
    if (panelsChanged) this.buildPanels();
    this.buildGhosts();
    this.redraw();
    if (first) getPlotly((message) => this.send(message)).then(() => {
      adoptPlotlyStyle(this.root.getRootNode());
      this.ready = true;
      this.redraw();
    });
  }

  // ---- β -------------------------------------------------------------------------------------------------------

  /** β on the slider, or that of the newest record if there is no slider. */
  get beta() {
    return this.knobs.value("beta") ?? (this.frame ? this.frame.data.knobs.beta : undefined);
  }

  /** The slider has moved: redraw what depends on β in this animation frame. */
  moveTargets() {
    if (!this.setup || !this.setup.backdrop) return;
    for (const panel of this.panels) if (panel.spec.target || panel.spec.kind === "plane") { this.dirty.add(panel); panel.urgent = true; }
    this.schedule(true);
  }

  /** The first frame whose record carries a changed knob: the plots that depend on it are drawn at once. */
  noteChanges() {
    const changes = this.frame.data.changes, newest = JSON.stringify(changes[changes.length - 1] || null);
    if (this.newestChange !== undefined && newest !== this.newestChange) this.moveTargets();
    this.newestChange = newest;
  }

  // ---- header --------------------------------------------------------------------------------------------------

  showState(state) {
    this.root.dataset.state = state;
    this.header.showState(state);
  }

  onFrame() {
    if (!this.setup) return;
    const f = this.frame;
    this.showState(f.state);
    this.header.writeProgress(f, this.setup, this.asked);
    if (this.heard && !f.heard) this.asked = 0; // a different cell waits
    this.heard = f.heard;
    if (f.awaited && !this.asking) this.askWhetherHeard();
    this.showNotice(this.said || f.notice);
    this.showError(f.error);
    this.knobs.follow(f.knobs);
    this.choices.follow(f.choices);
    this.noteChanges();
    this.redraw();
    this.tables.draw(this.frame.data);
  }

  /** Show a notice from the page for a few seconds; those of frames come ten times a second. */
  say(text) {
    this.said = text;
    this.showNotice(text);
    clearTimeout(this.sayTimer);
    this.sayTimer = setTimeout(() => { this.said = ""; this.showNotice(this.frame && this.frame.notice); }, 6000);
  }

  showNotice(text) {
    if (this.notice.textContent !== (text || "")) this.notice.textContent = text || "";
    this.notice.hidden = !text;
  }

  showError(error) {
    const key = error ? error.title + error.traceback : "";
    if (this.errorKey === key) return;
    this.errorKey = key;
    this.errorBox.hidden = !error;
    this.errorBox.replaceChildren();
    if (!error) return;
    this.errorBox.append(
      make("strong", {}, error.title),
      make("div", {}, "The kernel still works. Fix the cause, then press Reset or run the cell again."),
      error.traceback ? make("details", {}, make("summary", {}, "Traceback"), make("pre", {}, error.traceback)) : "");
  }

  buildGhosts() {
    const ghosts = this.setup.ghosts;
    this.ghostRow.hidden = !ghosts.length;
    this.ghostRow.replaceChildren();
    if (!ghosts.length) return;
    this.ghostRow.append("Faint lines: earlier runs ", ...ghosts.map((g, i) => make("span", { class: "rlhf-ghost" }, g.label || `run ${i + 1}`)),
      make("button", { type: "button", class: "rlhf-link", onclick: () => this.send({ op: "clear_ghosts" }) }, "clear ghosts"));
  }

  // ---- panels --------------------------------------------------------------------------------------------------

  buildPanels() {
    for (const panel of this.panels) { this.sight.unobserve(panel.card); if (panel.drawn) window.Plotly.purge(panel.plot); }
    this.grid.replaceChildren();
    this.cards?.abort(); // the listeners of the previous cards
    this.cards = new AbortController();
    this.panels = this.setup.panels.map((spec) => {
      const legend = make("div", { class: "rlhf-legend" });
      const plot = make("div", { class: "rlhf-plot", role: "img", "aria-label": `${spec.title}. ${spec.caption}` });
      const body = [make("p", { class: "rlhf-caption", notation: spec.caption }), legend, make("div", { class: "rlhf-plot-box" }, plot)];
      const formula = spec.formula.map((text) => ["math", text]);
      const node = card({ title: spec.title, formula, symbols: spec.symbols }, body, this.cards.signal);
      node.classList.add("rlhf-panel");
      node.dataset.panel = spec.id;
      this.grid.append(node);
      this.sight.observe(node);
      return { spec, card: node, plot, legend, visible: true, drawn: false, urgent: false, legendKey: "" };
    });
    this.layOut();
  }

  /** Whether a frame has anything for the panel; before the first ones all are shown, empty. */
  has(panel) {
    const data = this.frame && this.frame.data;
    if (!data || data.records < 3) return true;
    const spec = panel.spec;
    if (spec.kind === "lines") return spec.lines.some((line) => line.series in data.series);
    if (isOfArrays(spec)) return spec.lines.some((line) => line.series in data.arrays);
    return { weights: "batch", heatmap: "heat", plane: "trail" }[spec.kind] in data;
  }

  layOut() {
    const width = this.grid.clientWidth;
    const big = this.panels.find((p) => p.spec.big && !p.card.hidden);
    if (big && width >= 760) { // it takes two columns and two rows, the others go beside it
      this.grid.style.gridTemplateColumns = "repeat(3, minmax(0, 1fr))";
      for (const p of this.panels) Object.assign(p.card.style, { gridColumn: p === big ? "span 2" : "span 1", gridRow: p === big ? "span 2" : "auto" });
      return;
    }
    for (const p of this.panels) p.card.style.gridRow = "auto";
    const shown = this.panels.filter((p) => !p.card.hidden).length;
    const most = width >= 1400 ? 5 : width >= 1120 ? 4 : width >= 760 ? 3 : width >= 500 ? 2 : 1;
    const hole = (columns) => (columns - (shown % columns)) % columns; // empty places in the last row
    let columns = Math.max(1, Math.min(most, shown));
    if (columns > 3 && hole(columns - 1) < hole(columns)) columns -= 1;
    const last = columns - hole(columns); // the panels of the last row fill its whole width
    this.grid.style.gridTemplateColumns = `repeat(${columns * last}, minmax(0, 1fr))`;
    this.panels.filter((p) => !p.card.hidden).forEach((p, i) => {
      p.card.style.gridColumn = `span ${i < shown - last ? last : columns}`;
    });
  }

  redraw() {
    if (!this.setup) return;
    let changed = false;
    for (const panel of this.panels) {
      const hidden = !this.has(panel);
      if (panel.card.hidden !== hidden) { panel.card.hidden = hidden; changed = true; }
      if (!hidden) this.dirty.add(panel);
    }
    if (changed) this.layOut();
    this.schedule();
  }

  restyle() {
    const dark = isDark(this.root);
    if (dark !== this.dark) { this.setDark(dark); for (const panel of this.panels) panel.legendKey = ""; this.redraw(); }
  }

  setDark(dark) {
    this.dark = dark;
    this.root.toggleAttribute("data-dark", dark);
  }

  schedule(urgent = false) {
    if (this.closed || !this.ready || (this.scheduled && !urgent)) return;
    if (urgent && this.urgentScheduled) return;
    const wait = urgent ? 0 : Math.max(0, (this.restUntil || 0) - performance.now());
    const go = () => requestAnimationFrame(() => { if (urgent) this.urgentScheduled = false; else this.scheduled = false; this.draw(urgent); });
    if (urgent) this.urgentScheduled = true; else this.scheduled = true;
    if (wait > 4) setTimeout(go, wait); else go();
  }

  /** Draw one panel (all urgent ones), then rest for twice as long as that took. */
  draw(urgent) {
    if (this.closed || !this.root.isConnected) return;
    const began = performance.now(), inSight = this.anyInSight();
    let hurry = inSight;
    for (const panel of [...this.dirty]) {
      if (!this.mayDraw(panel, inSight) || (urgent && !(panel.urgent && panel.visible))) continue;
      this.dirty.delete(panel);
      panel.urgent = false;
      const start = performance.now();
      if (!this.drawPanel(panel)) {
        if (this.dirty.has(panel)) hurry = false;
        continue;
      }
      const ms = performance.now() - start;
      panel.ms = panel.ms === undefined ? ms : 0.8 * panel.ms + 0.2 * ms;
      if (!urgent) break;
    }
    const now = performance.now();
    this.restUntil = now + Math.max(2 * (now - began), hurry ? 0 : NO_HURRY);
    this.reportDrawing();
    const more = this.anyInSight();
    if ([...this.dirty].some((panel) => this.mayDraw(panel, more))) this.schedule();
  }

  anyInSight() {
    return [...this.dirty].some((panel) => panel.visible && !panel.card.hidden);
  }

  /** Visible panels come first; those out of sight are drawn while the training rests, so they are up to date on scrolling back. */
  mayDraw(panel, inSight) {
    const rests = this.frame && !["preparing", "running", "stopping"].includes(this.frame.state);
    return !panel.card.hidden && (panel.visible || (rests && !inSight));
  }

  reportDrawing() {
    const ms = this.panels.reduce((sum, p) => sum + (p.visible && !p.card.hidden ? p.ms || 0 : 0), 0);
    const now = Date.now();
    if (Math.abs(ms - this.reportedMs) > 0.3 * this.reportedMs + 5 && now - (this.reportedAt || 0) > 2000) {
      this.reportedMs = ms;
      this.reportedAt = now;
      this.send({ op: "draw", ms: Math.round(ms) });
    }
  }

  /** Changes whenever what the panel shows changes. */
  contentKey({ spec }) {
    const data = this.frame && this.frame.data;
    const parts = [this.setupCount, data ? this.frame.run : ""];
    if (spec.target || spec.kind === "plane") parts.push(this.beta);
    if (data && spec.kind === "lines") {
      for (const line of spec.lines) if (data.series[line.series]) parts.push(data.x[data.series[line.series].x].slice(-1)[0]);
      parts.push(spec.target || spec.knob ? JSON.stringify(data.changes) : "");
    } else if (data && isOfArrays(spec)) {
      for (const line of spec.lines) {
        const step = data.arrays[line.series]?.step;
        parts.push(step, step < data.step);
      }
    } else if (data && spec.kind === "plane") parts.push(data.trail ? data.trail.step.slice(-1)[0] : "");
    else if (data) parts.push(data.step);
    return parts.join("|");
  }

  drawPanel(panel) {
    if (this.dark === undefined) this.setDark(isDark(this.root));
    const width = panel.plot.parentElement.clientWidth, height = panel.plot.parentElement.clientHeight;
    if (width < 40) { this.dirty.add(panel); return false; } // hidden for now, as during a change of theme
    const key = this.contentKey(panel) + `|${width}x${height}|${this.dark}`;
    if (key === panel.key) return false; // nothing new to draw
    panel.key = key;
    const style = getComputedStyle(this.root);
    const { traces, layout, legend } = plotOf(panel.spec, {
      frame: this.frame, setup: this.setup, beta: this.beta, dark: this.dark, text: style.color,
      ink: style.getPropertyValue("--rlhf-soft").trim() || "#57606a" });
    const config = { displaylogo: false, responsive: false, displayModeBar: "hover", modeBarButtons: [["toImage", "resetScale2d"]],
      toImageButtonOptions: { filename: `rlhflab-${panel.spec.id}`, scale: 2 }, showTips: false };
    window.Plotly.react(panel.plot, traces, { ...layout, width, height }, config);
    panel.drawn = true;
    this.writeLegend(panel, legend);
    return true;
  }

  writeLegend(panel, items) {
    const key = items.map((i) => i.name + i.dash + i.colour).join("|");
    if (panel.legendKey !== key) {
      panel.legendKey = key;
      panel.legend.replaceChildren(...items.map((item) => {
        const swatch = make("i", { class: "rlhf-swatch", "data-dash": item.dash || "solid", style: `--c:${item.colour}` });
        return make("span", {}, swatch, make("span", { notation: item.name }), make("b"));
      }));
    }
    items.forEach((item, i) => (panel.legend.children[i].lastChild.textContent = item.value === undefined ? "" : steady(item.value)));
  }
}

export default {
  render({ model, el }) {
    const view = new BoardView(model, el);
    return () => view.close();
  },
};
