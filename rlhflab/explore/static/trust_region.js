// The view of rlhflab.explore.TrustRegionExplorable: one policy-gradient step in the plane of its parameters and in the
// square of its policies.
//
// First the mathematics (pure, exported, tested under node against Python), then the four plots, then what the stage is
// told.
//
// A policy is two logits: of staying in A and in B. θ are the parameters, logits = M·θ.

import { BLUE, VERMILION, GREEN, ORANGE, PURPLE } from "../../static/colours.js";
import { clamp, fixed, linSpace, percent, short, signed } from "../../static/numbers.js";
import { area, arrow, axes, contour, dot, horizontalAt, inside, legend, line, notation, plotLayout, verticalAt } from "./canvas.js";
import { stage } from "./stage.js";

// ---------------------------------------------------------------------------------------------- mathematics

export const sigmoid = (z) => 1 / (1 + Math.exp(-z));
const logSigmoid = (z) => (z < 0 ? z - Math.log1p(Math.exp(z)) : -Math.log1p(Math.exp(-z)));
const times = ([[a, b], [c, d]], [x, y]) => [a * x + b * y, c * x + d * y];
const turned = ([[a, b], [c, d]]) => [[a, c], [b, d]];
export function inverse([[a, b], [c, d]]) {
  const det = a * d - b * c;
  return [[d / det, -b / det], [-c / det, a / det]];
}
const along = ([x, y], [dx, dy], share) => [x + share * dx, y + share * dy];

/** Exact values of the policy with these probabilities of staying: {objective, visits, preference}, as two_states.evaluate. */
export function exact([a, b], { gamma, start, pay }) {
  const det = (1 - gamma) * (1 - gamma * (a + b - 1)); // of I − γP
  const [ra, rb] = [a * pay[0], b * pay[1]];
  const va = ((1 - gamma * b) * ra + gamma * (1 - a) * rb) / det;
  const vb = (gamma * (1 - b) * ra + (1 - gamma * a) * rb) / det;
  const da = ((1 - gamma) * ((1 - gamma * b) * start[0] + gamma * (1 - b) * start[1])) / det;
  return {
    objective: (1 - gamma) * (start[0] * va + start[1] * vb),
    visits: [da, 1 - da],
    preference: [pay[0] + gamma * (va - vb), pay[1] + gamma * (vb - va)],
  };
}

/** Σ_s d(s)·KL(π_old(·|s)‖π_new(·|s)), nats a step; `old` and `other` are logits, `visits` those of `old`. */
export function meanKl(old, other, visits) {
  const of = (z, w) => sigmoid(z) * (logSigmoid(z) - logSigmoid(w)) + sigmoid(-z) * (logSigmoid(-z) - logSigmoid(-w));
  return visits[0] * of(old[0], other[0]) + visits[1] * of(old[1], other[1]);
}

/** Σ_s d_old(s) Σ_a π_new(a|s)·A_old(s,a). */
export function surrogateGain(stay, other, { visits, preference }) {
  return [0, 1].reduce((sum, s) => sum + visits[s] * (other[s] - stay[s]) * preference[s], 0);
}

/**
 * TRPO's step from these logits, and the plain gradient's to the border of the same ellipse. Steps are in logits;
 * `matrix` leads from θ to logits. A share of a step is one of 0.8⁰, 0.8¹, …; null where none of `tries` was accepted.
 */
export function stepFrom(logits, maxKl, matrix, problem) {
  const stay = logits.map(sigmoid);
  const found = exact(stay, problem);
  const fisher = [0, 1].map((s) => found.visits[s] * stay[s] * (1 - stay[s])); // of the logits: diagonal
  const gradient = fisher.map((f, s) => f * found.preference[s]);
  const ends = (direction) => {
    const curvature = fisher[0] * direction[0] ** 2 + fisher[1] * direction[1] ** 2;
    const scale = curvature > 0 ? Math.sqrt((2 * maxKl) / curvature) : 0;
    const step = direction.map((x) => x * scale);
    const at = (share) => {
      const end = along(logits, step, share);
      const [gain, kl] = [surrogateGain(stay, end.map(sigmoid), found), meanKl(logits, end, found.visits)];
      return { share, end, gain, kl, accepted: gain > 0 && kl <= maxKl };
    };
    return { step, scale, at, predicted: gradient[0] * step[0] + gradient[1] * step[1] };
  };
  const natural = ends(found.preference); // H⁻¹g: the Fisher matrix takes itself away
  const plain = ends(times(matrix, times(turned(matrix), gradient)));
  const trials = [];
  for (let k = 0; k < problem.tries && !trials.at(-1)?.accepted; k++) trials.push(natural.at(0.8 ** k));
  const taken = trials.at(-1).accepted ? trials.at(-1) : natural.at(0);
  return { logits, stay, ...found, fisher, gradient, natural, plain, trials, taken, lambda: natural.scale > 0 ? 1 / natural.scale : 0 };
}

