// The controls of an explorable, each made from a description, and the few DOM helpers that cards and controls share.

let serial = 0;

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = value;
    else if (name === "notation") setNotation(node, value);
    else if (name === "class") node.className = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** Our own notation as DOM, subscripts included; answers and prompts go through textContent instead. */
function setNotation(node, text) {
  const nodes = pieces(text).map(({ text: part, shift }) => (shift ? element(shift > 0 ? "sub" : "sup", { text: part }) : part));
  node.replaceChildren(...nodes);
}

function write(node, text, into = (target, value) => (target.textContent = value)) {
  if (node.written === text) return;
  node.written = text;
  into(node, text);
}

/**
 * The values a control may take, from {min, max, log?, step?}: `clean` brings a value into the range and onto a step,
 * `fraction` and `value` lead to the slider's place (0 to 1) and back, `count` is the slider's number of steps.
 */
export function scaleOf({ min, max, log = false, step }) {
  const count = step && !log ? Math.round((max - min) / step) : 1000;
  const clean = (value) => {
    const kept = clamp(Number(value), min, max);
    return step ? clamp(Number((min + Math.round((kept - min) / step) * step).toPrecision(9)), min, max) : kept;
  };
  if (log) return { clean, count, fraction: (v) => toFraction(v, min, max), value: (f) => fromFraction(f, min, max) };
  const fine = (value) => (step ? clean(value) : Number(clean(value).toPrecision(4)));
  return { clean, count, fraction: (v) => (v - min) / (max - min), value: (f) => fine(min + f * (max - min)) };
}

/**
 * A control: {nodes, show(value, source), clean(value)}, and for sliders `nudged(value, steps)`.
 *
 * `change(name, value, source)` is called while a person moves it, `commit()` when they have done so.
 */
function controlOf(spec, hands) {
  const kinds = { slider: sliderOf, toggle: toggleOf, select: selectOf, hidden: hiddenOf };
  return { ...kinds[spec.kind ?? "slider"](spec, hands), spec };
}

function ranged(spec) {
  const scale = scaleOf(spec);
  const nudged = (value, share) => {
    const moved = scale.value(scale.fraction(value) + share);
    return moved === value && spec.step ? scale.clean(value + Math.sign(share) * spec.step) : moved;
  };
  return { scale, clean: scale.clean, nudged };
}

/** A value that is dragged in a plot only. */
const hiddenOf = (spec) => ({ nodes: [], show: () => {}, ...ranged(spec) });

function sliderOf(spec, { change, commit, signal }) {
  const { scale, clean, nudged } = ranged(spec);
  const { name, format = short } = spec;
  const id = `rlhf-stage-${(serial += 1)}`;
  const aria = spec.label.replaceAll("_", " ");
  const slider = element("input", { type: "range", min: 0, max: scale.count, step: 1, id, "aria-label": spec.log ? `${aria}, log scale` : aria });
  const number = spec.format
    ? element("output", { for: id })
    : element("input", { type: "number", step: "any", min: spec.min, max: spec.max, "aria-label": aria });
  const marks = element("div", { class: "scale", "aria-hidden": "true" });
  for (const tick of spec.ticks ?? []) {
    const mark = element("span", { text: String(tick).replace("-", "−") });
    mark.style.left = `${100 * scale.fraction(tick)}%`;
    marks.append(mark);
  }
  let shown;

  const show = (value, source) => {
    shown = value;
    if (source !== slider) slider.value = String(Math.round(scale.count * scale.fraction(value)));
    slider.setAttribute("aria-valuetext", `${aria} = ${format(value)}`);
    if (spec.format) write(number, format(value));
    else if (source !== number) {
      number.value = String(Number(value.toPrecision(spec.log ? 3 : 6)));
      number.removeAttribute("aria-invalid");
    }
  };
  slider.addEventListener("input", () => change(name, scale.value(slider.value / scale.count), slider), { signal });
  slider.addEventListener("change", commit, { signal });
  number.addEventListener("input", () => {
    const value = Number(number.value);
    const valid = number.value.trim() !== "" && value >= spec.min && value <= spec.max;
    if (valid) number.removeAttribute("aria-invalid");
    else number.setAttribute("aria-invalid", "true");
    if (valid) change(name, value, number);
  }, { signal });
  const settle = () => {
    show(shown, null); // a value out of range gives way to the last good one
    commit();
  };
  if (!spec.format) {
    number.addEventListener("change", settle, { signal });
    number.addEventListener("keydown", (event) => event.key === "Enter" && settle(), { signal });
  }
  const row = element("div", { class: "row" }, element("label", { for: id, notation: spec.label }), number);
  const player = spec.play ? playButton(spec, { change, commit, signal }, slider, () => shown) : [];
  return { nodes: [row, element("div", { class: "row" }, ...player, slider), ...(spec.ticks ? [marks] : [])], show, clean, nudged };
}

/** A button that moves a slider by `play` units a second until its end, or until a person takes the slider. */
function playButton({ name, label: text, min, max, play }, { change, commit, signal }, slider, shown) {
  const button = element("button", { type: "button", class: "play", "aria-label": `Play ${text.replaceAll("_", " ")}`, "aria-pressed": "false", text: "▶" });
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
  return [button];
}

function toggleOf({ name, label: text }, { change, commit, signal }) {
  const box = element("input", { type: "checkbox" });
  box.addEventListener("change", () => {
    change(name, box.checked, box);
    commit();
  }, { signal });
  const row = element("label", { class: "toggle" }, box, element("span", { notation: text }));
  return { nodes: [row], show: (value) => (box.checked = Boolean(value)), clean: Boolean };
}

/** Options are values, or [value, text] pairs. */
function selectOf({ name, label: text, options }, { change, commit, signal }) {
  const pairs = options.map((option) => (Array.isArray(option) ? option : [option, String(option)]));
  const id = `rlhf-stage-${(serial += 1)}`;
  const select = element("select", { id }, ...pairs.map(([, shown], i) => element("option", { value: i, text: shown })));
  select.addEventListener("change", () => {
    change(name, pairs[Number(select.value)][0], select);
    commit();
  }, { signal });
  const show = (value) => (select.value = String(pairs.findIndex(([known]) => known === value)));
  const clean = (value) => (pairs.some(([known]) => known === value) ? value : pairs[0][0]);
  return { nodes: [element("label", { for: id, notation: text }), select], show, clean };
}
