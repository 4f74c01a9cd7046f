// The view of rlhflab.explore.BetaExplorable: the optimum π* of the KL-regularised objective, explored by dragging β.
//
// First the mathematics (pure, exported, tested under node against Python), then drawing, then the view.
// All texts from Python are untrusted: they reach the page through textContent and fillText only.

// ---------------------------------------------------------------------------------------------- mathematics

/** π* ∝ π_ref·exp(r/β) on reward levels: {reward, kl, logZ}; kl is KL(π*‖π_ref) = E[r]/β − log Z in nats. */
export function optimumAt(levels, masses, beta) {
  let peak = -Infinity;
  for (let k = 0; k < levels.length; k++) if (masses[k] > 0 && levels[k] / beta > peak) peak = levels[k] / beta;
  let z = 0;
  let sum = 0;
  for (let k = 0; k < levels.length; k++) {
    if (!(masses[k] > 0)) continue;
    const weight = masses[k] * Math.exp(levels[k] / beta - peak);
    z += weight;
    sum += weight * levels[k];
  }
  const logZ = peak + Math.log(z);
  const reward = sum / z;
  return { reward, kl: Math.max(reward / beta - logZ, 0), logZ };
}

/** The prompts that a choice stands for: all of them for −1. */
export function shownPrompts(data, prompt) {
  return prompt < 0 ? data.prompts.map((_, i) => i) : [Math.min(prompt, data.prompts.length - 1)];
}

/** Means over the shown prompts at one β; `chosen`, `rejected`: mean log π and π_ref ratio of π* in labelled pairs. */
export function statsAt(data, prompt, beta) {
  const shown = shownPrompts(data, prompt);
  const mean = { reward: 0, kl: 0, logZ: 0, objective: 0, chosen: 0, rejected: 0, logZs: [] };
  for (const i of shown) {
    const { reward, kl, logZ } = optimumAt(data.levels[i], data.masses[i], beta);
    mean.reward += reward / shown.length;
    mean.kl += kl / shown.length;
    mean.logZ += logZ / shown.length;
    mean.chosen += (data.chosen[i] / beta - logZ) / shown.length;
    mean.rejected += (data.rejected[i] / beta - logZ) / shown.length;
    mean.logZs.push(logZ);
  }
  mean.objective = mean.reward - beta * mean.kl;
  return mean;
}

/** E_ref[r], the mean over the shown prompts. */
export function referenceReward(data, prompt) {
  const shown = shownPrompts(data, prompt);
  let mean = 0;
  for (const i of shown) {
    for (let k = 0; k < data.levels[i].length; k++) mean += (data.masses[i][k] * data.levels[i][k]) / shown.length;
  }
  return mean;
}

/** `count` values of β, equally spaced on a log axis. */
export function logSpace(low, high, count) {
  const step = Math.log(high / low) / (count - 1);
  return Array.from({ length: count }, (_, i) => (i === count - 1 ? high : low * Math.exp(i * step)));
}

/** Probabilities of the answers with bars: {ref, best} arrays and the totals they hold. */
export function barsAt(data, prompt, beta, logZs) {
  const group = data.bars[data.prompts.length > 1 ? prompt + 1 : 0];
  const ref = [];
  const best = [];
  const totals = { ref: 0, best: 0 };
  for (let row = 0; row < group.texts.length; row++) {
    let p = 0;
    let q = 0;
    const count = group.ref[row].length;
    for (let i = 0; i < count; i++) {
      p += group.ref[row][i] / count;
      if (group.ref[row][i] > 0) {
        q += Math.exp(Math.log(group.ref[row][i]) + group.rewards[row][i] / beta - logZs[i]) / count;
      }
    }
    ref.push(p);
    best.push(q);
    totals.ref += p;
    totals.best += q;
  }
  return { ref, best, totals };
}

/**
 * The β below which the mean chosen log-ratio is negative, or null where it never changes sign in [low, high].
 * As a function of 1/β the log-ratio is concave, 0 at 0 and rising there: at most one crossing.
 */
export function crossing(data, prompt, low, high) {
  const at = (beta) => statsAt(data, prompt, beta).chosen;
  if (!(at(low) < -1e-9) || !(at(high) > 1e-9)) return null;
  let [a, b] = [Math.log(low), Math.log(high)];
  for (let i = 0; i < 50; i++) {
    const middle = (a + b) / 2;
    if (at(Math.exp(middle)) < 0) a = middle;
    else b = middle;
  }
  return Math.exp((a + b) / 2);
}

/** Position of β on a log axis as a fraction of [low, high], and back (three significant digits, clamped). */
export const toFraction = (beta, low, high) => Math.log(beta / low) / Math.log(high / low);
export const fromFraction = (fraction, low, high) =>
  Number((low * Math.exp(Math.min(1, Math.max(0, fraction)) * Math.log(high / low))).toPrecision(3));

/** An axis that is linear near 0 and logarithmic far from it, so that +0.1 and −100 are both readable. */
export const squash = (value, scale = 0.25) => Math.asinh(value / scale);

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

const LADDER = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1];
/** The end of a probability axis: it moves in 1-2-5 steps, so that bars are seen to grow. */
export const barScale = (largest) => LADDER.find((end) => largest <= end) ?? 1;