/** The borders of KL ≤ δ and of its quadratic approximation, as logits. The region is convex: one border on every ray. */
export function borders({ logits, visits, fisher }, maxKl, count = 96) {
  const ball = [];
  const ellipse = [];
  for (let i = 0; i <= count; i++) {
    const angle = (2 * Math.PI * i) / count;
    const ray = [Math.cos(angle), Math.sin(angle)].map((part, s) => part * Math.sqrt((2 * maxKl) / Math.max(fisher[s], 1e-9)));
    ellipse.push(along(logits, ray, 1));
    let [low, high] = [0, 1];
    while (meanKl(logits, along(logits, ray, high), visits) < maxKl && high < 1e4) [low, high] = [high, 2 * high];
    for (let k = 0; k < 40; k++) {
      const middle = (low + high) / 2;
      if (meanKl(logits, along(logits, ray, middle), visits) < maxKl) low = middle;
      else high = middle;
    }
    ball.push(along(logits, ray, high));
  }
  return { ball, ellipse };
}

/** Where `count` steps lead, each with KL ≤ δ: by the natural gradient, or by the plain one with the same line search. */
export function pathFrom(logits, maxKl, matrix, problem, kind, count = 60) {
  const path = [logits];
  for (let n = 0; n < count; n++) {
    const step = stepFrom(path.at(-1), maxKl, matrix, problem);
    let taken = step.taken;
    if (kind === "plain") {
      taken = Array.from({ length: problem.tries }, (_, k) => step.plain.at(0.8 ** k)).find((trial) => trial.accepted);
    }
    if (!taken || !(taken.gain > 1e-9) || Math.max(...taken.end.map(Math.abs)) > 30) break;
    path.push(taken.end);
  }
  return path;
}

// --------------------------------------------------------------------------------------------------- plots

const [TRPO, PLAIN, REGION] = [GREEN, VERMILION, ORANGE];
const VIEW = 5; // θ is shown from −5 to 5
const CELLS = 60;
const LEVELS = linSpace(0.1, 1.8, 18);
const logit = (p) => Math.log(p / (1 - p));

/** A square plot in the middle of what room there is. */
function squareLayout({ width, height }, range) {
  const side = Math.min(width - 64, height - 58);
  const left = 46 + (width - 64 - side) / 2;
  const at = plotLayout({ width, height }, { x: range, y: range, left, right: width - left - side, top: 24, bottom: height - 24 - side });
  return { ...at, foot: at.base + 25 };
}

/** The landscape: shade and level lines of J, or of the surrogate, where `stayAt` are the probabilities at a point. */
function landscape(context, at, theme, stayAt, { surrogate, now, problem }) {
  const [low, high] = at.ranges.x;
  const grid = linSpace(low, high, CELLS + 1);
  const value = surrogate
    ? (stay) => now.objective + surrogateGain(now.stay, stay, now)
    : (stay) => exact(stay, problem).objective;
  const values = grid.map((y) => grid.map((x) => value(stayAt([x, y]))));
  const shade = document.createElement("canvas");
  [shade.width, shade.height] = [CELLS + 1, CELLS + 1];
  const image = new ImageData(CELLS + 1, CELLS + 1);
  values.forEach((row, j) => row.forEach((v, i) => {
    image.data.set([0, 114, 178, 150 * clamp(v / 1.84, 0, 1)], 4 * ((CELLS - j) * (CELLS + 1) + i));
  }));
  shade.getContext("2d").putImageData(image, 0, 0);
  const half = (at.right - at.left) / CELLS / 2; // the outer pixels stand on the edge
  inside(context, at, () => {
    context.drawImage(shade, at.left - half, at.top - half, at.right - at.left + 2 * half, at.base - at.top + 2 * half);
    const scale = (high - low) / CELLS;
    for (const level of LEVELS) {
      context.beginPath();
      for (const [x0, y0, x1, y1] of contour(values, level)) {
        context.moveTo(at.x(low + x0 * scale), at.y(low + y0 * scale));
        context.lineTo(at.x(low + x1 * scale), at.y(low + y1 * scale));
      }
      context.strokeStyle = theme.ink;
      context.globalAlpha = 0.22;
      context.lineWidth = 1;
      context.stroke();
      context.globalAlpha = 1;
    }
  });
}

