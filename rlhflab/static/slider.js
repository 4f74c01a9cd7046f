// A slider and the box that shows its value as a number; the caller lays them out.

import { make, spoken, write } from "./dom.js";
import { scaleOf, short } from "./numbers.js";

/**
 * Make {slider, box, scale, show(value, source)}: an input of type range, and one of type number or, with `format`
 * (value → text), an output.
 *
 * - spec: {label, min, max, log, step, format, title}; the scale is that of `scaleOf`.
 * - allows(value): whether the box accepts a value, by default the range of the slider; anything else is marked until
 *   the box loses focus, then the last good value is shown again.
 * - change(value, source): the user changes it; `source` is the element that already shows the value. A box reports its
 *   value when it is entered, or with `live` at every key. commit(): a drag has ended, or a number is entered.
 * - refuse(): a number that is not allowed has been entered.
 * - signal: an AbortSignal that removes the listeners.
 */
export function sliderOf(spec, { change, commit = () => {}, refuse = () => {}, live = false, allows, signal }) {
  const { label, min, max, log, step, format, title = "" } = spec;
  const scale = scaleOf(spec);
  const name = spoken(label);
  const slider = make("input", { type: "range", min: 0, max: scale.count, step: 1, class: "rlhf-slider", title, "aria-label": log ? `${name}, log scale` : name });
  const box = format ? make("output") : make("input", { type: "number", step: "any", class: "rlhf-number", title, "aria-label": `${name}, value` });
  if (!format && !allows) Object.assign(box, { min, max });
  if (!format && step === 1) box.step = 1;
  let shown;
  const show = (value, source) => {
    shown = value;
    if (source !== slider) slider.value = Math.round(scale.count * scale.fraction(value));
    slider.setAttribute("aria-valuetext", (format ?? short)(value));
    if (format) return write(box, format(value));
    if (source === box) return;
    box.value = String(Number(value.toPrecision(4)));
    box.removeAttribute("aria-invalid");
  };
  slider.addEventListener("input", () => change(scale.value(slider.value / scale.count), slider), { signal });
  slider.addEventListener("change", commit, { signal });
  if (format) return { slider, box, scale, show };

  const entered = () => (box.value.trim() === "" ? NaN : Number(box.value));
  const good = () => (allows ? allows(entered()) : entered() >= min && entered() <= max);
  box.addEventListener("input", () => {
    if (!good()) return box.setAttribute("aria-invalid", "true");
    box.removeAttribute("aria-invalid");
    if (live) change(entered(), box);
  }, { signal });
  box.addEventListener("change", () => {
    if (!good()) return refuse();
    if (!live) change(entered(), box);
    show(shown, null);
    commit();
  }, { signal });
  box.addEventListener("blur", () => show(shown, null), { signal });
  return { slider, box, scale, show };
}
