// The view of rlhflab.explore.rollout.RolloutPlayer: an episode frame by frame, and its returns.

import { BLUE, VERMILION, GREEN, ORANGE, PURPLE } from "../../static/colours.js";
import { clamp, fixed, short } from "../../static/numbers.js";
import { area, arrow, axes, dot, label, legend, line, plotLayout, verticalAt } from "./canvas.js";
import { remembered, stage } from "./stage.js";

// ---------------------------------------------------------------------------------------------- mathematics

/** G_t = r_t + γ·G_{t+1}, from the end backwards. */
export function returnsToGo(rewards, gamma) {
  const returns = new Array(rewards.length);
  for (let t = rewards.length - 1, next = 0; t >= 0; t--) returns[t] = next = rewards[t] + gamma * next;
  return returns;
}

/** Σ γ^k = 1/(1 − γ): how many rewards of 1 an endless future is worth. */
export const horizonOf = (gamma) => (gamma < 1 ? 1 / (1 - gamma) : Infinity);

// --------------------------------------------------------------------------------------------------- plots

const COLOURS = [BLUE, VERMILION, GREEN, PURPLE, ORANGE];
const [LIMIT, TILT] = [2.4, 0.2095]; // where CartPole-v1 ends: metres, radians

/** Cart and pole to scale, the action as an arrow; `ratio` is pixels a metre, and the pole is a metre long. */
function sceneOver(context, at, theme, { data, t }) {
  const { width, height, ratio } = at;
  const [x, , angle] = data.states[t];
  const rail = height - 42;
  const px = width / 2 + x * ratio;
  const [w, h] = [0.4 * ratio, 0.24 * ratio]; // gymnasium's proportions
  const fallen = Math.abs(angle) > TILT || Math.abs(x) > LIMIT;
  context.fillStyle = theme.ink;
  context.fillRect(px - w / 2, rail - h, w, h);
  const tip = [px + Math.sin(angle) * ratio, rail - h - Math.cos(angle) * ratio];
  line(context, [[px, rail - h], tip], { colour: fallen ? VERMILION : ORANGE, width: 0.08 * ratio });
  dot(context, px, rail - h, 0.05 * ratio, BLUE);
  if (t < data.actions.length) {
    const way = data.actions[t] ? 1 : -1;
    arrow(context, [px + (way * w) / 2, rail - h / 2], [px + way * (w / 2 + 0.42 * ratio), rail - h / 2], { colour: theme.accent, width: 3, head: 13 });
  } else {
    label(context, fallen ? "the end: terminated" : "the end: time limit", width / 2, 14, { colour: theme.text, align: "center", font: `bold 12px ${theme.font}` });
  }
}

function sceneUnder(context, at, theme) {
  const { width, height, ratio } = at;
  const rail = height - 42;
  line(context, [[0, rail], [width, rail]], { colour: theme.muted });
  for (const side of [-1, 1]) {
    const edge = width / 2 + side * LIMIT * ratio;
    line(context, [[edge, rail - 60], [edge, rail + 6]], { colour: VERMILION, dash: [4, 3], width: 1.5 });
    label(context, `${side < 0 ? "−" : "+"}2.4 m`, edge, rail + 15, { colour: theme.muted, align: "center", font: theme.small });
  }
}

/** π(a|s) as bars; the action that was drawn is in colour. */
function choiceOver(context, at, theme, { data, t }) {
  const chosen = data.actions[t];
  const row = (at.base - at.top) / data.actionNames.length;
  data.actionNames.forEach((name, i) => {
    const y = at.top + (i + 0.5) * row;
    const p = t < data.actions.length ? data.probabilities[t][i] : 0;
    const colour = i === chosen ? theme.accent : theme.reference;
    label(context, name, at.left - 8, y, { colour: theme.text, align: "right", font: `${i === chosen ? "bold " : ""}12px ${theme.font}` });
    context.fillStyle = colour;
    context.fillRect(at.left, y - 8, at.x(p) - at.left, 16);
    label(context, t < data.actions.length ? fixed(p, 2) : "", at.x(p) + 6, y, { colour: theme.text, font: `12px ${theme.font}`, halo: theme.background });
  });
}

function curvesUnder(context, at, theme, { data, curves }) {
  axes(context, at, theme, { xName: "step t" });
  legend(context, curves.map((i, k) => [data.names[i], COLOURS[k]]), at.left, 8, theme);
  curves.forEach((i, k) => line(context, data.states.map((state, t) => [at.x(t), at.y(state[i])]), { colour: COLOURS[k], width: 2 }));
}

function curvesOver(context, at, theme, { data, curves, t }) {
  verticalAt(context, at, t, { colour: theme.accent, width: 1.5 });
  curves.forEach((i, k) => dot(context, at.x(t), at.y(data.states[t][i]), 5, COLOURS[k], theme.background));
}

/** Returns to go, and below them what each later reward weighs in the present one. */
function returnsUnder(context, at, theme, { returns }) {
  axes(context, at, theme, { xName: "step t", yName: "G_t" });
  line(context, returns.map((g, t) => [at.x(t), at.y(g)]), { colour: BLUE, width: 2.5 });
}

function returnsOver(context, at, theme, { returns, values: { gamma }, t }) {
  const height = 26; // of the weight 1
  const weights = [];
  for (let k = t; k < returns.length; k++) weights.push([at.x(k), at.base - height * gamma ** (k - t)]);
  if (weights.length) area(context, [[at.x(t), at.base], ...weights, [weights[weights.length - 1][0], at.base]], { colour: ORANGE, alpha: 0.45 });
  verticalAt(context, at, t, { colour: theme.accent, width: 1.5 });
  if (t < returns.length) dot(context, at.x(t), at.y(returns[t]), 6, BLUE, theme.background);
}

