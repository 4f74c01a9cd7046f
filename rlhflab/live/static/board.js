// The board's page. It keeps the newest frame only, draws one panel at a time in requestAnimationFrame and never for
// more than about a third of the time. Everything is drawn from the frame, so a view that opens late is right at once.

const STATES = {
  idle: ["ready", "Ready"], preparing: ["busy", "Preparing…"], running: ["run", "Training"], paused: ["rest", "Paused"],
  stopping: ["busy", "Stopping…"], stopped: ["rest", "Stopped"], finished: ["done", "Finished"], error: ["bad", "Error"],
};
const MOVING = new Set(["preparing", "running", "stopping"]);

/** Value of the frontier's `field` at `beta`, linear in log β; the ends hold beyond them. */
function atBeta(backdrop, field, beta) {
  const betas = backdrop.beta, values = backdrop[field];
  let at = betas.findIndex((b) => b >= beta);
  if (at === 0) return values[0];
  if (at < 0) return values[values.length - 1];
  const share = Math.log(beta / betas[at - 1]) / Math.log(betas[at] / betas[at - 1]);
  return values[at - 1] + share * (values[at] - values[at - 1]);
}

function extent(lists) {
  let low = Infinity, high = -Infinity;
  for (const list of lists) for (const v of list) if (v !== null && v !== undefined && Number.isFinite(v)) {
    if (v < low) low = v;
    if (v > high) high = v;
  }
  return low <= high ? [low, high] : [0, 1];
}

function padded([low, high]) {
  const pad = 0.08 * (high - low) || 0.1 * Math.abs(high) || 0.5;
  return [low >= 0 ? Math.max(0, low - pad) : low - pad, high + pad];
}

class BoardView {
  constructor(model, el) {
    this.model = model;
    this.id = Math.random().toString(36).slice(2, 10);
    this.setup = null;
    this.frame = null;
    this.panels = [];
    this.dirty = new Set();
    this.scheduled = false;
    this.drawMs = 0;
    this.reportedMs = 0;
    this.tableAt = 0;
    this.order = "heaviest";
    this.knobs = new Map();
    this.closed = false;
    this.root = make("div", { class: "rlhf", "data-lm-suppress-shortcuts": "true" });
    this.root.addEventListener("keydown", (event) => event.stopPropagation());
    // In a shadow tree the browser need not match the notebook's thousands of style rules against every stroke of a
    // plot: drawing takes about half the time, and neither page can restyle the other.
    const host = make("div", { class: "rlhf-host" });
    const shadow = (this.shadow = host.attachShadow({ mode: "open" }));
    shadow.append(make("style", {}, BOARD_CSS), this.root);
    el.append(host);
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
    // A page that has just been opened again may lose its first messages (JupyterLab sends them to a subshell that it
    // has deleted meanwhile): ask until there is an answer.
    if (this.setup || this.closed) return;
    this.send({ op: "hello" });
    if (tries === 3) this.showPicture();
    setTimeout(() => this.hello(tries + 1), tries < 10 ? 1000 : 3000);
  }

  listen() {
    this.onMessage = (message, buffers) => {
      if (message.op === "frame") { this.frame = message; this.onFrame(); }
      else if (message.op === "setup") this.onSetup(message);
      else if (message.op === "plotly") receivePlotly(message, buffers).catch((e) => this.showNotice(String(e)));
    };
    this.model.on("msg:custom", this.onMessage);
    this.themeWatch = new MutationObserver(() => this.restyle());
    for (const node of [document.documentElement, document.body])
      this.themeWatch.observe(node, { attributes: true, attributeFilter: ["class", "data-jp-theme-light", "data-jp-theme-name", "style"] });
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
    this.themeWatch.disconnect();
    this.sizeWatch.disconnect();
    this.sight.disconnect();
    for (const panel of this.panels) if (panel.drawn && window.Plotly) window.Plotly.purge(panel.plot);
  }

  // ---- the page ------------------------------------------------------------------------------------------------

