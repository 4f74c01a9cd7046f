// The shell of every explorable: a card of controls, a card of read-outs, panels that follow a drag.
//
// A panel is a layout (where things are), an under layer (drawn again only when the size, the theme, the data or the
// panel's underKey changes) and an over layer (drawn every frame of a drag). Everything is drawn in
// requestAnimationFrame, at most once a frame; the kernel hears of a value when a drag has ended.

import { isDark, watchLook } from "../../static/colours.js";
import { card, make, mount, setNotation, write } from "../../static/dom.js";
import { surface, themeOf } from "./canvas.js";
import { controlOf } from "./controls.js";
import STAGE_CSS from "./stage.css" with { type: "text" };

const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

/**
 * Show an explorable in `el`; returns a function that ends it. Call it from anywidget's `render`.
 *
 * - title: what it is, for the screen reader and above the controls; `note`: a line below the controls.
 * - controls: [{name, label, min, max, log, step, format, ticks, play, kind, options}], or data → such a list. Each is the
 *   model's trait `name`. kind: "slider" (default), "toggle", "select" (options: values or [value, text]) or "hidden" (no
 *   control of its own: dragged in a plot). min and max are by default those of the trait, data.ranges[name]. With `format`
 *   (value → text) a slider has a text instead of a number field. `play`: a ▶ button, in units a second.
 * - compute(values, data) → state: pure; values is {name: value}, data the model's `data`.
 * - panels: [{name, title, layout, under, over, underKey, drag, keys, arrow, hover, caption, aria, formula, height, column}]:
 *   layout(size, state) → at, where size is {width, height};
 *   under(context, at, theme, state), over(context, at, theme, state);
 *   underKey(state) → text that changes when the layout or the under layer must; without it they follow every change;
 *   drag(at, px, py, state, grip) → {name: value, …}, or null to leave all as it is (on pointerdown: nothing is taken hold
 *   of); grip is {px, py, state} of the pointerdown, where a drag may also note what it holds;
 *   keys: names moved by the arrow keys ← → and ↑ ↓, by default the first slider; or arrow(right, up, state), each −1, 0
 *   or 1 → {name: value, …} or null, if a key is not a step of a range;
 *   hover(at, px, py, state) → text of the tooltip; caption(state) → text, or a text; aria(state) → text;
 *   formula: [["math" | "note", text]] behind a "?"; height: pixels at least, a number or state → number; column: from 0.
 * - readouts: [{label, hint, value(state) → text, reference(state) → text}]; readoutCard: {title, caption, formula, columns}.
 * - widths: of the columns, relative.
 */