// ----------------------------------------------------------------------------------------------------- view

/** Two entries of a state that can share an axis: place and angle of the cart-pole, else the first four. */
const curvesOf = (data) => (data.cartpole ? [0, 2] : data.names.map((_, i) => i).slice(0, 4));

function rangeOf(data, curves) {
  let [low, high] = [0, 0];
  for (const state of data.states) for (const i of curves) [low, high] = [Math.min(low, state[i]), Math.max(high, state[i])];
  const margin = 0.06 * Math.max(high - low, 0.1);
  return [low - margin, high + margin];
}

function render({ model, el }) {
  const last = (data) => data.rewards.length;
  const returnsFor = remembered((data, gamma) => returnsToGo(data.rewards, gamma));
  const dragTime = (at, px, py, { data }) => ({ time: clamp(Math.round(at.valueX(px)), 0, last(data)) });
  const acting = (s, text) => (s.t < last(s.data) ? text(s) : "–");
  const given = model.get("data");
  const scene = {
    name: "scene", title: "The cart, and the push that was drawn", column: 0, height: 210,
    layout: ({ width, height }) => ({ width, height, ratio: Math.min(width / 5.8, (height - 60) / 1.45) }),
    under: sceneUnder, over: sceneOver, underKey: () => "",
    caption: "The pole may tilt by 12°, the cart may leave by 2.4 m; every step on the way earns 1.",
    aria: ({ t, data }) => `Cart at ${fixed(data.states[t][0], 2)} metres, pole at ${fixed((data.states[t][2] * 180) / Math.PI, 1)} degrees`,
  };
  const digits = (value) => (Math.abs(value) >= 10 ? fixed(value, 1) : fixed(value, 3));
  return stage({
    model, el,
    title: "An episode τ",
    note: "Press ▶, or drag time in a plot.",
    controls: (data) => [
      { name: "time", label: "step t", min: 0, max: last(data), step: 1, play: 50, format: (t) => `${Math.round(t)} of ${last(data)}` },
      { name: "gamma", label: "discount γ", min: 0, max: 1, step: 0.01 },
    ],
    compute: (values, data) => ({
      values, data, t: Math.min(values.time, last(data)), curves: curvesOf(data), returns: returnsFor(data, values.gamma),
    }),
    readoutCard: { title: "At step t" },
    readouts: [
      ...given.names.map((name, i) => ({ label: name, hint: "an entry of s_t", value: (s) => digits(s.data.states[s.t][i]) })),
      { label: "action a_t", hint: "drawn from π(·|s_t)", value: (s) => acting(s, ({ data, t }) => data.actionNames[data.actions[t]]) },
      { label: "π(a_t|s_t)", hint: "its probability", value: (s) => acting(s, ({ data, t }) => fixed(data.probabilities[t][data.actions[t]])) },
      { label: "reward r_t", hint: "", value: (s) => acting(s, ({ data, t }) => short(data.rewards[t])) },
      { label: "return to go G_t", hint: "Σ γ^k·r_{t+k}", value: (s) => acting(s, ({ returns, t }) => fixed(returns[t], 2)) },
    ],
    panels: [
      ...(given.cartpole ? [scene] : []),
      {
        name: "choice", title: "The policy here: π(a|s_t)", column: 0, height: 40 + 26 * given.actionNames.length,
        formula: [["math", "a_t ~ π(·|s_t)"], ["note", "In colour: the action that was drawn."]],
        layout: (size) => plotLayout(size, { x: [0, 1], y: [0, 1], left: 60, right: 50, top: 4, bottom: 30 }),
        under: (context, at, theme) => axes(context, at, theme, { xName: "", yTicks: [], xTicks: [0, 0.5, 1] }),
        over: choiceOver, underKey: () => "",
        caption: "The policy only says how likely each action is; chance draws one.",
        aria: ({ data, t }) => (t < last(data) ? data.actionNames.map((name, i) => `${name} ${fixed(data.probabilities[t][i], 2)}`).join(", ") : "the end"),
      },
      {
        name: "states", title: "States s_t", column: 1,
        layout: (size, { data, curves }) => plotLayout(size, { x: [0, last(data)], y: rangeOf(data, curves), top: 24 }),
        under: curvesUnder, over: curvesOver, underKey: () => "", drag: dragTime, keys: ["time"],
        caption: given.cartpole ? "The place in metres, the angle in radians." : "",
        aria: ({ t }) => `States over time, now at step ${t}`,
      },
      {
        name: "returns", title: "Return to go G_t", column: 1,
        formula: [["math", "G_t = r_t + γ·r_{t+1} + γ²·r_{t+2} + … = r_t + γ·G_{t+1}"], ["note", "The return of the episode is R(τ) = G at step 0. Over the end nothing flows back."]],
        layout: (size, { data, returns }) => plotLayout(size, { x: [0, last(data)], y: [Math.min(0, ...returns), Math.max(1, ...returns) * 1.08] }),
        under: returnsUnder, over: returnsOver, underKey: ({ values }) => values.gamma, drag: dragTime, keys: ["time"],
        caption: ({ values: { gamma } }) => `Orange: what a later reward weighs in it, γᵏ after k steps. In an endless episode these weights add up to 1/(1 − γ) = ${short(horizonOf(gamma))}.`,
        aria: ({ returns, t }) => (t < returns.length ? `Return to go ${fixed(returns[t], 2)}` : "the end"),
      },
    ],
  });
}

export default { render };