/** Circles of one size, wherever they are in the plane of θ. */
const CIRCLES = [-4, -2, 0, 2, 4].flatMap((x) => [-4, -2, 0, 2, 4].map((y) =>
  linSpace(0, 2 * Math.PI, 49).map((angle) => [x + 0.45 * Math.cos(angle), y + 0.45 * Math.sin(angle)])));

/** What both planes show; `place` leads from logits to pixels. */
function steps(context, at, theme, place, { now, ball, ellipse, paths }) {
  const tip = (logits) => place(logits);
  inside(context, at, () => {
    area(context, ball.map(place), { colour: REGION, alpha: theme.dark ? 0.35 : 0.28 });
    line(context, ball.map(place), { colour: REGION, width: 2 });
    line(context, ellipse.map(place), { colour: theme.ink, width: 1.5, dash: [5, 4] });
    for (const [path, colour] of paths) {
      line(context, path.map(place), { colour, width: 1.5, alpha: 0.9 });
      for (const point of path) dot(context, ...tip(point), 2, colour);
    }
    for (const [{ at: share }, colour] of [[now.plain, PLAIN], [now.natural, TRPO]]) {
      const curve = linSpace(0, 1, 13).map((s) => tip(share(s).end)); // in the square of policies a step is bent
      line(context, curve, { colour: theme.background, width: 5, alpha: 0.7 });
      line(context, curve.slice(0, -1), { colour, width: 2.5 });
      arrow(context, curve.at(-2), curve.at(-1), { colour, width: 2.5 });
    }
    for (const { end } of now.trials) dot(context, ...tip(end), 3.5, theme.background, TRPO);
    if (now.taken.share > 0) dot(context, ...tip(now.taken.end), 5, TRPO, theme.background);
    dot(context, ...tip(now.logits), 6, theme.ink, theme.background);
  });
}

const thetaLayout = (size) => squareLayout(size, [-VIEW, VIEW]);
const policyLayout = (size) => squareLayout(size, [0, 1]);

function thetaUnder(context, at, theme, state) {
  axes(context, at, theme, { xName: "θ_1", xCount: 5, yCount: 5 });
  notation(context, "θ_2", at.left - 30, at.top + 12, { colour: theme.muted, family: theme.font });
  landscape(context, at, theme, (theta) => times(state.matrix, theta).map(sigmoid), state);
  const key = [["KL ≤ δ", REGION], ["natural gradient", TRPO], ["plain gradient", PLAIN]];
  legend(context, key, 4, 8, theme);
  if (!state.circles) return;
  inside(context, at, () => {
    for (const circle of CIRCLES) line(context, circle.map(([x, y]) => [at.x(x), at.y(y)]), { colour: PURPLE, width: 1.5 });
  });
}

function policyUnder(context, at, theme, state) {
  axes(context, at, theme, { xName: "π(stay | A)", xTicks: linSpace(0, 1, 6), yTicks: linSpace(0, 1, 6) });
  landscape(context, at, theme, (stay) => stay, state);
  notation(context, "π(stay | B)", at.left, at.top - 9, { colour: theme.muted, family: theme.font });
  if (!state.circles) return;
  inside(context, at, () => {
    for (const circle of CIRCLES) {
      const image = circle.map((theta) => times(state.matrix, theta).map(sigmoid)).map(([x, y]) => [at.x(x), at.y(y)]);
      line(context, image, { colour: PURPLE, width: 1.5 });
    }
  });
}

