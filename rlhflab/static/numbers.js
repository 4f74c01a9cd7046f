// Numbers: formatting, scales and ticks, and a little arithmetic. All functions are pure.

// ---- written ---------------------------------------------------------------------------------------------------------

const minus = (text) => text.replaceAll("-", "−");
const odd = (value) => (value === Infinity ? "∞" : value === -Infinity ? "−∞" : "–"); // – stands for anything that is not a number

/** A whole number with thousands separators: 12,345. */
export const whole = (value) => value.toLocaleString("en-US");

/** With a fixed number of decimals: 0.500, −1.20; very large numbers are shortened. */
export const fixed = (value, digits = 3) => (Math.abs(value) < 1e5 ? minus(value.toFixed(digits)) : short(value));

/** With a fixed number of decimals and always a sign, except for 0. */
export function signed(value, digits = 2) {
  const text = Math.abs(value).toFixed(digits);
  return (Number(text) === 0 ? "" : value < 0 ? "−" : "+") + text;
}

/** With a fixed number of significant digits, so that a changing number keeps its width: 0.690, 12.0, 1,240, 5e−4. */
export function steady(value, digits = 3) {
  if (!Number.isFinite(value)) return odd(value);
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 1e-3 || size >= 1e6) return minus(value.toExponential(Math.max(0, digits - 2)).replace("e+", "e").replace(/\.0+e/, "e"));
  if (size >= 1000) return minus(whole(Math.round(value)));
  return minus(value.toFixed(Math.max(0, Math.min(6, digits - 1 - Math.floor(Math.log10(size))))));
}

/** Three significant digits at most: 0.3, 2.5, 1,240, 1e−4. */
export function short(value) {
  const text = steady(value);
  return /\.\d*0$/.test(text) ? text.replace(/\.?0+$/, "") : text;
}

/** A fraction as a percentage, with more digits near 0 and 100. */
export function percent(fraction) {
  const p = 100 * fraction;
  return `${p.toFixed(p < 10 || (p >= 99.5 && p < 99.95) ? 1 : 0)} %`;
}

/** A time in seconds: 5 s, 2 min 5 s, 1 h 2 min. */
export function duration(value) {
  const s = Math.max(0, Math.round(value));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

// ---- scales and ticks ------------------------------------------------------------------------------------------------

export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** `count` values, equally spaced on a linear and on a log axis. */
export const linSpace = (low, high, count) =>
  Array.from({ length: count }, (_, i) => low + ((high - low) * i) / (count - 1));

export function logSpace(low, high, count) {
  const step = Math.log(high / low) / (count - 1);
  return Array.from({ length: count }, (_, i) => (i === count - 1 ? high : low * Math.exp(i * step)));
}

/** Position of a value on a log axis as a fraction of [low, high], and back (three significant digits, clamped). */
export const toFraction = (value, low, high) => Math.log(value / low) / Math.log(high / low);
export const fromFraction = (fraction, low, high) =>
  Number((low * Math.exp(clamp(fraction, 0, 1) * Math.log(high / low))).toPrecision(3));

/**
 * The values a control may take, from {min, max, log?, step?}: `clean` moves a value into the range and onto a step,
 * `fraction` and `value` convert to the slider's position (0 to 1) and back, `count` is the slider's number of steps.
 */
export function scaleOf({ min, max, log = false, step }) {
  const count = step && !log ? Math.round((max - min) / step) : 400;
  const clean = (value) => {
    const kept = clamp(Number(value), min, max);
    return step ? clamp(Number((min + Math.round((kept - min) / step) * step).toPrecision(9)), min, max) : kept;
  };
  const fine = (value) => (step ? clean(value) : Number(clean(value).toPrecision(log ? 3 : 4)));
  if (log) return { clean, count, fraction: (v) => toFraction(v, min, max), value: (f) => fine(fromFraction(f, min, max)) };
  return { clean, count, fraction: (v) => (v - min) / (max - min), value: (f) => fine(min + f * (max - min)) };
}

/** Round tick values: about `count` of them in [low, high]. */
export function ticks(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) values.push(i * step);
  return values;
}

/** Ticks of a log axis within [low, high]: 1, 2, 5, 10, 20, …; only powers of ten if the range is more than 300-fold. */
export function logTicks(low, high) {
  const values = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const digit of high / low > 300 ? [1] : [1, 2, 5]) values.push(Number(`${digit}e${power}`));
  }
  return values.filter((value) => value >= low * 0.999 && value <= high * 1.001);
}

// ---- arithmetic ------------------------------------------------------------------------------------------------------

/** The value at x of a line through points, `xs` ascending; constant beyond the ends. */
export function between(xs, ys, x) {
  const right = xs.findIndex((known) => known >= x);
  if (right <= 0) return right === 0 ? ys[0] : ys.at(-1);
  const part = (x - xs[right - 1]) / (xs[right] - xs[right - 1]);
  return ys[right - 1] + part * (ys[right] - ys[right - 1]);
}

export const sumOf = (values) => values.reduce((sum, value) => sum + value, 0);
export const meanOf = (values) => sumOf(values) / values.length;

/** The standard deviation of a sample. */
export function spreadOf(values) {
  const mean = meanOf(values);
  return Math.sqrt(sumOf(values.map((value) => (value - mean) ** 2)) / (values.length - 1));
}

/** Counts in `bins` equal parts of [low, high]; values outside are counted in `below` and `above`. */
export function countIn(values, low, high, bins) {
  const counts = new Array(bins).fill(0);
  let [below, above] = [0, 0];
  for (const value of values) {
    if (value < low) below += 1;
    else if (!(value <= high)) above += 1;
    else counts[Math.min(bins - 1, Math.floor(((value - low) / (high - low)) * bins))] += 1;
  }
  return { counts, below, above };
}
