// The view of rlhflab.explore.importance.ImportanceExplorable: what can be said of a policy p from the actions of q.
//
// First the mathematics (pure, exported, tested under node against Python), then four plots, then what the stage is told.

import { BLUE, VERMILION, GREEN } from "../../static/colours.js";
import { clamp, countIn, fixed, linSpace, meanOf, percent, short, spreadOf, sumOf } from "../../static/numbers.js";
import { area, axes, dot, horizontalAt, inside, label, legend, line, plotLayout, verticalAt } from "./canvas.js";
import { remembered, stage } from "./stage.js";

// ---------------------------------------------------------------------------------------------- mathematics

/** The payload's noise, [repetitions × most] standard normal numbers in one Float64Array. */
export function noiseOf({ noise, unit }) {
  const bytes = Uint8Array.from(atob(noise), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float64Array.from({ length: bytes.length / 2 }, (_, i) => view.getInt16(2 * i, true) / unit);
}

/** log w(a) = log p(a) − log q(a). */
export const logWeight = (a, { mean, std, target_mean: mu, target_std: sigma }) =>
  (((a - mean) / std) ** 2 - ((a - mu) / sigma) ** 2) / 2 + Math.log(std / sigma);

/** E_q[w²] and the standard deviation of one sample's estimate; `thin`, where both are infinite, if σ² ≥ 2·s². */
export function momentsOf({ mean: m, std: s, target_mean: mu, target_std: sigma, normalised }) {
  const room = 2 * s * s - sigma * sigma;
  if (room <= 0) return { thin: true, second: Infinity, spread: Infinity };
  const second = ((s * s) / (sigma * Math.sqrt(room))) * Math.exp((mu - m) ** 2 / room);
  const centre = (2 * mu * s * s - m * sigma * sigma) / room; // of p²/q, a Gaussian
  const variance = (sigma * s) ** 2 / room;
  const square = normalised ? second * ((centre - mu) ** 2 + variance) : second * (centre * centre + variance) - mu * mu;
  return { thin: false, second, spread: Math.sqrt(Math.max(square, 0)) };
}

/** All estimates of E_p[a], each from the first `samples` numbers of its row of noise, and their effective sizes. */
export function estimatesOf(values, noise, repetitions, most) {
  const { mean, std, samples, normalised } = values;
  const estimates = [];
  const sizes = [];
  for (let row = 0; row < repetitions; row++) {
    let [sum, squares, weighted] = [0, 0, 0];
    for (let i = 0; i < samples; i++) {
      const a = mean + std * noise[row * most + i];
      const w = Math.exp(logWeight(a, values));
      sum += w;
      squares += w * w;
      weighted += w * a;
    }
    estimates.push(weighted / (normalised ? sum : samples));
    sizes.push((sum * sum) / squares);
  }
  return { estimates, sizes };
}

// --------------------------------------------------------------------------------------------------- plots

const TARGET = VERMILION;
const BEHAVIOUR = BLUE;
const ACTIONS = [-6, 6];
const GRID = linSpace(...ACTIONS, 241);
const PEAK = Math.sqrt(2 * Math.PI);
const BINS = 40;
const density = (a, mean, std) => Math.exp(-(((a - mean) / std) ** 2) / 2) / (std * PEAK);
const policies = ({ values: v }) => [["target", v.target_mean, v.target_std, TARGET], ["behaviour", v.mean, v.std, BEHAVIOUR]];

/** Both densities, and the first estimate's actions below, their area their weight. */
function policiesOver(context, at, theme, state) {
  for (const [, mean, std, colour] of policies(state)) {
    const curve = GRID.map((a) => [at.x(a), at.y(density(a, mean, std))]);
    area(context, [[at.left, at.base], ...curve, [at.right, at.base]], { colour, alpha: theme.dark ? 0.22 : 0.12 });
    line(context, curve, { colour, width: 2.5 });
  }
  for (const { a, share } of state.first) {
    context.globalAlpha = 0.55;
    if (Math.abs(a) <= 6) dot(context, at.x(a), at.base, 2.2 * Math.sqrt(share), BEHAVIOUR);
    context.globalAlpha = 1;
  }
  for (const [, mean, std, colour] of policies(state)) dot(context, at.x(mean), at.y(density(mean, mean, std)), 7, colour, theme.background);
}

function dragPolicy(at, px, py, state, grip) {
  if (!grip.held) {
    const far = policies(state).map(([name, mean, std]) => [Math.hypot(at.x(mean) - px, at.y(density(mean, mean, std)) - py), name]);
    grip.held = far.sort(([a], [b]) => a - b)[0][1];
  }
  const std = 1 / (PEAK * Math.max(at.valueY(py), 1e-3));
  return grip.held === "target" ? { target_mean: at.valueX(px), target_std: std } : { mean: at.valueX(px), std };
}

/** w(a) on a log axis, with the first estimate's actions on the curve. */
function weightsOver(context, at, theme, { values, first }) {
  inside(context, at, () => {
    line(context, GRID.map((a) => [at.x(a), at.y(Math.exp(logWeight(a, values)))]), { colour: theme.ink, width: 2 });
    for (const { a, w, share } of first) dot(context, at.x(a), at.y(w), clamp(2.2 * Math.sqrt(share), 1.5, 14), BEHAVIOUR);
  });
}

/** The estimates' histogram around the exact value, and what samples of p itself would give. */
function spreadOver(context, at, theme, { values, counted, moments }) {
  const { counts, below, above } = counted;
  const width = (at.right - at.left) / BINS;
  context.fillStyle = BEHAVIOUR;
  counts.forEach((count, i) => {
    const top = Math.max(at.y(count), at.top);
    context.fillRect(at.left + i * width + 0.5, top, width - 1, at.base - top);
  });
  const { target_mean: mu, target_std: sigma, samples } = values;
  const own = (x) => 200 * ((at.ranges.x[1] - at.ranges.x[0]) / BINS) * density(x, mu, sigma / Math.sqrt(samples));
  inside(context, at, () => line(context, linSpace(...at.ranges.x, 161).map((x) => [at.x(x), at.y(own(x))]), { colour: TARGET, width: 2, dash: [5, 4] }));
  verticalAt(context, at, mu, { colour: theme.ink, width: 1.5, dash: [3, 3] });
  const half = moments.spread / Math.sqrt(samples);
  const y = at.top + 8;
  const [from, to] = [clamp(at.x(mu - half), at.left, at.right), clamp(at.x(mu + half), at.left, at.right)];
  line(context, [[from, y], [to, y]], { colour: theme.accent, width: 3 });
  for (const [count, x, align] of [[below, at.left + 4, "left"], [above, at.right - 4, "right"]]) {
    if (count) label(context, align === "left" ? `← ${count}` : `${count} →`, x, at.base - 9, { colour: theme.text, align, font: `bold 11px ${theme.font}`, halo: theme.background });
  }
}

/** Effective sample size over all q, for the present p; q is the dot. */
function mapUnder(context, at, theme, { values }) {
  const [columns, rows] = [72, 44];
  const [w, h] = [(at.right - at.left) / columns, (at.base - at.top) / rows];
  for (let i = 0; i < columns; i++) {
    for (let j = 0; j < rows; j++) {
      const [px, py] = [at.left + (i + 0.5) * w, at.top + (j + 0.5) * h];
      const { thin, second } = momentsOf({ ...values, mean: at.valueX(px), std: at.valueY(py) });
      context.globalAlpha = thin ? 0.28 : 0.06 + 0.84 / second;
      context.fillStyle = thin ? VERMILION : GREEN;
      const [x, y] = [Math.round(at.left + i * w), Math.round(at.top + j * h)]; // whole pixels leave no seams
      context.fillRect(x, y, Math.round(at.left + (i + 1) * w) - x, Math.round(at.top + (j + 1) * h) - y);
    }
  }
  context.globalAlpha = 1;
  axes(context, at, theme, { xName: "mean of q", yName: "standard deviation of q", xCount: 6, yTicks: [0.5, 0.7, 1, 1.5, 2, 3] });
  const edge = values.target_std / Math.SQRT2;
  if (edge > 0.53) {
    const y = at.y(edge);
    line(context, [[at.left, y], [at.right, y]], { colour: VERMILION, width: 1.5, dash: [4, 3] });
    label(context, "infinite variance", at.right - 6, Math.min(y + 11, at.base - 7), { colour: theme.text, align: "right", font: theme.small, halo: theme.background });
  }
}

function mapOver(context, at, theme, { values }) {
  dot(context, at.x(values.target_mean), at.y(values.target_std), 5, TARGET, theme.background);
  dot(context, at.x(values.mean), at.y(values.std), 7, BEHAVIOUR, theme.background);
}

// ----------------------------------------------------------------------------------------------------- view

const FORMULAS = {
  policies: [
    ["math", "E_p[R] = ∫ p(a)·R(a) da = ∫ q(a)·w(a)·R(a) da = E_q[w·R]"],
    ["note", "The reward of action a is a itself: the exact answer is the mean of p."],
  ],
  weights: [
    ["math", "w(a) = p(a) / q(a),   E_q[w] = 1"],
    ["note", "Where q never goes and p does, a rare action has to stand for many."],
  ],
  spread: [
    ["math", "ordinary: 1/n · Σ w·a     normalised: Σ w·a / Σ w"],
    ["math", "variance: (E_q[w²·a²] − μ²)/n     E_q[w²·(a − μ)²]/n"],
    ["note", "The normalised estimate has a bias that vanishes with n; its variance is to first order in 1/n."],
  ],
  map: [
    ["math", "ESS = (Σw)²/Σw² ≈ n / E_q[w²] for large n"],
    ["math", "E_q[w²] = s²/(σ·√(2s² − σ²)) · exp((μ − m)²/(2s² − σ²))"],
    ["note", "p = N(μ, σ²), q = N(m, s²). For σ² ≥ 2s² the integral is infinite: the tails of q are too thin."],
  ],
};

function computed(values, data, noise) {
  const { estimates, sizes } = estimatesOf(values, noise, data.repetitions, data.most);
  const first = Array.from({ length: values.samples }, (_, i) => {
    const a = values.mean + values.std * noise[i];
    return { a, w: Math.exp(logWeight(a, values)) };
  });
  const total = sumOf(first.map(({ w }) => w));
  for (const each of first) each.share = (each.w / total) * first.length; // 1 where all count alike
  const mu = values.target_mean;
  return {
    values, estimates, first, moments: momentsOf(values), size: meanOf(sizes),
    counted: countIn(estimates, mu - 2, mu + 2, BINS), mean: meanOf(estimates), sd: spreadOf(estimates),
  };
}

function spreadCaption({ values, moments: { spread }, mean, sd }) {
  const { samples } = values;
  const known = `in theory ${fixed(spread / Math.sqrt(samples), 2)} (bar)`;
  return `Each of 200 estimates is from ${samples} actions of q: mean ${fixed(mean, 2)}, exact ${fixed(values.target_mean, 2)}; standard deviation ${fixed(sd, 2)}, ${known}. Dashed: with as many actions of p.`;
}

function mapCaption({ values, moments: { thin, second }, size }) {
  const n = values.samples;
  if (thin) return `q is narrower than σ/√2: the variance is infinite. The measured size, ${fixed(size, 1)} of ${n}, cannot show it: the weights that matter have not been drawn.`;
  return `${n} actions of q are equivalent to ${fixed(n / second, 1)} of p; measured ${fixed(size, 1)}. Green: many.`;
}

function render({ model, el }) {
  const noise = remembered((data) => noiseOf(data));
  const frame = (size, y, rest) => plotLayout(size, { x: ACTIONS, y, ...rest });
  return stage({
    model, el,
    title: "Importance sampling",
    note: "Drag the dots: sideways moves a policy, up and down makes it narrow or wide.",
    controls: [
      { name: "target_mean", label: "mean of p", step: 0.01 },
      { name: "target_std", label: "spread of p", log: true },
      { name: "mean", label: "mean of q", step: 0.01 },
      { name: "std", label: "spread of q", log: true },
      { name: "samples", label: "actions, n", min: 2, max: 100, step: 1 },
      { name: "normalised", label: "divide by Σw, not by n", kind: "toggle" },
    ],
    compute: (values, data) => computed(values, data, noise(data)),
    readoutCard: { title: "Measured and exact", columns: ["200 times", "exact"] },
    readouts: [
      { label: "E_p[R]", hint: "mean of the estimates, and the mean of p", value: (s) => fixed(s.mean, 2), reference: (s) => fixed(s.values.target_mean, 2) },
      { label: "its spread", hint: "standard deviation of an estimate", value: (s) => fixed(s.sd, 2), reference: (s) => fixed(s.moments.spread / Math.sqrt(s.values.samples), 2) },
      { label: "ESS", hint: "mean of (Σw)²/Σw², and n/E_q[w²]", value: (s) => fixed(s.size, 1), reference: (s) => fixed(s.values.samples / s.moments.second, 1) },
      { label: "E_q[w²]", hint: "1 where p and q are the same", value: () => "", reference: (s) => short(s.moments.second) },
    ],
    panels: [
      {
        name: "policies", title: "Target p and behaviour q", column: 0, formula: FORMULAS.policies, height: 230,
        layout: (size) => frame(size, [0, 0.85], { top: 22 }),
        under: (context, at, theme) => {
          axes(context, at, theme, { xName: "action a = its reward", xCount: 7 });
          legend(context, [["target p", TARGET], ["behaviour q: actions by weight", BEHAVIOUR]], at.left, 8, theme);
        },
        over: policiesOver, underKey: () => "", drag: dragPolicy, keys: ["mean", "std"],
        caption: "The actions come from q; those that p likes better count for more.",
        aria: ({ values: v }) => `Densities: p has mean ${short(v.target_mean)} and standard deviation ${short(v.target_std)}, q ${short(v.mean)} and ${short(v.std)}`,
      },
      {
        name: "weights", title: "Weights w = p/q", column: 0, formula: FORMULAS.weights,
        layout: (size) => frame(size, [0.01, 100], { logY: true }),
        under: (context, at, theme) => {
          axes(context, at, theme, { xName: "action a", yName: "w(a), log axis", xCount: 7 });
          horizontalAt(context, at, 1, { colour: theme.muted });
        },
        over: weightsOver, underKey: () => "",
        caption: ({ first }) => `The largest of the first estimate's ${first.length} weights has ${percent(Math.max(...first.map(({ share }) => share)) / first.length)} of their sum.`,
        aria: ({ moments }) => `Weights; their second moment is ${short(moments.second)}`,
      },
      {
        name: "spread", title: "200 estimates of E_p[R]", column: 1, formula: FORMULAS.spread, height: 230,
        layout: (size, { values: { target_mean: mu } }) => plotLayout(size, { x: [mu - 2, mu + 2], y: [0, 80] }),
        under: (context, at, theme) => axes(context, at, theme, { xName: "estimate", yName: "how many of 200" }),
        over: spreadOver, underKey: ({ values }) => values.target_mean,
        caption: spreadCaption,
        aria: ({ mean, sd }) => `Histogram of the estimates: mean ${fixed(mean, 2)}, standard deviation ${fixed(sd, 2)}`,
      },
      {
        name: "map", title: "Effective sample size, for every q", column: 1, formula: FORMULAS.map,
        layout: (size) => plotLayout(size, { x: [-3, 3], y: [0.5, 3], logY: true }),
        under: mapUnder, over: mapOver, underKey: ({ values: v }) => `${v.target_mean} ${v.target_std}`,
        drag: (at, px, py) => ({ mean: at.valueX(px), std: at.valueY(py) }), keys: ["mean", "std"],
        caption: mapCaption,
        aria: ({ values, moments }) => `Effective sample size: ${short(values.samples / moments.second)} of ${values.samples}`,
      },
    ],
  });
}

export default { render };