const inTheta = (at, { back }) => (logits) => {
  const [x, y] = times(back, logits);
  return [at.x(x), at.y(y)];
};
const inPolicies = (at) => (logits) => [at.x(sigmoid(logits[0])), at.y(sigmoid(logits[1]))];

/** λ against δ: λ = √(gᵀH⁻¹g / 2δ), a straight line on two log axes. */
function lambdaLayout(size, { range, lambdas }) {
  return plotLayout(size, { x: range, y: lambdas, logX: true, logY: true, left: 46, top: 16 });
}

function lambdaUnder(context, at, theme) {
  axes(context, at, theme, { xName: "δ, nats a step", xTicks: [0.001, 0.01, 0.1, 0.5], yName: "λ, gain per nat" });
}

function lambdaOver(context, at, theme, { now, maxKl, range }) {
  if (!(now.lambda > 0)) return;
  const lambda = (delta) => now.lambda * Math.sqrt(maxKl / delta);
  inside(context, at, () => line(context, range.map((d) => [at.x(d), at.y(lambda(d))]), { colour: theme.ink, width: 2 }));
  line(context, [[at.x(maxKl), at.y(now.lambda)], [at.x(maxKl), at.base]], { colour: theme.accent, dash: [4, 3] });
  dot(context, at.x(maxKl), at.y(now.lambda), 6, theme.accent, theme.background);
}

/** Gain against δ: what the quadratic model promises, what surrogate and J give; the tangent has slope λ. */
function gainLayout(size, { end, top }) {
  return plotLayout(size, { x: [0, end], y: [-0.15 * top, top], left: 46, top: 24 });
}

const GAINS = [["predicted g·x", null], ["surrogate", BLUE], ["J", PURPLE]];

function gainUnder(context, at, theme) {
  axes(context, at, theme, { xName: "δ, nats a step", yCount: 4 });
  horizontalAt(context, at, 0, { colour: theme.muted });
  legend(context, GAINS.map(([name, colour]) => [name, colour ?? theme.ink]), 46, 10, theme);
}

function gainOver(context, at, theme, { now, maxKl, end, promised, curve }) {
  const place = ([delta, gain]) => [at.x(delta), at.y(gain)];
  const tangent = [0, end].map((delta) => place([delta, promised(maxKl) + now.lambda * (delta - maxKl)]));
  inside(context, at, () => {
    line(context, curve.map(([delta]) => place([delta, promised(delta)])), { colour: theme.ink, width: 2, dash: [6, 4] });
    line(context, curve.map(([delta, , j]) => place([delta, j])), { colour: PURPLE, width: 2.5 });
    line(context, curve.map(([delta, surrogate]) => place([delta, surrogate])), { colour: BLUE, width: 2.5 });
    line(context, tangent, { colour: theme.accent, width: 1.5 });
  });
  verticalAt(context, at, maxKl, { colour: theme.accent, dash: [4, 3] });
  inside(context, at, () => dot(context, ...place([maxKl, promised(maxKl)]), 6, theme.accent, theme.background));
}

// ----------------------------------------------------------------------------------------------------- view

const TRUST_FORMULAS = {
  theta: [
    ["math", "g = ∇_θ J,   H = Σ_s d(s) E_{a∼π}[∇log π(a|s) ∇log π(a|s)ᵀ]"],
    ["math", "ellipse: ½ (θ′−θ)ᵀH(θ′−θ) = δ,   filled: Σ_s d(s) KL(π_θ(·|s)‖π_θ′(·|s)) ≤ δ"],
    ["math", "natural gradient: √(2δ / gᵀH⁻¹g) H⁻¹g,   plain: √(2δ / gᵀHg) g"],
    ["note", "Rings: the tries of the line search. Filled: the first with a gain > 0 and a true KL ≤ δ."],
  ],
  policy: [
    ["math", "π(stay|A) = σ(logit of A),   π(stay|B) = σ(logit of B)"],
    ["note", "The same policies, regions and steps as in the plane of θ. What does not depend on how the policy is written stays where it is when you choose other parameters."],
  ],
  lambda: [
    ["math", "max_x  g·x − λ(½ xᵀHx − δ)   ⇒   x = H⁻¹g / λ"],
    ["math", "½ xᵀHx = δ   ⇒   λ = √(gᵀH⁻¹g / 2δ)"],
    ["note", "λ is what one more nat of KL would gain."],
  ],
  gain: [
    ["math", "predicted: g·x = √(2δ gᵀH⁻¹g),   its slope: λ"],
    ["math", "surrogate: Σ_s d_old(s) Σ_a π_new(a|s) A_old(s,a),   J: exact, with the new policy's own d(s)"],
    ["note", "Along the full step for each δ, without a line search."],
  ],
};