  buildFrame() {
    const button = (label, what, title) => make("button", { type: "button", class: "rlhf-button", title,
      onclick: () => this.press(what) }, label);
    this.startButton = make("button", { type: "button", class: "rlhf-button rlhf-primary",
      onclick: () => this.press(this.startButton.dataset.what) }, "Start");
    this.startButton.dataset.what = "start";
    this.stepButton = button("Step", "step", "Make one update and rest");
    this.stopButton = button("Stop", "stop", "End this run");
    this.resetButton = button("Reset", "reset", "Begin anew; the curves stay as faint lines");
    this.heading = make("h3", { class: "rlhf-title" });
    this.pill = make("span", { class: "rlhf-pill", "data-kind": "ready", "aria-live": "polite" }, "Connecting…");
    this.bar = make("div", { class: "rlhf-bar-fill" });
    this.progress = make("div", { class: "rlhf-bar", role: "progressbar", "aria-label": "Progress", "aria-valuemin": "0" }, this.bar);
    this.progressText = make("span", { class: "rlhf-progress-text" });
    this.knobRow = make("div", { class: "rlhf-knobs" });
    this.notice = make("div", { class: "rlhf-notice", role: "status", hidden: true });
    this.errorBox = make("div", { class: "rlhf-error", role: "alert", hidden: true });
    this.grid = make("div", { class: "rlhf-grid" });
    this.empty = make("div", { class: "rlhf-empty", hidden: true });
    this.ghostRow = make("div", { class: "rlhf-ghosts", hidden: true });
    this.pairsCard = make("section", { class: "rlhf-card rlhf-pairs", hidden: true });
    this.samplesCard = make("section", { class: "rlhf-card rlhf-samples", hidden: true });
    this.still = make("img", { class: "rlhf-still", alt: "The board as it was when the notebook was saved", hidden: true });
    this.root.append(
      make("header", { class: "rlhf-header" }, this.heading, this.pill,
        make("div", { class: "rlhf-buttons", role: "group", "aria-label": "Training" },
          this.startButton, this.stepButton, this.stopButton, this.resetButton),
        make("div", { class: "rlhf-progress" }, this.progress, this.progressText)),
      this.knobRow, this.notice, this.errorBox, this.still, this.ghostRow, this.grid,
      make("div", { class: "rlhf-below" }, this.pairsCard, this.samplesCard));
    this.buildPairs();
    this.setControls("connecting");
  }

  press(what) {
    if (what === "start") { this.pill.textContent = "Starting…"; this.pill.dataset.kind = "busy"; }
    this.send({ op: "do", what });
  }

  showPicture() {
    const picture = this.model.get("picture");
    if (!picture || this.setup) return;
    this.still.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(picture);
    this.still.hidden = false;
    this.pill.textContent = "No kernel: saved picture";
  }

  onSetup(setup) {
    const first = !this.setup;
    const text = JSON.stringify(setup);
    if (text === this.setupText) return;
    this.setupText = text;
    this.setupCount = (this.setupCount || 0) + 1;
    const panelsChanged = first || JSON.stringify(setup.panels) !== JSON.stringify(this.setup.panels);
    const knobsChanged = first || JSON.stringify(setup.controls) !== JSON.stringify(this.setup.controls);
    this.setup = setup;
    this.still.hidden = true;
    this.heading.textContent = setup.title;
    if (knobsChanged) this.buildKnobs();
    if (panelsChanged) this.buildPanels();
    this.buildGhosts();
    this.redraw();
    if (first) getPlotly((message) => this.send(message)).then(() => {
      adoptPlotlyStyle(this.shadow);
      this.ready = true;
      this.redraw();
    });
  }

  // ---- knobs ---------------------------------------------------------------------------------------------------

  buildKnobs() {
    this.knobRow.replaceChildren();
    this.knobs.clear();
    for (const spec of this.setup.controls) this.addKnob(spec);
  }

  addKnob(spec) {
    const forth = spec.log ? Math.log : (v) => v, back = spec.log ? Math.exp : (v) => v;
    const low = forth(spec.low), high = forth(spec.high), ticks = 400;
    const toSlider = (v) => Math.round((ticks * (forth(v) - low)) / (high - low));
    const fromSlider = (t) => Number(back(low + (t / ticks) * (high - low)).toPrecision(3));
    const title = `${spec.help} Double-click: back to ${spec.default}.`.trim();
    const slider = make("input", { type: "range", min: 0, max: ticks, step: 1, class: "rlhf-slider", title, "aria-label": spec.label });
    const box = make("input", { type: "number", step: "any", class: "rlhf-number", title, "aria-label": `${spec.label}, value` });
    const knob = { spec, value: spec.default, rev: -1, held: false, sent: 0, timer: null };
    const show = (value, where) => {
      knob.value = value;
      if (where !== slider) slider.value = toSlider(value);
      if (where !== box) box.value = String(Number(value.toPrecision(4)));
      slider.setAttribute("aria-valuetext", String(value));
      slider.style.setProperty("--at", `${(100 * slider.value) / ticks}%`);
    };
    knob.show = show;
    const post = () => {
      knob.timer = null;
      knob.sent = Date.now();
      this.send({ op: "knob", name: spec.name, value: knob.value });
    };
    const change = (value, where) => { // at most 20 messages a second, the newest always
      const allowed = Number.isFinite(value) && value > spec.above && (spec.at_most === null || value <= spec.at_most);
      box.classList.toggle("rlhf-invalid", !allowed);
      if (!allowed) {
        const most = spec.at_most === null ? "" : ` and ≤ ${spec.at_most}`;
        this.showNotice(`${spec.label} must be a number > ${spec.above}${most}.`);
        return;
      }
      this.showNotice("");
      show(value, where);
      if (spec.name === "beta") this.moveTargets();
      if (knob.timer === null) knob.timer = setTimeout(post, Math.max(0, 50 - (Date.now() - knob.sent)));
    };
    slider.addEventListener("input", () => change(fromSlider(Number(slider.value)), slider));
    slider.addEventListener("pointerdown", () => (knob.held = true));
    const release = () => (knob.held = false);
    for (const event of ["pointerup", "pointercancel", "change", "blur"]) slider.addEventListener(event, release);
    box.addEventListener("focus", () => (knob.held = true));
    box.addEventListener("blur", () => { knob.held = false; if (box.classList.contains("rlhf-invalid")) { box.classList.remove("rlhf-invalid"); show(knob.value, null); } });
    box.addEventListener("change", () => change(box.value.trim() === "" ? NaN : Number(box.value), box));
    slider.addEventListener("dblclick", () => change(spec.default, null));
    this.knobRow.append(make("label", { class: "rlhf-knob", title }, make("span", { class: "rlhf-knob-label" }, spec.label), slider, box));
    this.knobs.set(spec.name, knob);
    show(spec.default, null);
  }

