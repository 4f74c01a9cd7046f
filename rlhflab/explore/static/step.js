// The view of rlhflab.explore.StepExplorable: one TRPO step of a real policy, measured along its direction.
//
// The points come from Python; between two of them the line is straight.

import { BLUE, VERMILION } from "../../static/colours.js";
import { between, clamp, fixed, short, signed } from "../../static/numbers.js";
import { axes, dot, horizontalAt, inside, label, legend, line, plotLayout } from "./canvas.js";
import { stage } from "./stage.js";

// ---------------------------------------------------------------------------------------------- mathematics

/** The line search from the step of radius δ: its tries, {share, radius, kl, gain, accepted}, to the first accepted. */
export function lineSearch({ radii, kls, gains }, maxKl, tries) {
  const trials = [];
  for (let k = 0; k < tries && !trials.at(-1)?.accepted; k++) {
    const share = 0.8 ** k;
    const radius = share * Math.sqrt(maxKl);
    const [kl, gain] = [between(radii, kls, radius), between(radii, gains, radius)];
    trials.push({ share, radius, kl, gain, accepted: gain > 0 && kl <= maxKl });
  }
  return trials;
}

// --------------------------------------------------------------------------------------------------- plots

const [MEASURED, TRIED] = [BLUE, VERMILION];
const DELTAS = [0.01, 0.05, 0.1, 0.2, 0.3, 0.5];
const root = (value) => Math.sqrt(Math.max(0, value));

/** Both plots along the step have √δ on the x axis, with δ written at its ticks. */
const deltaTicks = (most) => DELTAS.filter((delta) => delta <= most).map(root);
const squared = (radius) => short(Number((radius * radius).toPrecision(2)));

function klLayout(size, { most, steepest }) {
  return plotLayout(size, { x: [0, root(most)], y: [0, root(steepest) * 1.05], left: 46, top: 24 });
}

function klUnder(context, at, theme, { radii, kls, most, steepest }) {
  const yTicks = [0.01, 0.1, 0.5, 1, 2, 5, 10, 20].filter((kl) => kl <= steepest).map(root);
  axes(context, at, theme, { xName: "predicted KL, on the scale of its root", xTicks: deltaTicks(most), xFormat: squared, yTicks, yFormat: squared });
  line(context, [0, root(most)].map((r) => [at.x(r), at.y(r)]), { colour: theme.ink, width: 2, dash: [6, 4] });
  line(context, radii.map((r, i) => [at.x(r), at.y(root(kls[i]))]), { colour: MEASURED, width: 2.5 });
  legend(context, [["predicted", theme.ink], ["true", MEASURED], ["tries", TRIED]], 46, 10, theme);
}

function gainLayout(size, { most, highest, lowest }) {
  return plotLayout(size, { x: [0, root(most)], y: [lowest, highest], left: 46, top: 24 });
}

function gainUnder(context, at, theme, { radii, gains, slope, most }) {
  axes(context, at, theme, { xName: "predicted KL, on the scale of its root", xTicks: deltaTicks(most), xFormat: squared });
  inside(context, at, () => {
    horizontalAt(context, at, 0, { colour: theme.muted });
    line(context, [0, root(most)].map((r) => [at.x(r), at.y(slope * r)]), { colour: theme.ink, width: 2, dash: [6, 4] });
    line(context, radii.map((r, i) => [at.x(r), at.y(gains[i])]), { colour: MEASURED, width: 2.5 });
  });
  legend(context, [["predicted", theme.ink], ["true", MEASURED], ["tries", TRIED]], 46, 10, theme);
}

/** δ as a line, and the tries as dots: the accepted one filled. */
function tries(context, at, theme, { trials, maxKl }, heightOf) {
  const edge = at.x(root(maxKl));
  line(context, [[edge, at.top], [edge, at.base]], { colour: theme.accent, dash: [4, 3], width: 1.5 });
  inside(context, at, () => {
    for (const trial of trials) {
      const place = [at.x(trial.radius), at.y(heightOf(trial))];
      if (trial.accepted) dot(context, ...place, 6, TRIED, theme.background);
      else dot(context, ...place, 4, theme.background, TRIED);
    }
  });
}

function klOver(context, at, theme, state) {
  const level = at.y(root(state.maxKl));
  line(context, [[at.left, level], [at.right, level]], { colour: theme.accent, dash: [4, 3], width: 1.5 });
  label(context, `δ = ${short(state.maxKl)}`, at.left + 6, level - 9, { colour: theme.accent, font: `bold 11px ${theme.font}`, halo: theme.background });
  tries(context, at, theme, state, (trial) => root(trial.kl));
}

const gainOver = (context, at, theme, state) => tries(context, at, theme, state, (trial) => trial.gain);

function residualLayout(size, { residuals }) {
  const least = Math.min(...residuals.filter((r) => r > 0));
  return plotLayout(size, { x: [0, residuals.length - 1], y: [10 ** Math.floor(Math.log10(least)), 1.3], logY: true, left: 46, top: 16 });
}

function residualUnder(context, at, theme, { residuals, iterations }) {
  axes(context, at, theme, { xName: "iterations k", yName: "‖g − Hx_k‖ / ‖g‖", yTicks: [1e-4, 1e-3, 0.01, 0.1, 1].filter((r) => r >= at.ranges.y[0]) });
  const points = residuals.map((r, k) => [at.x(k), at.y(r)]);
  line(context, points, { colour: theme.muted, width: 1.5 });
  line(context, points.slice(0, iterations + 1), { colour: MEASURED, width: 2.5 });
  for (const point of points.slice(0, iterations + 1)) dot(context, ...point, 3, MEASURED);
}