/** The end of the δ axis, and the height of the gain axis: they move in steps, so that a drag is seen. */
const stepped = (value) => [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2].find((end) => value <= end) ?? 2;

function trustState({ logit_a: a, logit_b: b, max_kl: maxKl, parameters, landscape: shown, circles, paths }, data) {
  const { problem, matrices, ranges } = data;
  const matrix = matrices[parameters];
  const now = stepFrom([a, b], maxKl, matrix, problem);
  const end = stepped(2.5 * maxKl);
  const promised = (delta) => now.natural.predicted * Math.sqrt(delta / maxKl);
  const curve = linSpace(0, 1, 61).map((root) => {
    const { end: logits, gain } = now.natural.at(root * Math.sqrt(end / maxKl));
    return [root * root * end, gain, exact(logits.map(sigmoid), problem).objective - now.objective];
  });
  const walks = paths ? [["plain", PLAIN], ["natural", TRPO]] : [];
  return {
    problem, matrix, back: inverse(matrix), parameters, maxKl, now, circles, surrogate: shown === "surrogate",
    ...borders(now, maxKl), promised, curve, end, top: stepped(1.2 * Math.max(promised(end), 1e-3)),
    range: ranges.max_kl, lambdas: [0.01, 100],
    paths: walks.map(([kind, colour]) => [pathFrom([a, b], maxKl, matrix, problem, kind), colour]),
  };
}

const underOf = ({ parameters, circles, surrogate, now }) =>
  `${parameters} ${circles} ${surrogate ? now.logits : ""}`;
const logitsAt = ([a, b]) => ({ logit_a: a, logit_b: b });
const gainOfJ = ({ now, problem }, trial) => exact(trial.end.map(sigmoid), problem).objective - now.objective;

function regionCaption({ now, maxKl }) {
  const over = now.natural.at(1).kl / maxKl;
  const tries = now.trials.length;
  const word = over > 1.005 ? "more than" : over < 0.995 ? "less than" : "just what";
  const search = !(now.taken.share > 0) ? "No try of the line search is accepted." : tries === 1
    ? "The full step is taken." : `Accepted at the ${tries}${["th", "st", "nd", "rd"][tries] ?? "th"} try.`;
  return `J = ${fixed(now.objective)}; ${percent(now.visits[1])} of the time in B. The full step's true KL is ${fixed(over, 2)}·δ: ` +
    `${word} the dashed ellipse says. ${search}`;
}

function policyCaption({ surrogate, circles }) {
  if (circles) return "The circles have one size in θ. Near the edges a step of that size changes next to nothing.";
  return surrogate
    ? "The surrogate is linear in π: its level lines are straight and parallel, and right at the dot only."
    : "Level lines: exact J. Choose other parameters: what moves here depends on how the policy is written.";
}

