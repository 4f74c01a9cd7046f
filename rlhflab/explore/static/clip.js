// The view of rlhflab.explore.clip.ClipExplorable: the clipped objective of one action, and epochs on one batch.

import { BLUE, VERMILION, GREEN, ORANGE, PURPLE } from "../../static/colours.js";
import { clamp, fixed, linSpace, meanOf, short, signed, sumOf } from "../../static/numbers.js";
import { area, axes, dot, horizontalAt, inside, label, legend, line, plotLayout, verticalAt } from "./canvas.js";
import { remembered, stage } from "./stage.js";

// ---------------------------------------------------------------------------------------------- mathematics

/** What is maximised, for one action with ratio ρ and advantage A: with the minimum, the clip alone, or neither. */
export function objective(kind, rho, advantage, epsilon) {
  const plainly = rho * advantage;
  const held = clamp(rho, 1 - epsilon, 1 + epsilon) * advantage;
  return kind === "none" ? plainly : kind === "alone" ? held : Math.min(plainly, held);
}

/** Whether ρ has a gradient there: not if the clip is active. */
export function isLive(kind, rho, advantage, epsilon) {
  if (kind === "none") return true;
  const [low, high] = [rho < 1 - epsilon, rho > 1 + epsilon];
  return kind === "alone" ? !low && !high : !(high && advantage > 0) && !(low && advantage < 0);
}

/** log N(a; μ, s²) − log N(a; 0, 1), where π_old is N(0, 1). */
export const logRatio = (a, { mean, std }) => (a * a - ((a - mean) / std) ** 2) / 2 - Math.log(std);

/** KL(π_old‖π_θ), nats. */
export const klOf = ({ mean, std }) => Math.log(std) + (1 + mean * mean) / (2 * std * std) - 0.5;

/** E[r] − E_old[r] for r(a) = −½(a − goal)². */
export const gainOf = ({ mean, std }, goal) => (goal * goal + 1 - (mean - goal) ** 2 - std * std) / 2;

/** Effective sample size (Σρ)²/Σρ²: the equivalent number of actions of π_θ. */
export const effectiveSize = (ratios) => sumOf(ratios) ** 2 / sumOf(ratios.map((r) => r * r));

/** Advantages of a batch: rewards with their noise, less their mean. */
export function advantagesOf(actions, luck, noise, goal) {
  const rewards = actions.map((a, i) => -((a - goal) ** 2) / 2 + noise * luck[i]);
  const mean = meanOf(rewards);
  return rewards.map((r) => r - mean);
}

/** μ and log s after 0, 1, … epochs of ascent on one batch; a gradient longer than 1 is shortened to 1. */
export function ascent(kind, { actions, advantages }, { clip_range: epsilon, learning_rate: rate }, epochs) {
  const n = actions.length;
  let [mean, logStd] = [0, 0];
  const path = [];
  for (let epoch = 0; epoch <= epochs; epoch++) {
    const policy = { mean, std: Math.exp(logStd) };
    const ratios = actions.map((a) => Math.exp(logRatio(a, policy)));
    const live = ratios.map((rho, i) => isLive(kind, rho, advantages[i], epsilon));
    const promised = meanOf(ratios.map((rho, i) => rho * advantages[i]));
    path.push({ ...policy, ratios, live, promised, kl: klOf(policy), largest: Math.max(...ratios), size: effectiveSize(ratios) });
    let [byMean, byLog] = [0, 0];
    actions.forEach((a, i) => {
      if (!live[i]) return;
      const z = (a - mean) / policy.std;
      byMean += (ratios[i] * advantages[i] * z) / policy.std / n;
      byLog += (ratios[i] * advantages[i] * (z * z - 1)) / n;
    });
    const step = rate / Math.max(1, Math.hypot(byMean, byLog));
    mean += step * byMean;
    logStd += step * byLog;
  }
  return path;
}

// --------------------------------------------------------------------------------------------------- plots

const KINDS = ["min", "alone", "none"];
const NAMES = { min: "minimum", alone: "clip alone", none: "no clip" };
const COLOURS = { min: BLUE, alone: ORANGE, none: VERMILION };
const [RATIOS, GAINS] = [[0, 2], [-1.5, 2.5]];
const ACTIONS = [-3.6, 3.6];

