// The controls of an explorable, each made from a description.

import { freshId, make, spoken } from "../../static/dom.js";
import { scaleOf, short } from "../../static/numbers.js";
import { sliderOf } from "../../static/slider.js";

/**
 * A control: {nodes, show(value, source), clean(value)}, and for sliders `nudged(value, steps)`.
 *
 * `change(name, value, source)` is called while the user moves it, `commit()` when they have finished.
 */
export function controlOf(spec, hands) {
  const kinds = { slider: sliderControl, toggle: toggleOf, select: selectOf, hidden: hiddenOf };
  return { ...kinds[spec.kind ?? "slider"](spec, hands), spec };
}

function ranged(spec) {
  const { clean, fraction, value } = scaleOf(spec);
  const nudged = (from, by) => {
    const moved = value(fraction(from) + by);
    return moved === from && spec.step ? clean(from + Math.sign(by) * spec.step) : moved;
  };
  return { clean, nudged };
}

/** A value that is dragged only in a plot. */
const hiddenOf = (spec) => ({ nodes: [], show: () => {}, ...ranged(spec) });

function sliderControl(spec, { change, commit, signal }) {
  const id = freshId();
  const { slider, box, show } = sliderOf(spec, { change: (value, source) => change(spec.name, value, source), commit, live: true, signal });
  slider.id = id;
  let shown;
  const remember = (value, source) => {
    shown = value;
    show(value, source);
  };
  const { fraction } = scaleOf(spec);
  const marks = (spec.ticks ?? []).map((tick) => make("span", { style: `left: ${100 * fraction(tick)}%` }, short(tick)));
  const row = make("div", { class: "row" }, make("label", { for: id, notation: spec.label }), box);
  const player = spec.play ? [playButton(spec, { change, commit, signal }, slider, () => shown)] : [];
  const scale = marks.length ? [make("div", { class: "scale", "aria-hidden": "true" }, ...marks)] : [];
  return { nodes: [row, make("div", { class: "row" }, ...player, slider), ...scale], show: remember, ...ranged(spec) };
}

/** A button that moves a slider by `play` units a second until its end, or until the user takes the slider. */
function playButton({ name, label: text, min, max, play }, { change, commit, signal }, slider, shown) {
  const button = make("button", { type: "button", class: "play", "aria-label": `Play ${spoken(text)}`, "aria-pressed": "false" }, "▶");
  let frame = 0;
  let last = 0;
  let exact = 0;
  const halt = () => {
    if (!frame) return;
    cancelAnimationFrame(frame);
    frame = 0;
    button.setAttribute("aria-pressed", "false");
    button.textContent = "▶";
    commit();
  };
  const advance = (now) => {
    exact = Math.min(max, exact + (play * Math.min(100, now - last)) / 1000);
    last = now;
    frame = requestAnimationFrame(advance);
    change(name, exact, null);
    if (exact >= max) halt();
  };
  button.addEventListener("click", () => {
    if (frame) return halt();
    exact = shown() >= max ? min : shown();
    last = performance.now();
    button.setAttribute("aria-pressed", "true");
    button.textContent = "❚❚";
    frame = requestAnimationFrame(advance);
  }, { signal });
  slider.addEventListener("pointerdown", halt, { signal });
  signal.addEventListener("abort", halt);
  return button;
}

function toggleOf({ name, label: text }, { change, commit, signal }) {
  const box = make("input", { type: "checkbox" });
  box.addEventListener("change", () => {
    change(name, box.checked, box);
    commit();
  }, { signal });
  const row = make("label", { class: "toggle" }, box, make("span", { notation: text }));
  return { nodes: [row], show: (value) => (box.checked = Boolean(value)), clean: Boolean };
}

/** Options are values, or [value, text] pairs. */
function selectOf({ name, label: text, options }, { change, commit, signal }) {
  const pairs = options.map((option) => (Array.isArray(option) ? option : [option, String(option)]));
  const id = freshId();
  const select = make("select", { id }, ...pairs.map(([, shown], i) => make("option", { value: i }, shown)));
  select.addEventListener("change", () => {
    change(name, pairs[Number(select.value)][0], select);
    commit();
  }, { signal });
  const show = (value) => (select.value = String(pairs.findIndex(([known]) => known === value)));
  const clean = (value) => (pairs.some(([known]) => known === value) ? value : pairs[0][0]);
  return { nodes: [make("label", { for: id, notation: text }), select], show, clean };
}