function render({ model, el }) {
  return stage({
    model, el, title: "Trust region",
    note: "Drag the dot in either plane.",
    controls: [
      { name: "logit_a", label: "logit of A", kind: "hidden" },
      { name: "logit_b", label: "logit of B", kind: "hidden" },
      { name: "max_kl", label: "max KL δ", log: true, ticks: [0.001, 0.01, 0.1, 0.5] },
      {
        name: "parameters", label: "Parameters", kind: "select",
        options: [["separate", "θ₁ for A, θ₂ for B"], ["stretched", "θ₁ for A, 3θ₂ for B"], ["mixed", "2θ₁+θ₂ for A, θ₁+2θ₂ for B"]],
      },
      { name: "landscape", label: "Level lines", kind: "select", options: [["J", "J, exact"], ["surrogate", "surrogate at θ"]] },
      { name: "circles", label: "equal circles in θ", kind: "toggle" },
      { name: "paths", label: "paths of 60 steps", kind: "toggle" },
    ],
    compute: trustState,
    readoutCard: { title: "The step", columns: ["TRPO", "plain"], caption: "TRPO: after its line search. Plain: to the ellipse, no line search." },
    readouts: [
      { label: "pred. KL", hint: "½xᵀHx, nats a step", value: (s) => fixed(s.now.taken.share ** 2 * s.maxKl, 4), reference: (s) => fixed(s.maxKl, 4) },
      { label: "true KL", hint: "nats a step", value: (s) => fixed(s.now.taken.kl, 4), reference: (s) => fixed(s.now.plain.at(1).kl, 4) },
      { label: "pred. gain", hint: "g·x", value: (s) => fixed(s.now.taken.share * s.now.natural.predicted), reference: (s) => fixed(s.now.plain.predicted) },
      { label: "surrogate", hint: "its gain", value: (s) => signed(s.now.taken.gain, 3), reference: (s) => signed(s.now.plain.at(1).gain, 3) },
      { label: "gain in J", value: (s) => signed(gainOfJ(s, s.now.taken), 3), reference: (s) => signed(gainOfJ(s, s.now.plain.at(1)), 3) },
      { label: "share", hint: "of the full step", value: (s) => short(s.now.taken.share), reference: () => "1" },
    ],
    panels: [
      {
        name: "theta", title: "In parameters: the plane of θ", column: 0, height: 390, formula: TRUST_FORMULAS.theta,
        layout: thetaLayout, under: thetaUnder, underKey: underOf,
        over: (context, at, theme, state) => steps(context, at, theme, inTheta(at, state), state),
        drag: (at, px, py, { matrix }) => logitsAt(times(matrix, [at.valueX(px), at.valueY(py)])),
        keys: ["logit_a", "logit_b"], caption: regionCaption,
        aria: ({ back, now, maxKl }) => `Plane of the parameters; θ = ${times(back, now.logits).map((v) => fixed(v, 2)).join(", ")}; δ = ${short(maxKl)}`,
      },
      {
        name: "lambda", title: "The price of KL: λ against δ", column: 0, formula: TRUST_FORMULAS.lambda,
        layout: lambdaLayout, under: lambdaUnder, over: lambdaOver, underKey: () => "",
        drag: (at, px) => ({ max_kl: Number(at.valueX(px).toPrecision(3)) }), keys: ["max_kl"],
        caption: ({ now, maxKl }) => `At δ = ${short(maxKl)} one more nat of KL would gain λ = ${short(now.lambda)}. Four times δ halves it.`,
        aria: ({ now, maxKl }) => `λ = ${short(now.lambda)} at δ = ${short(maxKl)}`,
      },
      {
        name: "policy", title: "In policies: the square of π", column: 1, height: 390, formula: TRUST_FORMULAS.policy,
        layout: policyLayout, under: policyUnder, underKey: underOf,
        over: (context, at, theme, state) => steps(context, at, theme, inPolicies(at), state),
        drag: (at, px, py) => logitsAt([at.valueX(px), at.valueY(py)].map((p) => logit(clamp(p, 0.001, 0.999)))),
        keys: ["logit_a", "logit_b"], caption: policyCaption,
        aria: ({ now }) => `Square of policies; probability of staying ${fixed(now.stay[0], 2)} in A, ${fixed(now.stay[1], 2)} in B; J = ${fixed(now.objective)}`,
      },
      {
        name: "gain", title: "Gain of the full step against δ", column: 1, formula: TRUST_FORMULAS.gain,
        layout: gainLayout, under: gainUnder, over: gainOver, underKey: ({ end, top }) => `${end} ${top}`,
        drag: (at, px, py, { range }) => ({ max_kl: Number(clamp(at.valueX(px), ...range).toPrecision(3)) }), keys: ["max_kl"],
        caption: "The tangent's slope is λ. Prediction, surrogate and J agree on small steps and part on long ones.",
        aria: ({ now, maxKl, promised }) => `Gain at δ = ${short(maxKl)}: predicted ${fixed(promised(maxKl))}, surrogate ${fixed(now.natural.at(1).gain)}`,
      },
    ],
  });
}

export default { render };