// -------------------------------------------------------------------------------------------------- drawing

const CHOSEN = "#0072B2";
const REJECTED = "#D55E00";

const signed = (value, digits = 2) => {
  const text = Math.abs(value).toFixed(digits);
  return (Number(text) === 0 ? "" : value < 0 ? "−" : "+") + text;
};
const plain = (value, digits = 3) => value.toFixed(digits).replace("-", "−");
const short = (value) => String(Number(value.toPrecision(3))).replace("-", "−");
const percent = (value) => {
  const p = 100 * value;
  return (p >= 99.5 && p < 99.95 ? p.toFixed(1) : p >= 10 ? p.toFixed(0) : p.toFixed(1)) + " %";
};

/** Cut a text with … to fit `width` in the current font; texts are short, so a linear search is enough. */
function fitted(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let kept = Array.from(text);
  while (kept.length && context.measureText(kept.join("") + "…").width > width) kept = kept.slice(0, -1);
  return kept.join("") + "…";
}

function line(context, points, { colour, width = 1, dash = [], alpha = 1 }) {
  context.save();
  context.beginPath();
  points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.strokeStyle = colour;
  context.globalAlpha = alpha;
  context.lineWidth = width;
  context.lineJoin = "round";
  context.setLineDash(dash);
  context.stroke();
  context.restore();
}

function dot(context, x, y, radius, fill, ring) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = fill;
  context.fill();
  context.lineWidth = 2;
  context.strokeStyle = ring;
  context.stroke();
}

/** Our own notation, "π_ref" or "y_w", cut into pieces: odd ones are subscripts. Never applied to answers. */
const pieces = (text) => text.split(/_([\p{L}\p{N}]+)/u);

/** Draw a text in our notation, left-aligned at x unless `align` says otherwise; returns its width. */
function notation(context, text, x, y, { size = 11, colour, family, align = "left", halo }) {
  const fonts = [`${size}px ${family}`, `${Math.round(0.78 * size)}px ${family}`];
  const parts = pieces(text).map((part, i) => {
    context.font = fonts[i % 2];
    return { part, i, width: context.measureText(part).width };
  });
  const width = parts.reduce((sum, { width: w }) => sum + w, 0);
  let at = align === "right" ? x - width : x;
  for (const { part, i, width: w } of parts) {
    label(context, part, at, y + (i % 2 ? 0.3 * size : 0), { colour, font: fonts[i % 2], halo });
    at += w;
  }
  return width;
}

function label(context, text, x, y, { colour, align = "left", font, halo } = {}) {
  if (font) context.font = font;
  context.textAlign = align;
  context.textBaseline = "middle";
  if (halo) {
    context.lineWidth = 4;
    context.lineJoin = "round";
    context.strokeStyle = halo;
    context.strokeText(text, x, y);
  }
  context.fillStyle = colour;
  context.fillText(text, x, y);
}

// Each panel is a layout (where things are), an under layer (drawn again only when the prompt, the size, the theme or
// a scale changes) and an over layer (drawn every frame of a drag).

/** Panel A: a row per answer, π_ref above π*, best reward first. */
function barsLayout({ width, height }, { group, end }) {
  const [top, bottom, rewardWidth] = [20, 22, 44];
  const labelWidth = Math.min(0.42 * width, 190);
  const [x0, x1] = [labelWidth + rewardWidth + 10, width - 14];
  const row = (height - top - bottom) / group.texts.length;
  return { top, row, x0, labelWidth, rewardWidth, base: height - bottom, foot: height - 10, x: (p) => x0 + (p / end) * (x1 - x0) };
}

function barsUnder(context, at, theme, { group, rewards, end }) {
  const font = `12px ${theme.font}`;
  const small = `11px ${theme.font}`;
  const rewardEdge = at.labelWidth + at.rewardWidth;
  label(context, "answer y", at.labelWidth, 9, { colour: theme.muted, align: "right", font: small });
  label(context, "r(x,y)", rewardEdge + 2, 9, { colour: theme.muted, align: "right", font: small });
  let keyX = at.x0;
  for (const [text, colour] of [["π_ref", theme.reference], ["π*", theme.ink]]) {
    context.fillStyle = colour;
    context.fillRect(keyX, 5, 12, 8);
    keyX += 28 + notation(context, text, keyX + 16, 9, { colour: theme.text, family: theme.font });
  }
  for (const tick of [0, end / 2, end]) {
    line(context, [[at.x(tick), at.top], [at.x(tick), at.base]], { colour: tick ? theme.grid : theme.muted });
    label(context, short(tick), at.x(tick), at.foot, { colour: theme.muted, align: "center", font: small });
  }
  for (let i = 0; i < group.texts.length; i++) {
    const middle = at.top + (i + 0.5) * at.row;
    const empty = group.texts[i] === "";
    context.font = font;
    const text = fitted(context, empty ? "(empty)" : group.texts[i], at.labelWidth - 4);
    label(context, text, at.labelWidth, middle, { colour: empty ? theme.muted : theme.text, align: "right" });
    label(context, signed(rewards[i]), rewardEdge, middle, { colour: theme.muted, align: "right", font: small });
  }
}