// ----------------------------------------------------------------------------------------------------- view

const STEP_FORMULAS = {
  kl: [
    ["math", "predicted: ½ xᵀHx,   true: mean_t KL(π_old(·|s_t)‖π_θ(·|s_t))"],
    ["note", "Measured at the points that Python sent, straight between them. Both axes are on the scale of the root, on which the prediction is the diagonal."],
  ],
  gain: [
    ["math", "predicted: g·x,   true: mean_t ratio_t A_t − mean_t A_t,   ratio = π_θ / π_old"],
    ["note", "Rings: tries that were refused. Filled: the first with gain > 0 and KL ≤ δ."],
  ],
  residual: [
    ["math", "H x = g,   x_k after k products H·v"],
    ["note", "H with damping, on the states of the rollout."],
  ],
};

function stepState({ max_kl: maxKl, iterations }, data) {
  const row = data.iterations.indexOf(iterations);
  const [kls, gains, slope] = [data.kls[row], data.gains[row], data.slopes[row]];
  const most = data.ranges.max_kl[1];
  const trials = lineSearch({ radii: data.radii, kls, gains }, maxKl, data.tries);
  const all = data.gains.flat();
  return {
    radii: data.radii, kls, gains, slope, iterations, maxKl, trials, residuals: data.residuals, most,
    steepest: Math.max(most, ...data.kls.flat()), highest: 1.6 * Math.max(...all), lowest: Math.min(1.15 * Math.min(...all), -0.1 * Math.max(...all)),
    taken: trials.at(-1).accepted ? trials.at(-1) : { share: 0, radius: 0, kl: 0, gain: 0 },
  };
}

function searchCaption({ trials, maxKl, taken }) {
  const over = `The full step's true KL is ${short(trials[0].kl / maxKl)}·δ.`;
  if (!(taken.share > 0)) return `${over} None of ${trials.length} tries is accepted: the policy stays.`;
  return trials.length === 1 ? `${over} It is taken.` : `${over} ${trials.length - 1} refused; a share of ${short(taken.share)} is taken.`;
}

function render({ model, el }) {
  const dragged = (at, px, py, { most }) => ({ max_kl: Number(clamp(at.valueX(px) ** 2, 0.001, most).toPrecision(3)) });
  return stage({
    model, el, title: "One step, taken apart", note: "Drag δ here or sideways in the two upper plots.",
    controls: ({ iterations }) => [
      { name: "max_kl", label: "max KL δ", log: true, ticks: [0.001, 0.01, 0.1, 0.5] },
      { name: "iterations", label: "Conjugate-gradient iterations", kind: "select", options: iterations },
    ],
    compute: stepState,
    readoutCard: { title: "The step", columns: ["taken", "full"], caption: "Full: without the line search." },
    readouts: [
      { label: "share", hint: "of the full step", value: (s) => short(s.taken.share), reference: () => "1" },
      { label: "pred. KL", hint: "½xᵀHx", value: (s) => fixed(s.taken.radius ** 2, 4), reference: (s) => fixed(s.maxKl, 4) },
      { label: "true KL", value: (s) => fixed(s.taken.kl, 4), reference: (s) => fixed(s.trials[0].kl, 4) },
      { label: "pred. gain", hint: "g·x", value: (s) => fixed(s.slope * s.taken.radius), reference: (s) => fixed(s.slope * root(s.maxKl)) },
      { label: "true gain", hint: "of the surrogate", value: (s) => signed(s.taken.gain, 3), reference: (s) => signed(s.trials[0].gain, 3) },
    ],
    panels: [
      {
        name: "kl", title: "KL along the step", column: 0, height: 260, formula: STEP_FORMULAS.kl,
        layout: klLayout, under: klUnder, over: klOver, underKey: ({ iterations }) => iterations, drag: dragged, caption: searchCaption,
        aria: ({ maxKl, trials, taken }) => `KL along the step; δ = ${short(maxKl)}, ${trials.length} tries, KL taken ${fixed(taken.kl, 4)}`,
      },
      {
        name: "residual", title: "Conjugate gradient's residuals", column: 0, formula: STEP_FORMULAS.residual, height: 170,
        layout: residualLayout, under: residualUnder, over: () => {}, underKey: ({ iterations }) => iterations,
        caption: ({ residuals, iterations }) => `After ${iterations} iterations: ${fixed(residuals[Math.min(iterations, residuals.length - 1)], 2)}. More of them predict more gain; for how far?`,
        aria: ({ iterations }) => `Residuals of conjugate gradient up to iteration ${iterations}`,
      },
      {
        name: "gain", title: "Gain along the step", column: 1, height: 260, formula: STEP_FORMULAS.gain,
        layout: gainLayout, under: gainUnder, over: gainOver, underKey: ({ iterations }) => iterations, drag: dragged,
        caption: ({ slope, maxKl }) => `Near 0 the gain is the predicted line, λ = ${short(slope / (2 * root(maxKl)))} per nat at this δ. Where does it turn?`,
        aria: ({ maxKl, taken }) => `Gain along the step; δ = ${short(maxKl)}, gain taken ${signed(taken.gain, 3)}`,
      },
    ],
  });
}

export default { render };
