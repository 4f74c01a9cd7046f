// The view of rlhflab.explore.BetaExplorable: the optimum π* of the KL-regularised objective, explored by dragging β.
//
// First the mathematics (pure, exported, tested under node against Python), then the three plots, then what the stage
// is told.

import { BLUE, VERMILION } from "../../static/colours.js";
import { clamp, fixed, fromFraction, logSpace, meanOf, percent, short, signed, ticks, toFraction, whole } from "../../static/numbers.js";
import { area, axes, dot, fitted, horizontalAt, inside, label, line, notation, plotLayout, verticalAt } from "./canvas.js";
import { remembered, stage } from "./stage.js";

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

const LADDER = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1];
/** The end of a probability axis: it moves in 1-2-5 steps, so that bars are seen to grow. */
export const barScale = (largest) => LADDER.find((end) => largest <= end) ?? 1;

// --------------------------------------------------------------------------------------------------- plots

const CHOSEN = BLUE;
const REJECTED = VERMILION;

/** An axis that is linear near 0 and logarithmic far from it, so that +0.1 and −100 are both readable. */
const squash = (value, scale = 0.25) => Math.asinh(value / scale);

/** Panel A: a row per answer, π_ref above π*, best reward first. */
function barsLayout({ width, height }, { group, end }) {
  const [top, bottom, rewardWidth] = [20, 22, 44];
  const labelWidth = Math.min(0.42 * width, 190);
  const [x0, x1] = [labelWidth + rewardWidth + 10, width - 14];
  const row = (height - top - bottom) / group.texts.length;
  return { width, top, row, x0, labelWidth, rewardWidth, base: height - bottom, foot: height - 10, x: (p) => x0 + (p / end) * (x1 - x0) };
}