/** The clip's edges and the part where the objective is flat. */
function clipUnder(context, at, theme, { values: { clip_range: epsilon, advantage } }, name) {
  const { left, right, top, base } = at;
  const flat = "flat: no gradient";
  let middle = null;
  if (advantage) {
    const [from, to] = advantage > 0 ? [Math.min(at.x(1 + epsilon), right), right] : [left, Math.max(at.x(1 - epsilon), left)];
    area(context, [[from, top], [to, top], [to, base], [from, base]], { colour: theme.grid, alpha: 0.75 });
    context.font = theme.small;
    if (to - from > context.measureText(flat).width + 8) middle = (from + to) / 2;
  }
  axes(context, at, theme, { xName: "ratio ρ = π_θ / π_old", yName: name });
  for (const [x, text] of [[1 - epsilon, "1−ε"], [1, "1"], [1 + epsilon, "1+ε"]]) {
    if (x < RATIOS[0] || x > RATIOS[1]) continue;
    verticalAt(context, at, x, { colour: theme.reference, dash: [4, 3] });
    if (text !== "1") label(context, text, at.x(x), top + 7, { colour: theme.muted, align: "center", font: theme.small, halo: theme.background });
  }
  horizontalAt(context, at, 0, { colour: theme.muted });
  if (middle) label(context, flat, middle, base - 20, { colour: theme.muted, align: "center", font: theme.small });
}

/** The three objectives over ρ, or with `slope` their gradients by ρ. */
function clipOver(context, at, theme, { values }, slope) {
  const { advantage: A, clip_range: epsilon, ratio } = values;
  const height = (kind, rho) => (slope ? (isLive(kind, rho, A, epsilon) ? A : 0) : objective(kind, rho, A, epsilon));
  const styles = { none: { width: 1.5, dash: [2, 3] }, alone: { width: 2, dash: [6, 4] }, min: { width: 3 } };
  const grid = linSpace(...RATIOS, 401);
  inside(context, at, () => {
    for (const kind of ["none", "alone", "min"]) {
      line(context, grid.map((rho) => [at.x(rho), at.y(height(kind, rho))]), { colour: COLOURS[kind], ...styles[kind] });
    }
  });
  dot(context, at.x(ratio), at.y(height("min", ratio)), 7, BLUE, theme.background);
}

function lossUnder(context, at, theme, state) {
  clipUnder(context, at, theme, state, "L");
  legend(context, [["min(ρA, clip(ρ)A)", COLOURS.min], ["clip alone", COLOURS.alone], ["ρA", COLOURS.none]], at.left, 8, theme);
}

function clipCaption({ values: { ratio, advantage: A, clip_range: epsilon } }) {
  const side = ratio > 1 ? "more" : "less";
  const good = A > 0 ? "did well" : "did badly";
  if (!A) return "No better and no worse than expected: nothing to learn from this action.";
  if (!isLive("min", ratio, A, epsilon)) return `The action ${good} and is ${side} likely already, by more than ε: no reason to go on.`;
  if (!isLive("alone", ratio, A, epsilon)) return `The action ${good} and yet has become ${side} likely: the minimum keeps the gradient that leads back, the clip alone would drop it.`;
  return `Within 1 ± ε all three agree: the gradient is A = ${fixed(A, 2)}.`;
}

/** The batch's actions: their ratio now, on a log axis, and the policy's density below. */
function batchOver(context, at, theme, { values, batch, now }) {
  const { clip_range: epsilon } = values;
  const place = (rho) => at.y(clamp(rho, ...at.ranges.y));
  inside(context, at, () => {
    const [low, high] = [place(Math.max(1 - epsilon, at.ranges.y[0])), place(1 + epsilon)];
    area(context, [[at.left, low], [at.right, low], [at.right, high], [at.left, high]], { colour: GREEN, alpha: 0.14 });
    for (const [policy, colour] of [[{ mean: 0, std: 1 }, theme.reference], [now, COLOURS[values.objective]]]) {
      const tall = Math.min(26 / policy.std, 60);
      const xs = [...linSpace(...ACTIONS, 121), ...linSpace(policy.mean - 3 * policy.std, policy.mean + 3 * policy.std, 61)].sort((a, b) => a - b);
      const points = xs.map((a) => [at.x(a), at.base - tall * Math.exp(-(((a - policy.mean) / policy.std) ** 2) / 2)]);
      area(context, [[at.x(xs[0]), at.base], ...points, [at.x(xs[xs.length - 1]), at.base]], { colour, alpha: 0.3 });
    }
    line(context, linSpace(...ACTIONS, 321).map((a) => [at.x(a), at.y(Math.max(Math.exp(logRatio(a, now)), 1e-9))]), { colour: theme.muted, width: 1 });
  });
  batch.actions.forEach((a, i) => {
    const colour = batch.advantages[i] > 0 ? GREEN : PURPLE;
    const radius = 3 + 2.2 * Math.sqrt(Math.abs(batch.advantages[i]));
    const [x, y] = [at.x(a), place(now.ratios[i])];
    if (now.live[i]) dot(context, x, y, radius, colour, theme.background);
    else dot(context, x, y, radius - 1, theme.background, colour);
  });
}