export function stage({
  model, el, title = "", note = "", controls, compute, panels, readouts = [], readoutCard = {}, widths,
}) {
  const stop = new AbortController();
  const { signal } = stop;
  const root = mount(el, "rlhf-stage", STAGE_CSS, { role: "group", "aria-label": title });

  let data;
  let version = 0; // of the data
  let made = {}; // the controls by name
  const values = {};
  let state;
  let stale = true; // state is older than values or data
  let moving = false; // in use: changes reported by the model are echoes
  let scheduled = 0;

  // --- cards
  const form = make("section", { class: "rlhf-card form", "aria-label": "Controls" });
  const left = make("div", { class: "left" }, form);
  const rows = readouts.map((row) => ({ ...row, now: make("td", { class: "now" }), was: make("td", { class: "ref" }) }));
  if (rows.length) left.append(readoutTable(rows, readoutCard, signal));
  root.append(left);
  const shown = panels.map((panel, i) => ({ ...panel, column: panel.column ?? (i < panels.length / 2 ? 0 : 1), drawn: null }));
  const columns = [...new Set(shown.map((panel) => panel.column))].sort();
  root.style.setProperty("--columns", columns.map((_, i) => `minmax(0, ${widths?.[i] ?? 1}fr)`).join(" "));
  for (const panel of shown) {
    panel.canvas = make("canvas", { role: "img", ...(panel.drag ? { tabindex: "0" } : {}) });
    panel.below = make("canvas", { "aria-hidden": "true" });
    panel.plot = make("div", { class: "plot" }, panel.below, panel.canvas);
    panel.note = make("div", { class: "rlhf-caption" });
    panel.card = card(panel, [panel.plot, panel.note], signal);
    panel.card.dataset.panel = panel.name;
  }
  for (const column of columns) {
    const own = shown.filter((panel) => panel.column === column).map((panel) => panel.card);
    root.append(make("div", { class: "column" }, ...own));
  }

  // --- state
  function load() {
    data = model.get("data");
    version += 1;
    const specs = typeof controls === "function" ? controls(data) : controls;
    made = {};
    for (const spec of specs) {
      const [min, max] = data.ranges?.[spec.name] ?? [];
      made[spec.name] = controlOf({ min, max, ...spec }, { change: (name, value, source) => change({ [name]: value }, source), commit, signal });
    }
    form.replaceChildren(...(title ? [make("div", { class: "rlhf-head" }, make("h4", { notation: title }))] : []),
      ...Object.values(made).flatMap((control) => control.nodes), ...(note ? [make("div", { class: "rlhf-caption", notation: note })] : []));
    [stale, moving] = [true, false];
    take();
  }

  /** Take over the model's current values. */
  function take() {
    if (moving) return;
    let changed = stale;
    for (const [name, control] of Object.entries(made)) {
      const value = control.clean(model.get(name));
      changed ||= values[name] !== value;
      values[name] = value;
      control.show(value, null);
    }
    if (changed) refresh();
    describe();
  }

  function refresh() {
    stale = true;
    schedule();
  }

  function current() {
    if (stale) state = compute({ ...values }, data);
    stale = false;
    return state;
  }

  /** Show the user's change, and update other views of this model; `source` is the control that already shows it. */
  function change(moved, source) {
    moving = true;
    for (const [name, value] of Object.entries(moved)) {
      values[name] = made[name].clean(value);
      made[name].show(values[name], source);
      if (model.get(name) !== values[name]) model.set(name, values[name]);
    }
    refresh();
  }

  /** A drag has ended: tell the kernel. */
  function commit() {
    moving = false;
    describe();
    model.save_changes();
  }

  /** Text for screen readers, renewed when a drag ends. */
  function describe() {
    for (const panel of shown) panel.canvas.setAttribute("aria-label", panel.aria ? panel.aria(current()) : panel.title);
  }

  // --- drawing, at most once a frame
  function schedule() {
    if (!scheduled) scheduled = requestAnimationFrame(draw);
  }

  function draw() {
    scheduled = 0;
    if (!root.isConnected || root.clientWidth < 50) return; // hidden: the resize observer calls again
    root.toggleAttribute("data-dark", isDark(root));
    const theme = themeOf(root);
    const now = current();
    for (const panel of shown) {
      const height = typeof panel.height === "function" ? panel.height(now) : panel.height;
      if (height) panel.plot.style.minHeight = `${height}px`;
    }
    for (const panel of shown) drawPanel(panel, theme, now);
    for (const row of rows) {
      write(row.now, row.value(now));
      if (row.reference) write(row.was, row.reference(now));
    }
  }

  function drawPanel(panel, theme, now) {
    const { canvas, below } = panel;
    const size = { width: canvas.clientWidth, height: canvas.clientHeight, ratio: window.devicePixelRatio || 1 };
    const key = [version, size.width, size.height, size.ratio, theme.background, theme.text, theme.accent, panel.underKey?.(now)].join();
    if (panel.drawn !== key || !panel.underKey) {
      panel.drawn = key;
      panel.at = panel.layout(size, now);
      if (panel.under) panel.under(surface(below, size), panel.at, theme, now);
    }
    panel.over(surface(canvas, size), panel.at, theme, now);
    const text = typeof panel.caption === "function" ? panel.caption(now) : panel.caption;
    write(panel.note, text ?? "", setNotation);
  }

  // --- pointer and keys
  const firstSlider = () => Object.keys(made).find((name) => made[name].nudged);
  const nudgeOf = (keys, key) => {
    const [across, up] = keys ?? [firstSlider()];
    const moves = { ArrowLeft: [across, -0.01], ArrowRight: [across, 0.01], PageDown: [across, -0.1], PageUp: [across, 0.1], ArrowDown: [up, -0.01], ArrowUp: [up, 0.01] };
    const [name, by] = moves[key] ?? [];
    return name === undefined ? null : { [name]: made[name].nudged(values[name], by) };
  };
  for (const panel of shown) {
    const { canvas } = panel;
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    let grip = null;
    canvas.classList.add(!panel.drag ? "still" : panel.arrow || panel.keys?.length > 1 ? "plane" : "sideways");
    canvas.addEventListener("pointermove", (event) => {
      if (!panel.at) return;
      if (grip) {
        const moved = panel.drag(panel.at, ...place(event), current(), grip);
        if (moved) change(moved, null);
      } else if (panel.hover) canvas.title = panel.hover(panel.at, ...place(event), current()) ?? "";
    }, { signal });
    if (!panel.drag) continue;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !panel.at) return;
      const [px, py] = place(event);
      const held = { px, py, state: current() };
      const moved = panel.drag(panel.at, px, py, held.state, held);
      if (!moved) return;
      grip = held;
      canvas.setPointerCapture(event.pointerId);
      change(moved, null);
    }, { signal });
    const end = () => {
      if (!grip) return;
      grip = null;
      commit();
    };
    for (const kind of ["pointerup", "pointercancel", "lostpointercapture"]) canvas.addEventListener(kind, end, { signal });
    canvas.addEventListener("keydown", (event) => {
      const way = panel.arrow && DIRECTIONS[event.key];
      const moved = way ? panel.arrow(...way, current()) : panel.arrow ? null : nudgeOf(panel.keys, event.key);
      if (way || moved) event.preventDefault();
      if (!moved) return;
      change(moved, null);
      commit();
    }, { signal });
  }

  // --- life
  model.on("change:data", load);
  load();
  const names = Object.keys(made);
  for (const name of names) model.on(`change:${name}`, take);
  const endWatch = watchLook(root, schedule);
  const observer = new ResizeObserver(() => {
    root.classList.toggle("narrow", root.clientWidth < 960);
    root.classList.toggle("tiny", root.clientWidth < 680); // below it the legends of two columns are cut off
    schedule();
  });
  observer.observe(root);

  return () => {
    stop.abort();
    endWatch();
    observer.disconnect();
    cancelAnimationFrame(scheduled);
    model.off("change:data", load);
    for (const name of names) model.off(`change:${name}`, take);
  };
}

/** `make`, but called again only if an argument has changed. */
export function remembered(make) {
  let last = null;
  return (...given) => {
    if (!last || given.some((value, i) => value !== last.given[i])) last = { given, value: make(...given) };
    return last.value;
  };
}

/** The card of read-outs; with `columns` (two names) each row may have a value of reference beside its own. */
function readoutTable(rows, { title = "Values", caption = "", formula, columns }, signal) {
  const table = make("table");
  if (columns) {
    const heads = columns.map((name) => make("th", { scope: "col", notation: name }));
    table.append(make("thead", {}, make("tr", {}, make("td"), ...heads)));
  }
  const body = make("tbody", {}, ...rows.map(({ label: name, hint = "", now, was }) =>
    make("tr", { title: hint }, make("th", { scope: "row", notation: name }), now, ...(columns ? [was] : []))));
  table.append(body);
  return card({ title, formula }, [table, make("div", { class: "rlhf-caption", notation: caption })], signal);
}
