// The view of rlhflab.explore.grid.GridExplorable: a policy on a grid, its values, its trajectories.

import { BLUE, VERMILION, ORANGE } from "../../static/colours.js";
import { clamp, countIn, fixed, meanOf, signed, spreadOf, sumOf } from "../../static/numbers.js";
import { arrow, axes, dot, label, line, notation, plotLayout, verticalAt } from "./canvas.js";
import { remembered, stage } from "./stage.js";

// ---------------------------------------------------------------------------------------------- mathematics

const WAYS = [[-1, 0], [0, 1], [1, 0], [0, -1]]; // up, right, down, left
const ARROWS = "↑→↓←";
const LONGEST = 200; // steps of a trajectory

/** next[s][a] = [[s', probability], …]: as told, or off to a side; a wall leaves everything where it is. */
export function movesOf(rows, slip) {
  const [height, width] = [rows.length, rows[0].length];
  const to = (row, column, way) => {
    const [r, c] = [row + WAYS[way][0], column + WAYS[way][1]];
    return r < 0 || r >= height || c < 0 || c >= width || rows[r][c] === "#" ? row * width + column : r * width + c;
  };
  return Array.from({ length: height * width }, (_, s) => WAYS.map((_, way) =>
    [[0, 1 - slip], [1, slip / 2], [3, slip / 2]].map(([turn, p]) => [to(Math.floor(s / width), s % width, (way + turn) % 4), p])));
}

const cellsOf = ({ rows }) => rows.join("");

/** The next free cell from s in the direction `right`, `down` (−1, 0, 1 each), across walls and ends; null if there is none. */
export function nextFree({ rows }, s, right, down) {
  const width = rows[0].length;
  let [r, c] = [Math.floor(s / width) + down, (s % width) + right];
  while (rows[r]?.[c] && rows[r][c] !== ".") [r, c] = [r + down, c + right];
  return rows[r]?.[c] ? r * width + c : null;
}
const rewardOf = ({ ends, stepReward }, cell) => ends[cell] ?? stepReward;

/** {policy, values}: the ε-greedy π(a|s), with V^π; both by sweeps until convergence. */
export function solved(data, { epsilon, slip, gamma }) {
  const cells = cellsOf(data);
  const moves = movesOf(data.rows, slip);
  const q = (values, s, a) => sumOf(moves[s][a].map(([to, p]) => p * (rewardOf(data, cells[to]) + gamma * values[to])));
  const sweep = (update) => {
    let values = new Array(cells.length).fill(0);
    for (let round = 0, most = 1; round < 2000 && most > 1e-12; round++) {
      const next = values.map((_, s) => (cells[s] === "." ? update(values, s) : 0));
      most = Math.max(...next.map((value, s) => Math.abs(value - values[s])));
      values = next;
    }
    return values;
  };
  const best = sweep((values, s) => Math.max(...WAYS.map((_, a) => q(values, s, a))));
  const policy = best.map((_, s) => {
    const all = WAYS.map((_, a) => q(best, s, a));
    const top = all.indexOf(Math.max(...all));
    return all.map((_, a) => epsilon / 4 + (a === top ? 1 - epsilon : 0));
  });
  return { policy, moves, values: sweep((values, s) => sumOf(policy[s].map((p, a) => p * q(values, s, a)))) };
}