  followKnobs(values) {
    for (const [name, knob] of this.knobs) {
      const seen = values[name];
      if (!seen) continue;
      if (knob.rev === -1 || (seen.rev > knob.rev && seen.by !== this.id)) {
        if (knob.held || knob.timer !== null) continue; // a person is at it
        const moved = Math.abs(knob.value - seen.value) > 1e-12 * Math.abs(seen.value);
        knob.rev = seen.rev;
        if (moved) { knob.show(seen.value, null); if (name === "beta") this.moveTargets(); }
      } else if (seen.rev > knob.rev) knob.rev = seen.rev;
    }
  }

  get beta() {
    const knob = this.knobs.get("beta");
    if (knob) return knob.value;
    return this.frame ? this.frame.data.knobs.beta : undefined;
  }

  /** The slider has moved: draw what hangs on β in this very frame. */
  moveTargets() {
    if (!this.setup || !this.setup.backdrop) return;
    for (const panel of this.panels) if (panel.spec.target || panel.spec.kind === "plane") { this.dirty.add(panel); panel.urgent = true; }
    this.schedule(true);
  }

  /** The first frame whose record carries a turned knob: the plots that hang on it are drawn at once. */
  noteChanges() {
    const changes = this.frame.data.changes, newest = JSON.stringify(changes[changes.length - 1] || null);
    if (this.newestChange !== undefined && newest !== this.newestChange) this.moveTargets();
    this.newestChange = newest;
  }

  // ---- header --------------------------------------------------------------------------------------------------

  onFrame() {
    if (!this.setup) return;
    const f = this.frame;
    const [kind, text] = STATES[f.state] || ["ready", f.state];
    this.pill.textContent = text;
    this.pill.dataset.kind = kind;
    this.setControls(f.state);
    const share = f.steps ? Math.min(1, f.step / f.steps) : 0;
    this.bar.style.width = `${100 * share}%`;
    this.progress.setAttribute("aria-valuemax", f.steps || 1);
    this.progress.setAttribute("aria-valuenow", f.step);
    const parts = [];
    if (f.steps) parts.push(`step ${f.step.toLocaleString("en-US")} of ${f.steps.toLocaleString("en-US")}`);
    else if (f.state === "preparing") parts.push("building the model and its data…");
    else if (f.state === "idle") parts.push(this.setup.polled ? "press Start, or run board.run() in a cell to watch live" : "press Start");
    if (f.state === "running" && f.rate) parts.push(`${short(f.rate, 2)} steps/s`);
    if (f.state === "running" && f.left !== null) parts.push(`${seconds(f.left)} left`);
    this.progressText.textContent = parts.join(" · ");
    this.showNotice(f.notice);
    this.showError(f.error);
    this.followKnobs(f.knobs);
    this.noteChanges();
    this.redraw();
    this.drawTables();
  }