function barsOver(context, at, theme, { bars }) {
  const thick = Math.max(3, Math.min(8, at.row * 0.36));
  for (const [values, colour, shift] of [[bars.ref, theme.reference, -thick - 0.5], [bars.best, theme.ink, 0.5]]) {
    context.fillStyle = colour;
    for (let i = 0; i < values.length; i++) {
      context.fillRect(at.x0, at.top + (i + 0.5) * at.row + shift, at.x(values[i]) - at.x0, thick);
    }
  }
}

/** Panel B: E[r] against KL, traced by β; the tangent at the point has slope β and starts at J*. */
function frontierLayout({ width, height }, { curve, start }) {
  const [left, right, top, base] = [44, width - 12, 12, height - 34];
  const most = curve[0];
  const kls = Math.max(most.kl, 1e-6) * 1.04;
  const span = Math.max(most.reward - start, 1e-6);
  const [low, high] = [start - 0.12 * span, most.reward + 0.1 * span];
  return {
    left, right, top, base, kls, low, high, foot: height - 9,
    x: (kl) => left + (kl / kls) * (right - left),
    y: (r) => base - ((r - low) / (high - low)) * (base - top),
    kl: (px) => ((px - left) / (right - left)) * kls,
  };
}

function frontierUnder(context, at, theme, { curve, start }) {
  const { left, right, top, base, x, y } = at;
  const small = `11px ${theme.font}`;
  for (const tick of ticks(at.low, at.high, 4)) line(context, [[left, y(tick)], [right, y(tick)]], { colour: theme.grid });
  for (const tick of ticks(0, at.kls, 5)) {
    line(context, [[x(tick), top], [x(tick), base]], { colour: theme.grid });
    label(context, short(tick), x(tick), base + 12, { colour: theme.muted, align: "center", font: small });
  }
  notation(context, "KL(π‖π_ref), nats", right, at.foot, { colour: theme.muted, align: "right", family: theme.font });
  label(context, "E[r]", left + 4, top - 3, { colour: theme.muted, font: small });

  const points = [...curve.map((o) => [x(o.kl), y(o.reward)]), [x(0), y(start)]];
  context.save(); // what a policy can reach
  context.beginPath();
  points.forEach(([px, py], i) => (i ? context.lineTo(px, py) : context.moveTo(px, py)));
  context.lineTo(x(0), base);
  context.lineTo(points[0][0], base);
  context.closePath();
  context.fillStyle = theme.ink;
  context.globalAlpha = 0.06;
  context.fill();
  context.restore();
  line(context, points, { colour: theme.ink, width: 2, dash: [6, 4] });
  line(context, [[left, top], [left, base]], { colour: theme.muted });
  notation(context, "π_ref", x(0) + 8, y(start) + 9, { colour: theme.muted, family: theme.font, halo: theme.background });
}

function frontierOver(context, at, theme, { start, now, beta }) {
  const { left, right, top, base, x, y } = at;
  const far = now.kl + 0.24 * at.kls;
  const tangent = [[x(0), y(now.objective)], [x(far), y(now.objective + beta * far)]];
  context.save();
  context.beginPath();
  context.rect(left, top, right - left, base - top);
  context.clip();
  line(context, tangent, { colour: theme.accent, width: 1.5 });
  context.restore();
  const mark = y(now.objective);
  const apart = Math.abs(mark - y(start)) > 8;
  if (apart) label(context, "J*", left - 9, mark, { colour: theme.accent, align: "right", font: `bold 11px ${theme.font}` });
  for (const tick of ticks(at.low, at.high, 4)) {
    if (apart && Math.abs(y(tick) - mark) < 13) continue; // "J*" stands there
    label(context, short(tick), left - 6, y(tick), { colour: theme.muted, align: "right", font: `11px ${theme.font}` });
  }
  dot(context, x(0), mark, 4, theme.background, theme.accent);
  dot(context, x(0), y(start), 4, theme.reference, theme.background);
  dot(context, x(now.kl), y(now.reward), 7, theme.ink, theme.background);
  const flip = x(now.kl) > right - 98;
  const below = Math.min(y(now.reward) + (flip ? 17 : 14), y(start) - 8); // clear of "π_ref"
  label(context, `β = ${short(beta)}`, x(now.kl) + (flip ? -10 : 12), below, {
    colour: theme.text, align: flip ? "right" : "left", font: `bold 12px ${theme.font}`, halo: theme.background,
  });
}

/** Panel D: mean log-ratio of π* and π_ref in labelled pairs, chosen and rejected, against β. */
function pairsLayout({ width, height }, { curve, range }) {
  const [left, right, top, base] = [44, width - 12, 22, height - 34];
  const least = Math.min(...curve.map((o) => Math.min(o.rejected, o.chosen)), -1);
  const most = Math.max(...curve.map((o) => Math.max(o.chosen, o.rejected)), 0.5);
  const [low, high] = [squash(least) * 1.05, squash(most) * 1.15];
  return {
    left, right, top, base, low, high, foot: height - 8,
    x: (beta) => left + toFraction(beta, ...range) * (right - left),
    y: (value) => base - ((squash(value) - low) / (high - low)) * (base - top),
    fraction: (px) => (px - left) / (right - left),
  };
}

const PAIR_LINES = [["chosen", CHOSEN], ["rejected", REJECTED]];