/** Numbers in [0, 1) that are the same for the same seed (mulberry32). */
export function randomOf(seed) {
  let state = (seed * 0x9e3779b9) >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function drawnFrom(pairs, u) {
  let sum = 0;
  for (const [value, p] of pairs) {
    sum += p;
    if (u < sum) return [value, p];
  }
  return pairs.find(([, p]) => p > 0);
}

/** One trajectory: {steps: [{s, a, r}], end, total, logp}; logp is log p(τ), policy and world together. */
export function trajectoryOf(data, { policy, moves }, { start, gamma }, seed) {
  const cells = cellsOf(data);
  const random = randomOf(seed);
  const steps = [];
  let [s, total, logp] = [start, 0, 0];
  while (cells[s] === "." && steps.length < LONGEST) {
    const [a, chosen] = drawnFrom(policy[s].map((p, i) => [i, p]), random());
    const [to] = drawnFrom(moves[s][a], random());
    const chance = moves[s][a].reduce((sum, [end, p]) => sum + (end === to ? p : 0), 0);
    const r = rewardOf(data, cells[to]);
    total += gamma ** steps.length * r;
    logp += Math.log(chosen) + Math.log(chance);
    steps.push({ s, a, r });
    s = to;
  }
  return { steps, end: s, total, logp };
}

// --------------------------------------------------------------------------------------------------- plots

const nameOf = (data, s) => {
  const width = data.rows[0].length;
  return String.fromCharCode(97 + (s % width)) + (data.rows.length - Math.floor(s / width));
};

function gridLayout({ width, height }, { data }) {
  const [across, down] = [data.rows[0].length, data.rows.length];
  const side = Math.min((width - 8) / across, (height - 8) / down);
  const [x0, y0] = [(width - side * across) / 2, (height - side * down) / 2];
  return {
    side, x0, y0,
    middle: (s) => [x0 + ((s % across) + 0.5) * side, y0 + (Math.floor(s / across) + 0.5) * side],
    cell: (px, py) => {
      const [c, r] = [Math.floor((px - x0) / side), Math.floor((py - y0) / side)];
      return c < 0 || c >= across || r < 0 || r >= down ? -1 : r * across + c;
    },
  };
}

function gridUnder(context, at, theme, { data, values: { policy, values } }) {
  const { side } = at;
  [...cellsOf(data)].forEach((cell, s) => {
    const [x, y] = at.middle(s);
    const end = data.ends[cell];
    const value = end ?? values[s];
    context.globalAlpha = cell === "#" ? 1 : 0.08 + 0.6 * Math.min(1, Math.abs(value));
    context.fillStyle = cell === "#" ? theme.reference : value < 0 ? VERMILION : BLUE;
    context.fillRect(x - side / 2 + 1, y - side / 2 + 1, side - 2, side - 2);
    context.globalAlpha = 1;
    if (cell === "#") return;
    if (end !== undefined) return label(context, signed(end, 0), x, y - 0.3 * side, { colour: theme.text, align: "center", font: `bold 18px ${theme.font}` });
    label(context, nameOf(data, s), x - side / 2 + 6, y - side / 2 + 11, { colour: theme.muted, font: theme.small });
    label(context, fixed(values[s], 2), x + side / 2 - 6, y + side / 2 - 10, { colour: theme.text, align: "right", font: theme.small });
    policy[s].forEach((p, a) => {
      const [dy, dx] = WAYS[a];
      if (p > 0) arrow(context, [x, y], [x + dx * p * side * 0.4, y + dy * p * side * 0.4], { colour: theme.ink, width: 2, head: 3 + 5 * p });
    });
  });
}

function gridOver(context, at, theme, { shown, start }) {
  const shift = (s, t) => at.middle(s).map((v, i) => v + 5 * Math.sin(2.4 * t + i)); // visits of one cell stay apart
  const path = [...shown.steps.map(({ s }) => s), shown.end].map(shift);
  line(context, path, { colour: ORANGE, width: 3, alpha: 0.9 });
  const [x, y] = at.middle(start);
  dot(context, x, y, 8, ORANGE, theme.background);
  dot(context, ...path[path.length - 1], 5, ORANGE, theme.background);
}

const COLUMNS = [["t", 0.06], ["s_t", 0.24], ["a_t", 0.42], ["r_t", 0.64], ["γ^t·r_t", 0.9]];

/** The trajectory as a table: its first steps, its last one, its return. */
function tableOver(context, at, theme, { data, shown, gamma }) {
  const row = 19;
  const fit = Math.max(3, Math.floor((at.height - 2.4 * row) / row));
  const { steps } = shown;
  const kept = steps.length <= fit ? steps.map((_, t) => t) : [...Array(fit - 2).keys(), -1, steps.length - 1];
  const put = (cells, y, colour) => cells.forEach((text, i) =>
    notation(context, text, COLUMNS[i][1] * at.width, y, { size: 12, colour, family: theme.font, align: "center" }));
  put(COLUMNS.map(([name]) => name), 10, theme.muted);
  kept.forEach((t, i) => {
    const y = 10 + row * (i + 1);
    if (t < 0) return put(["…", "…", "…", "…", "…"], y, theme.muted);
    const { s, a, r } = steps[t];
    put([String(t), nameOf(data, s), ARROWS[a], signed(r), signed(gamma ** t * r, 3)], y, theme.text);
  });
  const y = 10 + row * (kept.length + 1);
  line(context, [[0, y - row / 2], [at.width, y - row / 2]], { colour: theme.muted });
  const cell = nameOf(data, shown.end);
  put(["", `ends in ${cell}`, "", "R(τ) =", signed(shown.total, 3)], y, theme.text);
}

function returnsOver(context, at, theme, { counted, exact, shown }) {
  const width = (at.right - at.left) / counted.length;
  context.fillStyle = theme.reference;
  counted.forEach((count, i) => context.fillRect(at.left + i * width + 0.5, at.y(count), width - 1, at.base - at.y(count)));
  verticalAt(context, at, exact, { colour: BLUE, width: 2, dash: [5, 4] });
  dot(context, at.x(clamp(shown.total, ...at.ranges.x)), at.base, 6, ORANGE, theme.background);
}

// ----------------------------------------------------------------------------------------------------- view

const RETURNS = [-2, 1];
const BINS = 30;

function computed(values, data, solve) {
  const solution = solve(data, values.epsilon, values.slip, values.gamma);
  const all = Array.from({ length: data.trajectories }, (_, i) => trajectoryOf(data, solution, values, i + 1));
  const totals = all.map(({ total }) => total);
  const { counts, below, above } = countIn(totals, ...RETURNS, BINS);
  counts[0] += below;
  counts[BINS - 1] += above;
  const { start, gamma } = values;
  return {
    data, values: solution, start, gamma, shown: all[values.trajectory - 1], counted: counts,
    mean: meanOf(totals), se: spreadOf(totals) / Math.sqrt(totals.length), exact: solution.values[start],
  };
}

function render({ model, el }) {
  const solve = remembered((data, epsilon, slip, gamma) => solved(data, { epsilon, slip, gamma }));
  return stage({
    model, el,
    title: "A policy on a grid",
    note: "Drag the orange dot to begin in another cell.",
    controls: (data) => [
      { name: "trajectory", label: "trajectory τ", min: 1, max: data.trajectories, step: 1, play: 2, format: (n) => `${Math.round(n)} of ${data.trajectories}` },
      { name: "epsilon", label: "π: random, ε", step: 0.01 },
      { name: "slip", label: "world: slips", step: 0.01 },
      { name: "gamma", label: "discount γ", step: 0.01 },
      { name: "start", label: "start", kind: "hidden", min: 0, max: cellsOf(data).length - 1, step: 1 },
    ],
    compute: (values, data) => computed(values, data, solve),
    readoutCard: { title: "One and all" },
    readouts: [
      { label: "R(τ)", hint: "return of the trajectory shown", value: (s) => fixed(s.shown.total) },
      { label: "log p(τ)", hint: "its log-probability, policy and world together", value: (s) => fixed(s.shown.logp, 2) },
      { label: "mean of R(τ)", hint: "over all trajectories here", value: (s) => fixed(s.mean) },
      { label: "J = V^π(s₀)", hint: "its exact expectation", value: (s) => fixed(s.exact) },
    ],
    widths: [1.25, 1],
    panels: [
      {
        name: "grid", title: "States, actions, policy, values", column: 0, height: 400,
        formula: [
          ["math", "π(a|s) = 1 − ε + ε/4 for the best action, ε/4 for the others"],
          ["math", "V^π(s) = Σ_a π(a|s) Σ_s' P(s'|s,a)·(r + γ·V^π(s'))"],
          ["note", "Arrows: π(a|s). Numbers and colours: V^π(s). Orange: a trajectory τ."],
        ],
        layout: gridLayout, under: gridUnder, over: gridOver,
        arrow: (right, up, { data, start }) => {
          const s = nextFree(data, start, right, -up);
          return s === null ? null : { start: s };
        },
        underKey: ({ values: { values, policy } }) => `${values} ${policy}`,
        drag: (at, px, py, { data }) => {
          const s = at.cell(px, py);
          return cellsOf(data)[s] === "." ? { start: s } : null;
        },
        caption: "A cell is a state; its arrows are the policy, its number is what is to come from there on average.",
        aria: ({ data, exact, start }) => `Grid; from ${nameOf(data, start)} the value is ${fixed(exact, 2)}`,
      },
      {
        name: "trajectory", title: "The trajectory τ = s₀, a₀, r₀, s₁, a₁, r₁, …", column: 1, height: 230,
        formula: [
          ["math", "R(τ) = Σ_t γ^t·r_t"],
          ["math", "p(τ) = Π_t π(a_t|s_t)·P(s_{t+1}|s_t,a_t)"],
        ],
        layout: (size) => size, over: tableOver,
        caption: ({ shown }) => (shown.steps.length >= LONGEST ? `Cut after ${LONGEST} steps.` : ""),
        aria: ({ shown }) => `A trajectory of ${shown.steps.length} steps with return ${fixed(shown.total, 2)}`,
      },
      {
        name: "returns", title: "Returns of all trajectories", column: 1, height: 150,
        formula: [["math", "J(π) = E_τ∼π[R(τ)] = V^π(s₀)"], ["note", "What lies outside is counted in the outermost bar."]],
        layout: (size, { counted }) => plotLayout(size, { x: RETURNS, y: [0, Math.max(...counted) * 1.1] }),
        under: (context, at, theme) => axes(context, at, theme, { xName: "R(τ)", yName: "how many", yCount: 3, xCount: 7 }),
        over: returnsOver, underKey: ({ counted }) => Math.max(...counted),
        caption: ({ mean, se, exact, data }) => `Mean of ${data.trajectories}: ${fixed(mean)} ± ${fixed(se)}; exact (dashed): ${fixed(exact)}.`,
        aria: ({ mean, exact }) => `Returns: mean ${fixed(mean, 2)}, exact ${fixed(exact, 2)}`,
      },
    ],
  });
}

export default { render };