  setControls(state) {
    const what = state === "running" ? "pause" : state === "paused" ? "resume" : "start";
    const label = { pause: "Pause", resume: "Resume", start: ["stopped", "finished", "error"].includes(state) ? "Start again" : "Start" }[what];
    if (this.startButton.textContent !== label) this.startButton.textContent = label;
    this.startButton.dataset.what = what;
    this.startButton.disabled = ["preparing", "stopping", "connecting"].includes(state);
    this.stepButton.disabled = !["idle", "paused", "running"].includes(state);
    this.stopButton.disabled = !["preparing", "running", "paused"].includes(state);
    this.resetButton.disabled = ["idle", "stopping", "connecting"].includes(state);
    this.root.dataset.state = state;
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
      make("div", {}, "The kernel goes on working. Mend the cause, then Reset or run the cell again."),
      make("details", {}, make("summary", {}, "Traceback"), make("pre", {}, error.traceback)));
  }

  buildGhosts() {
    const ghosts = this.setup.ghosts;
    this.ghostRow.hidden = !ghosts.length;
    this.ghostRow.replaceChildren();
    if (!ghosts.length) return;
    this.ghostRow.append("Faint lines: former runs ", ...ghosts.map((g, i) => make("span", { class: "rlhf-ghost" }, g.label || `run ${i + 1}`)),
      make("button", { type: "button", class: "rlhf-link", onclick: () => this.send({ op: "clear_ghosts" }) }, "clear ghosts"));
  }

  // ---- panels --------------------------------------------------------------------------------------------------

  buildPanels() {
    for (const panel of this.panels) { this.sight.unobserve(panel.card); if (panel.drawn) window.Plotly.purge(panel.plot); }
    this.grid.replaceChildren();
    this.panels = this.setup.panels.map((spec) => {
      const help = make("div", { class: "rlhf-formula", hidden: true, id: `${this.id}-${spec.id}` });
      for (const line of spec.formula) help.append(writeFormula(make("div", { class: "rlhf-math" }), line));
      const list = make("dl");
      for (const [symbol, meaning] of spec.symbols)
        list.append(writeFormula(make("dt"), symbol), writeFormula(make("dd"), meaning));
      help.append(list);
      const ask = make("button", { type: "button", class: "rlhf-ask", title: "Formula", "aria-label": `Formula of ${spec.title}`,
        "aria-expanded": "false", "aria-controls": help.id,
        onclick: () => { help.hidden = !help.hidden; ask.setAttribute("aria-expanded", String(!help.hidden)); } }, "?");
      help.addEventListener("click", () => ask.click());
      const legend = make("div", { class: "rlhf-legend" });
      const plot = make("div", { class: "rlhf-plot", role: "img", "aria-label": `${spec.title}. ${spec.caption}` });
      const card = make("section", { class: "rlhf-card rlhf-panel", "data-panel": spec.id },
        make("div", { class: "rlhf-panel-head" }, make("h4", {}, spec.title), ask),
        writeFormula(make("p", { class: "rlhf-caption" }), spec.caption), legend, make("div", { class: "rlhf-plot-box" }, plot), help);
      this.grid.append(card);
      this.sight.observe(card);
      return { spec, card, plot, legend, visible: true, drawn: false, urgent: false, legendKey: "" };
    });
    this.layOut();
  }

  /** Whether a frame has anything for the panel; before the first ones all are shown, empty. */
  has(panel) {
    const data = this.frame && this.frame.data;
    if (!data || data.records < 3) return true;
    const spec = panel.spec;
    if (spec.kind === "lines") return spec.lines.some((line) => line.series in data.series);
    return { histogram: "batch", heatmap: "heat", plane: "trail" }[spec.kind] in data;
  }

  layOut() {
    const width = this.grid.clientWidth;
    const shown = this.panels.filter((p) => !p.card.hidden).length;
    let columns = width >= 1120 ? 4 : width >= 760 ? 3 : width >= 500 ? 2 : 1;
    columns = Math.max(1, Math.min(columns, shown));
    this.grid.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
    const hole = (columns - (shown % columns)) % columns; // a last row short of one: the plane takes two rows
    const plane = this.panels.find((p) => p.spec.kind === "plane" && !p.card.hidden);
    if (!plane) return;
    const tall = hole === 1 && columns > 1 && shown > columns, rows = Math.ceil(shown / columns);
    plane.card.style.gridRow = tall ? `${rows - 1} / span 2` : "";
    plane.card.style.gridColumn = tall ? String(columns) : "";
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
    const began = performance.now();
    for (const panel of this.dirty) {
      if (!panel.visible || panel.card.hidden || (urgent && !panel.urgent)) continue;
      this.dirty.delete(panel);
      panel.urgent = false;
      const start = performance.now();
      if (!this.drawPanel(panel)) continue;
      const ms = performance.now() - start;
      panel.ms = panel.ms === undefined ? ms : 0.8 * panel.ms + 0.2 * ms;
      if (!urgent) break;
    }
    const now = performance.now();
    this.restUntil = now + 2 * (now - began);
    this.reportDrawing();
    if ([...this.dirty].some((p) => p.visible && !p.card.hidden)) this.schedule();
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
      parts.push(spec.target ? JSON.stringify(data.changes) : "");
    } else if (data && spec.kind === "plane") parts.push(data.trail ? data.trail.step.slice(-1)[0] : "");
    else if (data) parts.push(data.step);
    return parts.join("|");
  }

  colour(name) { return this.setup.colours[name][this.dark ? 1 : 0]; }

  drawPanel(panel) {
    if (this.dark === undefined) this.setDark(isDark(this.root));
    const width = panel.plot.parentElement.clientWidth, height = panel.plot.parentElement.clientHeight;
    if (width < 40) return false;
    const key = this.contentKey(panel) + `|${width}x${height}|${this.dark}`;
    if (key === panel.key) return false; // nothing new to draw
    panel.key = key;
    const style = getComputedStyle(this.root);
    const ink = style.getPropertyValue("--rlhf-soft").trim() || "#57606a";
    const gridColour = this.dark ? "rgba(255,255,255,0.09)" : "rgba(0,0,0,0.07)";
    const axis = (more) => ({ gridcolor: gridColour, zeroline: false, linecolor: gridColour, tickfont: { size: 11, color: ink },
      nticks: 5, automargin: false, ...more });
    const spec = panel.spec;
    const scene = { lower: axis({}), left: axis({ nticks: 5 }), right: null, traces: [], legend: [], annotations: [], data: this.frame ? this.frame.data : null };
    this[{ lines: "drawLines", histogram: "drawHistogram", heatmap: "drawHeat", plane: "drawPlane" }[spec.kind]](panel, scene);
    const title = (text) => (text ? { text, font: { size: 11, color: ink }, standoff: 4 } : undefined);
    scene.left.title = title(spec.y_title);
    const layout = {
      width, height, uirevision: "keep", showlegend: false, barmode: "stack", bargap: 0.06,
      margin: { l: spec.y_title ? 50 : 40, r: scene.right ? 50 : 12, t: 6, b: spec.kind === "plane" ? 34 : 22 },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: "system-ui, sans-serif", size: 11, color: ink },
      xaxis: scene.lower, yaxis: scene.left, hovermode: spec.kind === "lines" ? "x" : "closest", dragmode: "zoom",
      hoverlabel: { font: { size: 11 } }, annotations: scene.annotations,
    };
    if (scene.right) layout.yaxis2 = { ...scene.right, overlaying: "y", side: "right", showgrid: false, title: title(spec.right_title) };
    const config = { displaylogo: false, responsive: false, displayModeBar: "hover", modeBarButtons: [["toImage", "resetScale2d"]],
      toImageButtonOptions: { filename: `rlhflab-${spec.id}`, scale: 2 }, showTips: false };
    window.Plotly.react(panel.plot, scene.traces, layout, config);
    panel.drawn = true;
    this.writeLegend(panel, scene.legend);
    return true;
  }

  writeLegend(panel, items) {
    const key = items.map((i) => i.name + i.dash + i.colour).join("|");
    if (panel.legendKey !== key) {
      panel.legendKey = key;
      panel.legend.replaceChildren(...items.map((item) => {
        const swatch = make("i", { class: "rlhf-swatch", "data-dash": item.dash || "solid", style: `--c:${item.colour}` });
        return make("span", {}, swatch, writeFormula(make("span"), item.name), make("b"));
      }));
    }
    items.forEach((item, i) => (panel.legend.children[i].lastChild.textContent = item.value === undefined ? "" : short(item.value)));
  }

  stroke(scene, x, y, colour, { name = "", dash = "solid", width = 2, opacity = 1, right = false, hover = true } = {}) {
    scene.traces.push({ type: "scatter", mode: "lines", x, y, name, opacity, yaxis: right ? "y2" : "y",
      line: { color: colour, width, dash, shape: "linear", simplify: false }, connectgaps: false,
      ...(hover ? { hovertemplate: `%{y:.4~g}<extra>${name.replace(/[<>&]/g, "")}</extra>` } : { hoverinfo: "skip" }) });
  }

  band(scene, x, low, high, colour, right) {
    const edge = { type: "scatter", mode: "lines", line: { width: 0 }, hoverinfo: "skip", yaxis: right ? "y2" : "y" };
    const kept = x.map((_, i) => i).filter((i) => low[i] !== null && high[i] !== null);
    scene.traces.push({ ...edge, x: kept.map((i) => x[i]), y: kept.map((i) => low[i]) },
      { ...edge, x: kept.map((i) => x[i]), y: kept.map((i) => high[i]), fill: "tonexty", fillcolor: withOpacity(colour, this.dark ? 0.22 : 0.16) });
  }

  drawLines(panel, scene) {
    const { spec } = panel, data = scene.data, backdrop = this.setup.backdrop;
    const left = [], right = [];
    let end = Math.max(1, data ? data.step : 1);
    for (const ghost of this.setup.ghosts) for (const line of spec.lines) {
      const points = line.ghost && ghost.series[line.series];
      if (!points) continue;
      end = Math.max(end, points.x[points.x.length - 1]);
      this.stroke(scene, points.x, points.y, this.colour(line.colour), { name: ghost.label, width: 1, opacity: 0.4 });
      left.push(points.y);
    }
    if (this.frame && this.frame.state === "running" && this.frame.steps) end = Math.min(this.frame.steps, Math.max(end, end * 1.02));
    const across = [0, end];
    if (data) for (const line of spec.lines) {
      const entry = data.series[line.series];
      if (!entry) continue;
      const x = data.x[entry.x], y = entry.y, colour = this.colour(line.colour), ends = line.right ? right : left;
      const spread = line.spread && data.series[line.spread];
      if (spread && spread.y.length === y.length) {
        const low = y.map((v, i) => (v === null || spread.y[i] === null ? null : v - spread.y[i]));
        const high = y.map((v, i) => (v === null || spread.y[i] === null ? null : v + spread.y[i]));
        this.band(scene, x, low, high, colour, line.right);
        ends.push(low, high);
      } else if (!line.spread && entry.lo && !line.series.startsWith("exact/")) {
        this.band(scene, x, entry.lo, entry.hi, colour, line.right);
        ends.push(entry.lo, entry.hi);
      }
      ends.push(y);
      this.stroke(scene, x, y, colour, { name: line.name, right: line.right });
      const last = line.series.startsWith("exact/") ? data.exact[line.series.slice(6)] : data.last[line.series];
      scene.legend.push({ name: line.name, colour, value: last });
    }
    if (!scene.legend.length) for (const line of spec.lines) scene.legend.push({ name: line.name, colour: this.colour(line.colour) });
    const aims = [];
    if (spec.target && backdrop && this.beta > 0) {
      const level = atBeta(backdrop, spec.target, this.beta), colour = this.colour("truth");
      this.stroke(scene, across, [level, level], colour, { name: "π*", dash: "6px,4px", width: 1.6 });
      scene.legend.push({ name: "π*", colour, dash: "dash", value: level });
      aims.push(level);
    }
    const reference = spec.reference && ((data && data.exact[spec.reference]) ?? (backdrop ? backdrop[spec.reference] : undefined));
    if (spec.reference && reference !== undefined && reference !== "") {
      const colour = this.colour("reference");
      this.stroke(scene, across, [reference, reference], colour, { name: "π_ref", dash: "dot", width: 1.6 });
      scene.legend.push({ name: "π_{ref}", colour, dash: "dot", value: reference });
      aims.push(reference);
    }
    const range = spec.range || padded(this.withAims(extent(left), left.length > 0, aims));
    scene.lower.range = across;
    scene.left.range = range;
    if (spec.lines.some((line) => line.right)) scene.right = { ...scene.left, tickmode: "auto", range: spec.right_range || padded(extent(right)) };
    if (spec.target && data) this.markChanges(scene, data.changes, range, end);
    if (spec.note) this.writeNote(scene, spec.note, 1, "top");
  }

  /** Include the dashed levels, unless one lies so far off that it would flatten the curve. */
  withAims([low, high], hasData, aims) {
    if (!hasData) return aims.length ? extent([aims]) : [0, 1];
    let [a, b] = [low, high];
    for (const aim of aims) { a = Math.min(a, aim); b = Math.max(b, aim); }
    const span = Math.max(high - low, 1e-9);
    if (b - a > 12 * span && this.frame && this.frame.step > 200) { a = Math.max(a, low - 6 * span); b = Math.min(b, high + 6 * span); }
    return [a, b];
  }

  /** One exact value in words, in a corner of the plot. */
  writeNote(scene, name, y, yanchor) {
    const value = scene.data && scene.data.exact[name];
    if (value === undefined || value === null) return;
    scene.annotations.push({ xref: "paper", yref: "paper", x: 1, y, xanchor: "right", yanchor, showarrow: false, borderpad: 2,
      bgcolor: this.dark ? "rgba(20,20,20,0.7)" : "rgba(255,255,255,0.75)", text: `${name} <b>${short(value)}</b>`, font: { size: 12.5, color: getComputedStyle(this.root).color } });
  }

  /** A thin upright line where β was turned; a drag counts as one turn, at its end. */
  markChanges(scene, changes, range, end) {
    const all = changes.filter(([, name]) => name === "beta");
    const moves = all.filter(([step], i) => i === all.length - 1 || all[i + 1][0] - step > 0.05 * end);
    if (!moves.length) return;
    const x = [], y = [];
    for (const [step] of moves) { x.push(step, step, null); y.push(range[0], range[1], null); }
    this.stroke(scene, x, y, this.colour("reference"), { width: 1, dash: "2px,3px", hover: false });
    scene.annotations.push(...moves.filter(([step], i) => i === moves.length - 1 || moves[i + 1][0] - step > 0.17 * end).map(([step, , value]) => ({ x: step, y: 1, yref: "paper", yanchor: "top", xanchor: step > 0.8 * end ? "right" : "left",
      text: `β ${brief(value)}`, showarrow: false, font: { size: 10, color: this.colour("reference") }, borderpad: 1 })));
  }

  drawHistogram(panel, scene) {
    const batch = scene.data && scene.data.batch;
    scene.lower.range = [0, 1];
    scene.lower.dtick = 0.25;
    scene.left.rangemode = "tozero";
    let top = 4;
    if (batch) {
      const n = batch.clean.length, x = batch.clean.map((_, i) => (i + 0.5) / n), known = batch.flipped.some((v) => v > 0);
      this.sawFlips = this.sawFlips || known;
      top = 1.08 * Math.max(...batch.clean.map((v, i) => v + batch.flipped[i]), 3);
      const bar = (y, colour, name) => scene.traces.push({ type: "bar", x, y, name, marker: { color: colour }, width: 0.92 / n,
        hovertemplate: `%{y} pairs, weight %{x:.2f}<extra>${name}</extra>` });
      bar(batch.clean, this.colour("weight"), this.sawFlips ? "right label" : "pairs");
      scene.legend.push({ name: this.sawFlips ? "right label" : "pairs", colour: this.colour("weight"), dash: "bar" });
      if (this.sawFlips) {
        bar(batch.flipped, this.colour("rejected"), "wrong label");
        scene.legend.push({ name: "wrong label", colour: this.colour("rejected"), dash: "bar" });
      }
    }
    this.stroke(scene, [0.5, 0.5], [0, top], this.colour("reference"), { dash: "dot", width: 1.6, hover: false });
    scene.legend.push({ name: "½", colour: this.colour("reference"), dash: "dot" });
    scene.left.range = [0, top];
  }

  drawHeat(panel, scene) {
    const heat = scene.data && scene.data.heat;
    scene.left.range = [0, 1];
    scene.left.dtick = 0.25;
    scene.left.showgrid = scene.lower.showgrid = false;
    const end = heat ? heat.x[heat.x.length - 1] : 1;
    scene.lower.range = [0, Math.max(1, end)];
    if (heat) {
      const bins = heat.z[0].length, colour = this.colour("weight");
      const z = Array.from({ length: bins }, (_, row) => heat.z.map((column) => Math.sqrt(column[row])));
      const scale = [0, 0.25, 0.5, 0.75, 1].map((at) => [at, withOpacity(colour, at)]);
      scene.traces.push({ type: "heatmap", x: [0, ...heat.x], y: Array.from({ length: bins + 1 }, (_, i) => i / bins), z, zmin: 0, zmax: 5.5,
        colorscale: scale, showscale: false, customdata: Array.from({ length: bins }, (_, row) => heat.z.map((column) => column[row])),
        hovertemplate: "step %{x}, weight %{y:.2f}: %{customdata} %<extra></extra>" });
      scene.legend.push({ name: "0 %", colour: withOpacity(colour, 0.08), dash: "bar" }, { name: "8 %", colour: withOpacity(colour, 0.52), dash: "bar" },
        { name: "≥ 30 % of pairs", colour, dash: "bar" });
    }
    this.stroke(scene, scene.lower.range, [0.5, 0.5], this.colour("reference"), { dash: "dot", width: 1.6, hover: false });
  }

  drawPlane(panel, scene) {
    const trail = scene.data && scene.data.trail, backdrop = this.setup.backdrop, ghosts = this.setup.ghosts;
    let far = Math.max(0, ...(trail ? trail.kl : []), ...ghosts.flatMap((g) => g.trail.kl));
    const best = backdrop && this.beta > 0 ? [atBeta(backdrop, "kl", this.beta), atBeta(backdrop, "reward", this.beta)] : null;
    const right = 1.2 * Math.max(far, best ? Math.min(best[0], Math.max(3 * far, far + 2.5)) : 0, 0.05);
    const truth = this.colour("truth"), policy = this.colour("policy"), rewards = [];
    if (backdrop) {
      const order = backdrop.kl.map((_, i) => i).sort((a, b) => backdrop.kl[a] - backdrop.kl[b]);
      const x = [0], y = [backdrop.ref_reward];
      for (const i of order) {
        x.push(backdrop.kl[i]);
        y.push(backdrop.reward[i]);
        if (backdrop.kl[i] > right) break;
      }
      rewards.push(y);
      this.stroke(scene, x, y, truth, { name: "frontier", dash: "6px,4px", width: 1.6 });
      scene.legend.push({ name: "frontier", colour: truth, dash: "dash" });
      scene.traces.push({ type: "scatter", mode: "markers", x: [0], y: [backdrop.ref_reward], name: "π_ref", yaxis: "y", cliponaxis: false,
        marker: { color: this.colour("reference"), size: 8 }, hovertemplate: "π_ref<extra></extra>" });
    }
    for (const ghost of ghosts) {
      this.stroke(scene, ghost.trail.kl, ghost.trail.reward, policy, { name: ghost.label, width: 1, opacity: 0.45 });
      rewards.push(ghost.trail.reward);
    }
    if (trail) {
      rewards.push(trail.reward);
      this.stroke(scene, trail.kl, trail.reward, policy, { name: "π_θ", width: 2.2 });
      const n = trail.kl.length;
      scene.traces.push({ type: "scatter", mode: "markers", x: [trail.kl[n - 1]], y: [trail.reward[n - 1]], yaxis: "y",
        marker: { color: policy, size: 11, line: { color: this.dark ? "#111" : "#fff", width: 1.5 } },
        hovertemplate: "π_θ now<br>KL %{x:.3f}, E[r] %{y:.3f}<extra></extra>" });
    }
    scene.legend.push({ name: "π_θ now", colour: policy, dash: "dot-big" });
    if (best) {
      scene.traces.push({ type: "scatter", mode: "markers", x: [best[0]], y: [best[1]], yaxis: "y",
        marker: { color: truth, size: 11, symbol: "diamond", line: { color: this.dark ? "#111" : "#fff", width: 1.5 } },
        hovertemplate: `π* at β = ${brief(this.beta)}<br>KL %{x:.3f}, E[r] %{y:.3f}<extra></extra>` });
      rewards.push([best[1]]);
      scene.legend.push({ name: `π* (β ${brief(this.beta)})`, colour: truth, dash: "diamond" });
    }
    this.writeNote(scene, panel.spec.note, 0, "bottom");
    scene.lower.range = [-0.015 * right, right];
    scene.lower.title = { text: "KL(π ‖ π_ref)", font: { size: 11 }, standoff: 2 };
    scene.left.range = padded(extent(rewards));
  }

  // ---- texts ---------------------------------------------------------------------------------------------------

  buildPairs() {
    this.orderButtons = ["heaviest", "lightest"].map((order) => make("button", { type: "button", class: "rlhf-tab", "aria-pressed": "false",
      onclick: () => { this.order = order; this.tableAt = 0; this.drawTables(); } }, `${order} first`));
    this.pairsNote = make("p", { class: "rlhf-caption" });
    this.pairsBody = make("tbody");
    const head = make("tr", {}, ...["weight", "prompt", "chosen", "rejected", "margin"].map((h) => make("th", { scope: "col" }, h)));
    this.pairsCard.append(
      make("div", { class: "rlhf-panel-head" }, make("h4", {}, "Preference pairs by weight"), make("div", { class: "rlhf-tabs" }, ...this.orderButtons)),
      this.pairsNote, make("div", { class: "rlhf-scroll" }, make("table", {}, make("thead", {}, head), this.pairsBody)));
    this.samplesNote = make("p", { class: "rlhf-caption" });
    this.samplesBody = make("tbody");
    const columns = ["prompt", "π_{ref} says", "r", "π_θ says now", "r"].map((h) => writeFormula(make("th", { scope: "col" }), h));
    this.samplesCard.append(make("div", { class: "rlhf-panel-head" }, make("h4", {}, "Answers before and after")), this.samplesNote,
      make("div", { class: "rlhf-scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ...columns)), this.samplesBody)));
  }

  /** Tables change at most every 0.6 s: text must stay readable. */
  drawTables() {
    if (!this.frame || this.closed) return;
    const wait = 600 - (Date.now() - this.tableAt);
    if (wait > 0) {
      if (!this.tableTimer) this.tableTimer = setTimeout(() => { this.tableTimer = null; this.drawTables(); }, wait);
      return;
    }
    this.tableAt = Date.now();
    const { pairs, samples, samples_step } = this.frame.data;
    this.pairsCard.hidden = !pairs;
    this.samplesCard.hidden = !samples;
    if (pairs) {
      for (const [i, order] of ["heaviest", "lightest"].entries()) this.orderButtons[i].setAttribute("aria-pressed", String(order === this.order));
      const wrong = pairs.flipped ? ` ${pairs.flipped.toLocaleString("en-US")} of them carry a wrong label.` : "";
      this.pairsNote.textContent = (this.order === "heaviest" ? "These pull hardest: the policy ranks them wrong, or the label is." : "These hardly pull any more: learnt.")
        + ` ${pairs.known.toLocaleString("en-US")} pairs seen.` + wrong;
      const rows = pairs[this.order];
      while (this.pairsBody.children.length > rows.length) this.pairsBody.lastChild.remove();
      while (this.pairsBody.children.length < rows.length) this.pairsBody.append(make("tr", {},
        make("td", { class: "rlhf-weight" }, make("i"), make("span")), make("td"), make("td", { class: "rlhf-chosen" }, make("span"), make("em", { hidden: true }, "wrong label")),
        make("td", { class: "rlhf-rejected" }), make("td", { class: "rlhf-value" })));
      rows.forEach((row, i) => {
        const [weight, prompt, chosen, rejected, margin] = this.pairsBody.children[i].children;
        weight.style.setProperty("--w", `${100 * (row.weight || 0)}%`);
        weight.lastChild.textContent = row.weight === null ? "–" : row.weight.toFixed(2);
        prompt.textContent = row.prompt;
        chosen.firstChild.textContent = row.chosen;
        chosen.lastChild.hidden = row.flipped !== true;
        rejected.textContent = row.rejected;
        margin.textContent = row.margin === null ? "–" : row.margin.toFixed(2).replace("-", "−");
        this.pairsBody.children[i].classList.toggle("rlhf-flipped", row.flipped === true);
      });
    }
    if (samples) {
      this.samplesNote.textContent = `Drawn at step ${samples_step.toLocaleString("en-US")}; r is the true reward.`;
      const reward = (v) => make("td", { class: "rlhf-value" }, v === null ? "" : v.toFixed(2).replace("-", "−"));
      const key = JSON.stringify(samples);
      if (key !== this.samplesKey) {
        this.samplesKey = key;
        this.samplesBody.replaceChildren(...samples.map((s) => make("tr", {}, make("td", {}, s.prompt), make("td", {}, s.before), reward(s.reward_before),
          make("td", {}, s.after), reward(s.reward_after))));
      }
    }
  }
}

export default {
  render({ model, el }) {
    const view = new BoardView(model, el);
    return () => view.close();
  },
};