function barsUnder(context, at, theme, { group, rewards, end }) {
  const font = `12px ${theme.font}`;
  const rewardEdge = at.labelWidth + at.rewardWidth;
  label(context, "answer y", at.labelWidth, 9, { colour: theme.muted, align: "right", font: theme.small });
  label(context, "r(x,y)", rewardEdge + 2, 9, { colour: theme.muted, align: "right", font: theme.small });
  let keyX = at.x0;
  for (const [text, colour] of [["π_ref", theme.reference], ["π*", theme.ink]]) {
    context.fillStyle = colour;
    context.fillRect(keyX, 5, 12, 8);
    keyX += 28 + notation(context, text, keyX + 16, 9, { colour: theme.text, family: theme.font });
  }
  for (const tick of [0, end / 2, end]) {
    verticalAt(context, at, tick, { colour: tick ? theme.grid : theme.muted });
    label(context, short(tick), at.x(tick), at.foot, { colour: theme.muted, align: "center", font: theme.small });
  }
  for (let i = 0; i < group.texts.length; i++) {
    const middle = at.top + (i + 0.5) * at.row;
    const empty = group.texts[i] === "";
    context.font = font;
    const text = fitted(context, empty ? "(empty)" : group.texts[i], at.labelWidth - 4);
    label(context, text, at.labelWidth, middle, { colour: empty ? theme.muted : theme.text, align: "right" });
    label(context, signed(rewards[i]), rewardEdge, middle, { colour: theme.muted, align: "right", font: theme.small });
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
function frontierLayout(size, { curve: [most], start }) {
  const span = Math.max(most.reward - start, 1e-6);
  return plotLayout(size, { x: [0, Math.max(most.kl, 1e-6) * 1.04], y: [start - 0.12 * span, most.reward + 0.1 * span] });
}

function frontierUnder(context, at, theme, { curve, start }) {
  axes(context, at, theme, { xName: "KL(π‖π_ref), nats", yName: "E[r]", yFormat: () => "" }); // frontierOver writes beside J*
  const { base, x, y } = at;
  const points = [...curve.map((o) => [x(o.kl), y(o.reward)]), [x(0), y(start)]];
  area(context, [...points, [x(0), base], [points[0][0], base]], { colour: theme.ink, alpha: 0.06 }); // what a policy can reach
  line(context, points, { colour: theme.ink, width: 2, dash: [6, 4] });
  notation(context, "π_ref", x(0) + 8, y(start) + 9, { colour: theme.muted, family: theme.font, halo: theme.background });
}

function frontierOver(context, at, theme, { start, now, beta }) {
  const { left, right, x, y } = at;
  const far = now.kl + 0.24 * at.ranges.x[1];
  const tangent = [[x(0), y(now.objective)], [x(far), y(now.objective + beta * far)]];
  inside(context, at, () => line(context, tangent, { colour: theme.accent, width: 1.5 }));
  const mark = y(now.objective);
  const apart = Math.abs(mark - y(start)) > 8;
  if (apart) label(context, "J*", left - 9, mark, { colour: theme.accent, align: "right", font: `bold 11px ${theme.font}` });
  for (const tick of ticks(...at.ranges.y, 4)) {
    if (apart && Math.abs(y(tick) - mark) < 13) continue; // "J*" stands there
    label(context, short(tick), left - 6, y(tick), { colour: theme.muted, align: "right", font: theme.small });
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
function pairsLayout(size, { curve, range }) {
  const least = Math.min(...curve.map((o) => Math.min(o.rejected, o.chosen)), -1);
  const most = Math.max(...curve.map((o) => Math.max(o.chosen, o.rejected)), 0.5);
  const at = plotLayout(size, { x: range, logX: true, y: [squash(least) * 1.05, squash(most) * 1.15], top: 22 });
  return { ...at, y: (value) => at.y(squash(value)) };
}

const PAIR_LINES = [["chosen", CHOSEN], ["rejected", REJECTED]];

const PAIR_TICKS = [-300, -100, -30, -10, -3, -1, -0.3, 0, 0.3, 1, 3, 10];

function pairsUnder(context, at, theme, { betas, curve, zero }) {
  const { left, top, base, x, y } = at;
  const [low, high] = at.ranges.y;
  if (zero !== null) {
    const shade = [[left, top], [x(zero), top], [x(zero), base], [left, base]];
    area(context, shade, { colour: CHOSEN, alpha: theme.dark ? 0.18 : 0.08 });
  }
  axes(context, at, theme, { xName: "β (log axis)", yTicks: PAIR_TICKS.filter((tick) => squash(tick) >= low && squash(tick) <= high) });
  label(context, "↑ nats, log-like away from 0", 4, at.foot, { colour: theme.muted, font: theme.small });
  horizontalAt(context, at, 0, { colour: theme.muted });
  if (zero !== null) verticalAt(context, at, zero, { colour: CHOSEN, dash: [3, 3], width: 1.5 });
  for (const [key, colour] of PAIR_LINES) line(context, betas.map((b, i) => [x(b), y(curve[i][key])]), { colour, width: 2.5 });
}

function pairsOver(context, at, theme, { now, beta }) {
  const { left, right, x, y } = at;
  verticalAt(context, at, beta, { colour: theme.accent, width: 1.5 });
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

/** What depends on the prompt only: curve, start, zero, the answers with bars and their mean rewards. */
function fixedFor(data, prompt) {
  const betas = logSpace(...data.range, 160);
  const group = data.bars[data.prompts.length > 1 ? prompt + 1 : 0];
  return {
    data, prompt, betas, group, range: data.range,
    curve: betas.map((beta) => statsAt(data, prompt, beta)),
    start: referenceReward(data, prompt),
    zero: crossing(data, prompt, ...data.range),
    rewards: group.rewards.map(meanOf),
  };
}

/** Where on β's log axis the frontier has the KL of a point, between two points of the curve. */
function fractionAtKl({ curve, betas, range }, kl) {
  let best = 0;
  for (let i = 1; i < betas.length; i++) if (Math.abs(curve[i].kl - kl) < Math.abs(curve[best].kl - kl)) best = i;
  const other = curve[best].kl > kl ? best + 1 : best - 1;
  const [a, b] = [curve[best], curve[other]];
  const part = b && a.kl !== b.kl ? clamp((kl - a.kl) / (b.kl - a.kl), 0, 1) : 0;
  const [from, to] = [betas[best], betas[b ? other : best]].map((beta) => toFraction(beta, ...range));
  return from + part * (to - from);
}

const named = (text) => (text === "" ? "(empty)" : text);

function barsCaption({ group, data, bars: { totals } }) {
  const rows = group.texts.length;
  const some = rows < data.answers ? `These ${rows} of ${whole(data.answers)} answers` : "These answers";
  const merged = data.merged ? ` (${whole(data.merged)} distinct rewards merged to ${data.levels[0].length}.)` : "";
  return `${some} hold ${percent(totals.ref)} of π_ref and ${percent(totals.best)} of π*.${merged}`;
}

function barsHover(at, px, py, { group, rewards, bars }) {
  const row = Math.floor((py - at.top) / at.row);
  const text = group.texts[row];
  return text === undefined ? "" : `${named(text)}\nr = ${signed(rewards[row], 3)}   ` +
    `π_ref = ${bars.ref[row].toPrecision(3)}   π* = ${bars.best[row].toPrecision(3)}`;
}

function pairsCaption({ curve, zero }) {
  const last = curve[curve.length - 1];
  if (Math.abs(last.chosen - last.rejected) < 1e-9) return "All rewards are equal: π* is π_ref at every β.";
  if (zero === null) return "The mean log-probability of chosen answers keeps its sign on this range of β.";
  return `Below β = ${short(zero)} (shaded) even the exact optimum lowers log\u00a0π of chosen answers on average.`;
}

function render({ model, el }) {
  const fixedOf = remembered(fixedFor);
  const betaAt = (fraction, { range }) => ({ beta: fromFraction(fraction, ...range) });
  return stage({
    model, el,
    note: "Drag β here or sideways on any plot.",
    controls: ({ range: [min, max], prompts }) => [
      { name: "beta", label: "β", min, max, log: true, ticks: [0.05, 0.2, 1, 5, 10].filter((tick) => tick >= min && tick <= max) },
      {
        name: "prompt", label: "Prompt x", kind: "select",
        options: [...prompts.map((text, i) => [i, named(text)]), ...(prompts.length > 1 ? [[-1, `all prompts (mean of ${prompts.length})`]] : [])],
      },
    ],
    compute({ beta, prompt }, data) {
      const now = statsAt(data, prompt, beta);
      const bars = barsAt(data, prompt, beta, now.logZs);
      return { ...fixedOf(data, prompt), beta, now, bars, end: barScale(Math.max(...bars.ref, ...bars.best)) };
    },
    readoutCard: {
      title: "Exact values", columns: ["π*", "π_ref"], formula: FORMULAS.readouts,
      caption: "J* is the reward left after paying β for each nat of KL.",
    },
    readouts: [
      { label: "E[r]", hint: "mean reward", value: (s) => fixed(s.now.reward), reference: (s) => fixed(s.start) },
      { label: "KL", hint: "KL(π‖π_ref), nats per answer", value: (s) => fixed(s.now.kl), reference: () => fixed(0) },
      { label: "J", hint: "E[r] − β·KL; for π* this is J*", value: (s) => fixed(s.now.objective), reference: (s) => fixed(s.start) },
      { label: "log Z", hint: "nats", value: (s) => fixed(s.now.logZ) },
      { label: "β·log Z", hint: "equals J*", value: (s) => fixed(s.beta * s.now.logZ) },
    ],
    widths: [1.15, 1],
    panels: [
      {
        name: "bars", title: "Answers under π_ref and π*", column: 0, formula: FORMULAS.bars,
        layout: barsLayout, under: barsUnder, over: barsOver, underKey: ({ prompt, end }) => `${prompt} ${end}`,
        height: ({ group }) => 42 + 20 * Math.max(10, group.texts.length),
        drag: (at, px, py, state, grip) => betaAt(toFraction(grip.state.beta, ...state.range) + (px - grip.px) / (0.8 * at.width), state),
        caption: barsCaption, hover: barsHover,
        aria: ({ prompt, data, beta }) =>
          `Bars of the likeliest answers to ${prompt < 0 ? "all prompts" : data.prompts[prompt]} under π_ref and π* at β = ${short(beta)}`,
      },
      {
        name: "frontier", title: "Reward–KL frontier", column: 1, formula: FORMULAS.frontier,
        layout: frontierLayout, under: frontierUnder, over: frontierOver, underKey: ({ prompt }) => prompt,
        drag: (at, px, py, state) => betaAt(fractionAtKl(state, at.valueX(px)), state),
        caption: "No policy lies above the dashed curve; the tangent has slope β and starts at J*.",
        aria: ({ beta, now }) => `Reward–KL frontier; at β = ${short(beta)}: reward ${fixed(now.reward)}, KL ${fixed(now.kl)} nats`,
      },
      {
        name: "pairs", title: "Log π*/π_ref of chosen and rejected", column: 1, formula: FORMULAS.pairs,
        layout: pairsLayout, under: pairsUnder, over: pairsOver, underKey: ({ prompt }) => prompt,
        drag: (at, px, py, state) => betaAt(toFraction(at.valueX(px), ...state.range), state),
        caption: pairsCaption,
        aria: ({ beta, now }) => `Mean log-ratio at β = ${short(beta)}: chosen ${signed(now.chosen)}, rejected ${signed(now.rejected)} nats`,
      },
    ],
  });
}

export default { render };