function pairsUnder(context, at, theme, { betas, curve, zero, range }) {
  const { left, right, top, base, x, y } = at;
  const small = `11px ${theme.font}`;
  if (zero !== null) {
    context.save();
    context.globalAlpha = theme.dark ? 0.18 : 0.08;
    context.fillStyle = CHOSEN;
    context.fillRect(left, top, x(zero) - left, base - top);
    context.restore();
  }
  for (const tick of [-300, -100, -30, -10, -3, -1, -0.3, 0, 0.3, 1, 3, 10]) {
    if (squash(tick) < at.low || squash(tick) > at.high) continue;
    line(context, [[left, y(tick)], [right, y(tick)]], { colour: tick ? theme.grid : theme.muted });
    label(context, short(tick), left - 6, y(tick), { colour: tick ? theme.muted : theme.text, align: "right", font: small });
  }
  for (const tick of [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20]) {
    if (tick < range[0] * 0.999 || tick > range[1] * 1.001) continue;
    line(context, [[x(tick), top], [x(tick), base]], { colour: theme.grid });
    label(context, short(tick), x(tick), base + 12, { colour: theme.muted, align: "center", font: small });
  }
  label(context, "β (log axis)", right, at.foot, { colour: theme.muted, align: "right", font: small });
  label(context, "↑ nats, log-like away from 0", 4, at.foot, { colour: theme.muted, font: small });
  if (zero !== null) line(context, [[x(zero), top], [x(zero), base]], { colour: CHOSEN, dash: [3, 3], width: 1.5 });
  for (const [key, colour] of PAIR_LINES) line(context, betas.map((b, i) => [x(b), y(curve[i][key])]), { colour, width: 2.5 });
}

function pairsOver(context, at, theme, { now, beta }) {
  const { left, right, top, base, x, y } = at;
  line(context, [[x(beta), top], [x(beta), base]], { colour: theme.accent, width: 1.5 });
  let keyX = left;
  for (const [key, colour] of PAIR_LINES) {
    dot(context, x(beta), y(now[key]), 6, colour, theme.background);
    context.fillStyle = colour;
    context.fillRect(keyX, 8, 14, 3);
    label(context, `${key} ${signed(now[key])}`, keyX + 19, 10, { colour: theme.text, font: `12px ${theme.font}` });
    keyX += Math.min(135, (right - left + 24) / 2);
  }
  if (keyX < right - 52) {
    label(context, `β = ${short(beta)}`, right, 10, { colour: theme.text, align: "right", font: `bold 12px ${theme.font}` });
  }
}

const DRAWING = {
  bars: [barsLayout, barsUnder, barsOver],
  frontier: [frontierLayout, frontierUnder, frontierOver],
  pairs: [pairsLayout, pairsUnder, pairsOver],
};

// --------------------------------------------------------------------------------------------------- styles