/** What the batch promises and what is true, epoch by epoch; the bar is now. */
function epochsOver(context, at, theme, { values, paths, goal }) {
  const { objective: chosen, epoch } = values;
  inside(context, at, () => {
    for (const kind of KINDS) {
      const own = kind === chosen;
      const style = { colour: COLOURS[kind], width: own ? 3 : 1.5, alpha: own ? 1 : 0.55 };
      line(context, paths[kind].map((policy, e) => [at.x(e), at.y(gainOf(policy, goal))]), style);
      if (own) line(context, paths[kind].map(({ promised }, e) => [at.x(e), at.y(promised)]), { ...style, width: 2, dash: [5, 4] });
    }
  });
  verticalAt(context, at, epoch, { colour: theme.accent, width: 1.5 });
  dot(context, at.x(epoch), at.y(clamp(gainOf(paths[chosen][epoch], goal), ...GAINS)), 7, COLOURS[chosen], theme.background);
}

function epochsUnder(context, at, theme) {
  axes(context, at, theme, { xName: "epochs on this batch", yName: "gain over π_old" });
  const items = KINDS.map((kind) => [NAMES[kind], COLOURS[kind]]);
  legend(context, items, at.left, 8, theme);
  horizontalAt(context, at, 0, { colour: theme.muted });
}

function batchCaption({ values: { epoch, objective: chosen }, now, batch }) {
  const stopped = now.live.filter((live) => !live).length;
  const held = chosen === "none" ? "nothing stops it" : `${stopped} of ${batch.actions.length} are stopped by the clip (hollow)`;
  return `After ${epoch} ${epoch === 1 ? "epoch" : "epochs"}: ${held}; the largest ratio is ${short(now.largest)}. Green did better than the mean, pink worse; shaded: 1 ± ε.`;
}

function epochsCaption({ now, values: { objective: chosen }, goal }) {
  return `With ${chosen === "min" ? "the minimum" : NAMES[chosen]} the batch promises ${signed(now.promised)} (dashed), the truth is ${signed(gainOf(now, goal))} (solid).`;
}

// ----------------------------------------------------------------------------------------------------- view

const FORMULAS = {
  loss: [
    ["math", "L = min( ρA, clip(ρ, 1 − ε, 1 + ε)·A )"],
    ["note", "A: how much better than expected the action turned out. L is maximised and never above ρA."],
  ],
  slope: [["math", "∂L/∂ρ = A, or 0 where the clip holds"], ["math", "∇_θ ρ = ρ·∇_θ log π_θ(a|s)"]],
  batch: [
    ["math", "π_θ = N(μ, s²), π_old = N(0, 1); r(a) = −½(a − ½)² + noise"],
    ["note", "24 actions of π_old. A is the reward less the batch's mean. Density of π_old in grey, of π_θ in colour."],
  ],
  epochs: [
    ["math", "promised: mean of ρA over the batch"],
    ["math", "true: E_π_θ[r] − E_π_old[r]"],
    ["note", "Each epoch is one step of gradient ascent on all 24 actions; a gradient longer than 1 is shortened to 1, as PPO does."],
  ],
};