const CSS = `
.rlhf-beta { --fg: var(--jp-ui-font-color1, var(--vscode-editor-foreground, var(--colab-primary-text-color, #212121)));
  --fg-muted: var(--jp-ui-font-color2, var(--vscode-descriptionForeground, #616161));
  --bg: var(--jp-layout-color0, var(--vscode-editor-background, var(--colab-primary-surface-color, #ffffff)));
  --bg-card: var(--jp-layout-color1, var(--bg));
  --line: var(--jp-border-color2, var(--vscode-panel-border, #d5d5d5));
  --accent: var(--jp-brand-color1, var(--vscode-focusBorder, #1976d2));
  color: var(--fg); background-color: var(--bg);
  font: 13px/1.4 var(--jp-ui-font-family, var(--vscode-font-family, system-ui, "Segoe UI", Roboto, sans-serif));
  box-sizing: border-box; width: 100%; padding: 8px; display: grid; gap: 8px;
  grid-template-columns: 216px minmax(0, 1.15fr) minmax(0, 1fr); }
.rlhf-beta * { box-sizing: border-box; }
.rlhf-beta .card { position: relative; border: 1px solid var(--line); border-radius: 6px; padding: 8px 10px; min-width: 0;
  background: var(--bg); display: flex; flex-direction: column; contain: layout style; }
.rlhf-beta .left, .rlhf-beta .right { display: grid; gap: 8px; min-width: 0; }
.rlhf-beta .left { align-content: start; }
.rlhf-beta sub { font-size: 0.78em; line-height: 0; vertical-align: -0.25em; }
.rlhf-beta .head { display: flex; align-items: center; gap: 6px; margin-bottom: 2px; }
.rlhf-beta .head strong { flex: 1; font-weight: 600; min-width: 0; }
.rlhf-beta .ask { width: 22px; height: 22px; border-radius: 11px; border: 1px solid var(--line); background: transparent;
  color: var(--fg-muted); cursor: pointer; font: inherit; line-height: 1; padding: 0; flex: none; }
.rlhf-beta .ask:hover, .rlhf-beta .ask[aria-expanded="true"] { color: var(--accent); border-color: var(--accent); }
.rlhf-beta .formula { position: absolute; z-index: 3; left: 8px; right: 8px; top: 38px; padding: 10px 12px; border-radius: 6px;
  border: 1px solid var(--accent); background: var(--bg); box-shadow: 0 3px 12px rgba(0,0,0,.25); overflow-wrap: anywhere; }
.rlhf-beta .formula[hidden] { display: none; }
.rlhf-beta .formula div + div { margin-top: 5px; }
.rlhf-beta .formula .math { font-family: "STIX Two Math", "Cambria Math", "DejaVu Serif", Georgia, serif; font-size: 14px; }
.rlhf-beta .plot { position: relative; flex: 1; min-height: 208px; }
.rlhf-beta canvas { position: absolute; inset: 0; display: block; width: 100%; height: 100%; cursor: ew-resize; touch-action: pan-y; user-select: none;
  -webkit-user-select: none; }
.rlhf-beta .caption { color: var(--fg-muted); font-size: 12px; margin-top: 4px; }
.rlhf-beta label { display: block; font-weight: 600; }
.rlhf-beta .row { display: flex; align-items: center; gap: 8px; justify-content: space-between; }
.rlhf-beta input[type=range] { width: 100%; margin: 8px 0 0; accent-color: var(--accent); display: block; cursor: pointer; }
.rlhf-beta .scale { position: relative; height: 16px; margin: 0 8px 8px; color: var(--fg-muted); font-size: 10px; }
.rlhf-beta .scale span { position: absolute; transform: translateX(-50%); }
.rlhf-beta input[type=number], .rlhf-beta select { font: inherit; color: var(--fg); background: var(--bg);
  border: 1px solid var(--line); border-radius: 4px; padding: 3px 6px; height: 28px; color-scheme: inherit; }
.rlhf-beta input[type=number] { width: 84px; }
.rlhf-beta input[aria-invalid="true"] { border-color: #D55E00; outline: 1px solid #D55E00; }
.rlhf-beta select { width: 100%; margin-top: 2px; text-overflow: ellipsis; }
.rlhf-beta :is(input, select, button, canvas):focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
.rlhf-beta table { width: 100%; border-collapse: collapse; margin: 2px 0; font-size: 13px; }
.rlhf-beta .card table :is(th, td) { padding: 4px 0; border: 0; border-top: 1px solid var(--line); text-align: right;
  font-variant-numeric: tabular-nums; background: none; color: var(--fg); max-width: none; white-space: nowrap; }
.rlhf-beta .card table thead :is(th, td) { border-top: 0; color: var(--fg-muted); font-weight: 400; font-size: 12px; }
.rlhf-beta .card table th[scope=row] { text-align: left; font-weight: 400; }
.rlhf-beta .card table td.ref { color: var(--fg-muted); padding-left: 6px; }
.rlhf-beta .card table td.now { font-weight: 600; }
.rlhf-beta.narrow { grid-template-columns: minmax(0, 1.1fr) minmax(0, 1fr); }
.rlhf-beta.narrow .left { grid-column: 1 / -1; grid-template-columns: minmax(0, 1.1fr) minmax(0, 1fr);
  align-content: stretch; }
.rlhf-beta.tiny, .rlhf-beta.tiny .left { grid-template-columns: minmax(0, 1fr); }
`;

// ----------------------------------------------------------------------------------------------------- view

const FORMULAS = {
  bars: [
    ["math", "π*(y|x) = π_ref(y|x) · exp(r(x,y)/β) / Z(x)"],
    ["math", "Z(x) = Σ_y π_ref(y|x) · exp(r(x,y)/β)"],
    ["note", "The sum runs over every answer, not only those with bars. For all prompts: means over x."],
  ],
  frontier: [
    ["math", "π*_β = argmax_π E_π[r] − β · KL(π‖π_ref)"],
    ["math", "slope of the frontier at π*_β: dE[r] / dKL = β"],
    ["math", "tangent at KL = 0: J* = E[r] − β·KL = β·log Z"],
    ["note", "β traces the curve. For all prompts: means over x of both axes, so J* = β·mean log Z."],
  ],
  readouts: [
    ["math", "E[r] = Σ_y π*(y|x) · r(x,y)"],
    ["math", "KL(π*‖π_ref) = E[r]/β − log Z(x)"],
    ["math", "J* = E[r] − β·KL = β·log Z(x)"],
    ["note", "Nats per answer. For all prompts: means over x."],
  ],
  pairs: [
    ["math", "E[log π*(y_w|x)/π_ref(y_w|x)] = E[r_w]/β − log Z(x)"],
    ["math", "E[log π*(y_l|x)/π_ref(y_l|x)] = E[r_l]/β − log Z(x)"],
    ["math", "y₁, y₂ ~ π_ref,  P(y₁ ≻ y₂) = σ(r(x,y₁) − r(x,y₂))"],
    ["note", "r_w and r_l: reward of the chosen and the rejected answer. As β falls, log Z outgrows E[r_w]/β, because " +
      "π* moves to answers better than the average chosen one."],
  ],
};

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
  node.replaceChildren(...pieces(text).map((part, i) => (i % 2 ? element("sub", { text: part }) : part)));
}

/** A card: title, "?" with its formula, optional canvas, caption. */
function card(title, formula, body, signal) {
  const id = `rlhf-beta-${(serial += 1)}`;
  const box = element("div", { class: "formula", id, role: "note" });
  box.hidden = true;
  for (const [kind, text] of FORMULAS[formula]) box.append(element("div", { class: kind, notation: text }));
  const ask = element("button", {
    class: "ask", type: "button", text: "?", "aria-expanded": "false", "aria-controls": id,
    "aria-label": `Formula: ${title.replace("_", " ")}`, title: "Formula",
  });
  const show = (open) => {
    box.hidden = !open;
    ask.setAttribute("aria-expanded", String(open));
  };
  const caption = element("div", { class: "caption" });
  const root = element("section", { class: "card", "aria-label": title },
    element("div", { class: "head" }, element("strong", { notation: title }), ask), body, caption, box);
  ask.addEventListener("click", () => show(box.hidden), { signal });
  document.addEventListener("pointerdown", (event) => {
    if (!box.hidden && !event.composedPath().some((node) => node === box || node === ask)) show(false);
  }, { signal });
  root.addEventListener("keydown", (event) => event.key === "Escape" && show(false), { signal });
  return { root, caption };
}

function render({ model, el }) {
  const stop = new AbortController();
  const { signal } = stop;
  const style = element("style", { text: CSS });
  const root = element("div", { class: "rlhf-beta", "data-lm-suppress-shortcuts": "true" });
  el.append(style, root);

  let data;
  let range;
  let betas;
  let beta;
  let prompt;
  let fixed; // what depends on the prompt only: curve, start, zero, group, rewards
  let now;
  let dragging = false;
  let scheduled = 0;
  let geometry = {}; // where things are in each canvas
  let drawn = {}; // what each under layer was drawn for
  let values; // the bars

  // --- controls
  const uid = (serial += 1);
  const slider = element("input", { type: "range", min: 0, max: 1000, step: 1, id: `rlhf-beta-slider-${uid}`, "aria-label": "β, log scale" });
  const number = element("input", { type: "number", step: "any", "aria-label": "β" });
  const select = element("select", { id: `rlhf-beta-prompt-${uid}` });
  const scale = element("div", { class: "scale", "aria-hidden": "true" });
  const controls = element("section", { class: "card", "aria-label": "Controls" },
    element("div", { class: "row" }, element("label", { for: slider.id, text: "β" }), number),
    slider, scale, element("label", { for: select.id, text: "Prompt x" }), select,
    element("div", { class: "caption", text: "Drag β here or sideways on any plot." }));

  // --- panels
  const canvas = () => element("canvas", { role: "img", tabindex: "0" });
  const canvases = { bars: canvas(), frontier: canvas(), pairs: canvas() };
  const under = Object.fromEntries(Object.keys(canvases).map((name) => [name, element("canvas", { "aria-hidden": "true" })]));
  const frame = (name) => element("div", { class: "plot" }, under[name], canvases[name]);
  const cells = {};
  const table = element("table", {}, element("thead", {}, element("tr", {},
    element("td", {}), element("th", { scope: "col", text: "π*" }), element("th", { scope: "col", notation: "π_ref" }))));
  const tableBody = element("tbody");
  table.append(tableBody);
  for (const [key, text, hint] of [
    ["reward", "E[r]", "mean reward"], ["kl", "KL", "KL(π‖π_ref), nats per answer"],
    ["objective", "J", "E[r] − β·KL; for π* this is J*"], ["logZ", "log Z", "nats"], ["check", "β·log Z", "equals J*"],
  ]) {
    cells[key] = element("td", { class: "now" });
    cells[`${key}Ref`] = element("td", { class: "ref" });
    tableBody.append(element("tr", { title: hint }, element("th", { scope: "row", text }), cells[key], cells[`${key}Ref`]));
  }
  const panels = {
    readouts: card("Exact values", "readouts", table, signal),
    bars: card("Answers under π_ref and π*", "bars", frame("bars"), signal),
    frontier: card("Reward–KL frontier", "frontier", frame("frontier"), signal),
    pairs: card("Log π*/π_ref of chosen and rejected", "pairs", frame("pairs"), signal),
  };
  panels.readouts.caption.textContent = "J* is the reward left after paying β for each nat of KL.";
  panels.frontier.caption.textContent = "No policy lies above the dashed curve; the tangent has slope β and starts at J*.";
  root.append(
    element("div", { class: "left" }, controls, panels.readouts.root),
    panels.bars.root,
    element("div", { class: "right" }, panels.frontier.root, panels.pairs.root),
  );

  // --- state
  function loadData() {
    data = model.get("data");
    range = data.range;
    betas = logSpace(range[0], range[1], 160);
    select.replaceChildren(...data.prompts.map((text, i) => element("option", { value: i, text: text === "" ? "(empty)" : text })));
    if (data.prompts.length > 1) {
      select.append(element("option", { value: -1, text: `all prompts (mean of ${data.prompts.length})` }));
    }
    number.min = range[0];
    number.max = range[1];
    scale.replaceChildren();
    for (const tick of [0.05, 0.2, 1, 5, 10].filter((t) => t >= range[0] && t <= range[1])) {
      const mark = element("span", { text: String(tick) });
      mark.style.left = `${100 * toFraction(tick, ...range)}%`;
      scale.append(mark);
    }
    loadPrompt();
  }

  function loadPrompt() {
    prompt = model.get("prompt");
    if (prompt < 0 && data.prompts.length === 1) prompt = 0;
    select.value = String(prompt);
    const group = data.bars[data.prompts.length > 1 ? prompt + 1 : 0];
    fixed = {
      curve: betas.map((b) => statsAt(data, prompt, b)),
      start: referenceReward(data, prompt),
      zero: crossing(data, prompt, ...range),
      group,
      rewards: group.rewards.map((row) => row.reduce((sum, r) => sum + r, 0) / row.length),
    };
    canvases.bars.parentNode.style.minHeight = `${42 + 20 * Math.max(10, group.texts.length)}px`;
    drawn = {};
    setBeta(model.get("beta"), null);
    writeCaption(panels.pairs, pairCaption());
    describe();
  }

  const pairCaption = () => {
    const last = fixed.curve[fixed.curve.length - 1];
    if (Math.abs(last.chosen - last.rejected) < 1e-9) return "All rewards are equal: π* is π_ref at every β.";
    if (fixed.zero === null) return "The mean log-probability of chosen answers keeps its sign on this range of β.";
    return `Below β = ${short(fixed.zero)} (shaded) even the exact optimum lowers log\u00a0π of chosen answers on average.`;
  };

  /** Take a new β; `source` is the control that already shows it. */
  function setBeta(value, source) {
    beta = Math.min(range[1], Math.max(range[0], value));
    if (source !== slider) slider.value = String(Math.round(1000 * toFraction(beta, ...range)));
    if (source !== number) {
      number.value = String(Number(beta.toPrecision(3)));
      number.removeAttribute("aria-invalid");
    }
    schedule();
  }

  /** What a person did: show it, tell other views of this model, and the kernel once the drag has ended. */
  function change(value, source) {
    setBeta(value, source);
    if (model.get("beta") !== beta) model.set("beta", beta);
  }

  function commit() {
    dragging = false;
    describe();
    model.save_changes();
  }

  // --- drawing, at most once a frame
  function schedule() {
    if (!scheduled) scheduled = requestAnimationFrame(draw);
  }

  function theme() {
    const css = getComputedStyle(root);
    const [, r, g, b] = /rgba?\((\d+)[, ]+(\d+)[, ]+(\d+)/.exec(css.backgroundColor) ?? [0, 255, 255, 255];
    const dark = 0.3 * r + 0.59 * g + 0.11 * b < 128;
    root.style.colorScheme = dark ? "dark" : "light";
    return {
      font: css.fontFamily, dark, background: css.backgroundColor, text: css.color,
      muted: dark ? "#a8a8a8" : "#666666", grid: dark ? "#333333" : "#ececec",
      reference: dark ? "#7d7d7d" : "#b3b3b3", ink: dark ? "#e8e8e8" : "#333333",
      accent: css.getPropertyValue("--accent").trim() || "#1976d2",
    };
  }

  /** Fit a canvas to its box and the screen's resolution, clear it, and return its context. */
  function surface(node, { width, height, ratio }) {
    const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (node.width !== w || node.height !== h) [node.width, node.height] = [w, h];
    const context = node.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    return context;
  }

  function drawPanel(name, colours, content) {
    const node = canvases[name];
    const [layout, drawUnder, drawOver] = DRAWING[name];
    const size = { width: node.clientWidth, height: node.clientHeight, ratio: window.devicePixelRatio || 1 };
    const key = [size.width, size.height, size.ratio, colours.background, colours.text, colours.accent, content.end].join();
    if (drawn[name] !== key) {
      drawn[name] = key;
      geometry[name] = layout(size, content);
      drawUnder(surface(under[name], size), geometry[name], colours, content);
    }
    drawOver(surface(node, size), geometry[name], colours, content);
  }

  function write(node, text) {
    if (node.textContent !== text) node.textContent = text;
  }

  function writeCaption(panel, text) {
    if (panel.last === text) return;
    panel.last = text;
    setNotation(panel.caption, text);
  }

  function draw() {
    scheduled = 0;
    if (!root.isConnected || root.clientWidth < 50) return; // hidden: the resize observer calls again
    const colours = theme();
    now = statsAt(data, prompt, beta);
    values = barsAt(data, prompt, beta, now.logZs);
    const content = { ...fixed, bars: values, betas, now, beta, range };
    drawPanel("bars", colours, { ...content, end: barScale(Math.max(...values.ref, ...values.best)) });
    drawPanel("frontier", colours, content);
    drawPanel("pairs", colours, content);
    write(cells.reward, plain(now.reward));
    write(cells.rewardRef, plain(fixed.start));
    write(cells.kl, plain(now.kl));
    write(cells.klRef, plain(0));
    write(cells.objective, plain(now.objective));
    write(cells.objectiveRef, plain(fixed.start));
    write(cells.logZ, plain(now.logZ));
    write(cells.check, plain(beta * now.logZ));
    slider.setAttribute("aria-valuetext", `β = ${short(beta)}`);
    const rows = fixed.group.texts.length;
    const some = rows < data.answers ? `These ${rows} of ${data.answers.toLocaleString("en")} answers` : "These answers";
    writeCaption(panels.bars, `${some} hold ${percent(values.totals.ref)} of π_ref and ${percent(values.totals.best)} of π*.` +
      (data.merged ? ` (${data.merged.toLocaleString("en")} distinct rewards merged to ${data.levels[0].length}.)` : ""));
  }

  /** Text for screen readers, renewed when a drag ends. */
  function describe() {
    const at = statsAt(data, prompt, beta);
    const name = prompt < 0 ? "all prompts" : data.prompts[prompt];
    canvases.bars.setAttribute("aria-label", `Bars of the likeliest answers to ${name} under π_ref and π* at β = ${short(beta)}`);
    canvases.frontier.setAttribute("aria-label", `Reward–KL frontier; at β = ${short(beta)}: reward ${plain(at.reward)}, KL ${plain(at.kl)} nats`);
    canvases.pairs.setAttribute("aria-label", `Mean log-ratio at β = ${short(beta)}: chosen ${signed(at.chosen)}, rejected ${signed(at.rejected)} nats`);
  }

  // --- events
  slider.addEventListener("input", () => {
    dragging = true;
    change(fromFraction(slider.value / 1000, ...range), slider);
  }, { signal });
  slider.addEventListener("change", commit, { signal });
  number.addEventListener("input", () => {
    const value = Number(number.value);
    const valid = number.value.trim() !== "" && value >= range[0] && value <= range[1];
    number.toggleAttribute("aria-invalid", !valid);
    if (!valid) number.setAttribute("aria-invalid", "true");
    if (valid) change(value, number);
  }, { signal });
  const settle = () => {
    setBeta(beta, null); // a value out of range gives way to the last good one
    commit();
  };
  number.addEventListener("change", settle, { signal });
  number.addEventListener("keydown", (event) => event.key === "Enter" && settle(), { signal });
  select.addEventListener("change", () => {
    model.set("prompt", Number(select.value));
    commit();
  }, { signal });

  const nearest = (kl) => {
    let best = 0;
    for (let i = 1; i < betas.length; i++) {
      if (Math.abs(fixed.curve[i].kl - kl) < Math.abs(fixed.curve[best].kl - kl)) best = i;
    }
    const other = fixed.curve[best].kl > kl ? best + 1 : best - 1; // between two points of the curve
    const [a, b] = [fixed.curve[best], fixed.curve[other]];
    const part = b && a.kl !== b.kl ? Math.min(1, Math.max(0, (kl - a.kl) / (b.kl - a.kl))) : 0;
    return toFraction(betas[best], ...range) + (b ? part * (toFraction(betas[other], ...range) - toFraction(betas[best], ...range)) : 0);
  };
  for (const [name, node] of Object.entries(canvases)) {
    let from = null;
    const move = (event) => {
      const px = event.clientX - node.getBoundingClientRect().left;
      const fraction = name === "frontier" ? nearest(geometry.frontier.kl(px))
        : name === "pairs" ? geometry.pairs.fraction(px)
        : from.fraction + (px - from.px) / (0.8 * node.clientWidth);
      change(fromFraction(fraction, ...range), null);
    };
    node.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !geometry[name]) return;
      node.setPointerCapture(event.pointerId);
      dragging = true;
      from = { px: event.clientX - node.getBoundingClientRect().left, fraction: toFraction(beta, ...range) };
      if (name !== "bars") move(event);
    }, { signal });
    node.addEventListener("pointermove", (event) => {
      if (from) move(event);
      else if (name === "bars" && geometry.bars) {
        const row = Math.floor((event.offsetY - geometry.bars.top) / geometry.bars.row);
        const text = fixed.group.texts[row];
        node.title = text === undefined ? "" : `${text === "" ? "(empty)" : text}\nr = ${signed(fixed.rewards[row], 3)}   ` +
          `π_ref = ${values.ref[row].toPrecision(3)}   π* = ${values.best[row].toPrecision(3)}`;
      }
    }, { signal });
    const end = () => {
      if (!from) return;
      from = null;
      commit();
    };
    for (const kind of ["pointerup", "pointercancel", "lostpointercapture"]) node.addEventListener(kind, end, { signal });
    node.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -0.01, ArrowRight: 0.01, PageDown: -0.1, PageUp: 0.1 }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      change(fromFraction(toFraction(beta, ...range) + step, ...range), null);
      commit();
    }, { signal });
  }

  const onBeta = () => {
    if (!dragging && model.get("beta") !== beta) setBeta(model.get("beta"), null);
  };
  model.on("change:data", loadData);
  model.on("change:prompt", loadPrompt);
  model.on("change:beta", onBeta);
  let painted = "";
  const watch = setInterval(() => { // a theme change sends no event that every front end shares
    const css = getComputedStyle(root);
    const look = `${css.color} ${css.backgroundColor} ${window.devicePixelRatio}`;
    if (look !== painted) schedule();
    painted = look;
  }, 400);
  const observer = new ResizeObserver(() => {
    root.classList.toggle("narrow", root.clientWidth < 960);
    root.classList.toggle("tiny", root.clientWidth < 560);
    schedule();
  });
  observer.observe(root);
  loadData();

  return () => {
    stop.abort();
    clearInterval(watch);
    observer.disconnect();
    cancelAnimationFrame(scheduled);
    model.off("change:data", loadData);
    model.off("change:prompt", loadPrompt);
    model.off("change:beta", onBeta);
  };
}

export default { render };