function render({ model, el }) {
  const batchOf = remembered((data, number, noise) => {
    const [actions, luck] = [data.actions[number - 1], data.luck[number - 1]];
    return { actions, advantages: advantagesOf(actions, luck, noise, data.goal) };
  });
  const pathsOf = remembered((data, batch, clip_range, learning_rate) =>
    Object.fromEntries(KINDS.map((kind) => [kind, ascent(kind, batch, { clip_range, learning_rate }, data.epochs)])));
  const dragRatio = (at, px) => ({ ratio: at.valueX(px) });
  const shape = ({ values: v }) => `${v.advantage} ${v.clip_range}`;
  const other = (s) => s.paths.none[s.values.epoch];
  const pair = (text) => ({ value: (s) => text(s.now, s), reference: (s) => text(other(s), s) });
  return stage({
    model, el,
    title: "The clip",
    note: "Drag the dot on the left; drag through the epochs on the right, or press ▶.",
    controls: (data) => [
      { name: "clip_range", label: "clip ε", step: 0.01 },
      { name: "advantage", label: "advantage A", step: 0.05 },
      { name: "ratio", label: "ratio ρ", step: 0.01 },
      { name: "objective", label: "the batch is trained with", kind: "select", options: [["min", "min(ρA, clip(ρ)A)"], ["alone", "clip(ρ)A alone"], ["none", "ρA, no clip"]] },
      { name: "epoch", label: "epochs", min: 0, max: data.epochs, step: 1, play: 20 },
      { name: "learning_rate", label: "step size", log: true },
      { name: "noise", label: "noise of the reward", step: 0.1 },
      { name: "batch", label: "batch", min: 1, max: data.actions.length, step: 1 },
    ],
    compute: (values, data) => {
      const batch = batchOf(data, values.batch, values.noise);
      const paths = pathsOf(data, batch, values.clip_range, values.learning_rate);
      return { values, batch, paths, now: paths[values.objective][values.epoch], goal: data.goal };
    },
    readoutCard: { title: "The batch now", columns: ["chosen", "no clip"] },
    readouts: [
      { label: "largest ρ", hint: "over the 24 actions", ...pair(({ largest }) => short(largest)) },
      { label: "worth", hint: "effective sample size: actions of π_θ that the 24 are worth", ...pair(({ size }) => fixed(size, 1)) },
      { label: "KL, nats", hint: "KL(π_old‖π_θ), exact", ...pair(({ kl }) => short(kl)) },
      { label: "promised", hint: "mean of ρA", ...pair(({ promised }) => signed(promised)) },
      { label: "true gain", hint: "exact", ...pair((policy, { goal }) => signed(gainOf(policy, goal))) },
      { label: "spread of π", hint: "standard deviation of π_θ: what it still tries", ...pair(({ std }) => fixed(std, 2)) },
    ],
    panels: [
      {
        name: "loss", title: "One action's objective", column: 0, formula: FORMULAS.loss, height: 250,
        layout: (size) => plotLayout(size, { x: RATIOS, y: [-4, 4], top: 22 }),
        under: lossUnder, over: (context, at, theme, state) => clipOver(context, at, theme, state, false),
        underKey: shape, drag: dragRatio, keys: ["ratio"], caption: clipCaption,
        aria: ({ values: v }) => `Objective at ratio ${fixed(v.ratio, 2)}, advantage ${fixed(v.advantage, 2)}: ${fixed(objective("min", v.ratio, v.advantage, v.clip_range), 2)}`,
      },
      {
        name: "slope", title: "Its gradient by ρ", column: 0, formula: FORMULAS.slope,
        layout: (size) => plotLayout(size, { x: RATIOS, y: [-2.4, 2.4] }),
        under: (context, at, theme, state) => clipUnder(context, at, theme, state, "∂L/∂ρ"),
        over: (context, at, theme, state) => clipOver(context, at, theme, state, true),
        underKey: shape, drag: dragRatio, keys: ["ratio"],
        caption: ({ values: { advantage: A } }) => (A
          ? "Blue is 0 on one side only; the clip alone (orange) is 0 on both, ρA (red) nowhere."
          : "A is 0, and so is the gradient, with the clip and without."),
        aria: ({ values: v }) => (isLive("min", v.ratio, v.advantage, v.clip_range) ? `Gradient ${fixed(v.advantage, 2)}` : "Gradient 0: clipped"),
      },
      {
        name: "batch", title: "24 actions of π_old, and their ratios now", column: 1, formula: FORMULAS.batch, height: 250,
        layout: (size) => plotLayout(size, { x: ACTIONS, y: [0.01, 100], logY: true, left: 48 }),
        under: (context, at, theme) => axes(context, at, theme, { xName: "action a", yName: "ratio ρ, log axis", xCount: 7 }),
        over: batchOver, underKey: () => "", caption: batchCaption,
        aria: ({ now }) => `Ratios of 24 actions; the largest is ${short(now.largest)}`,
      },
      {
        name: "epochs", title: "What the batch promises, and what is true", column: 1, formula: FORMULAS.epochs,
        layout: (size, { paths }) => plotLayout(size, { x: [0, paths.min.length - 1], y: GAINS, top: 26 }),
        under: epochsUnder, over: epochsOver, underKey: () => "",
        drag: (at, px, py, { paths }) => ({ epoch: clamp(Math.round(at.valueX(px)), 0, paths.min.length - 1) }), keys: ["epoch"],
        caption: epochsCaption,
        aria: ({ now, goal, values }) => `After ${values.epoch} epochs: promised ${signed(now.promised)}, true ${signed(gainOf(now, goal))}`,
      },
    ],
  });
}

export default { render };
