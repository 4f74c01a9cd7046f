// The plots of a board: turns a panel's specification and the newest frame into plotly.js's traces and layout.

import { withOpacity } from "../../static/colours.js";
import { between, logTicks, short, steady, whole } from "../../static/numbers.js";

/** Whether a panel shows arrays rather than series over steps. */
export const isOfArrays = (spec) => spec.kind === "histogram" || spec.kind === "xy";

/** Value of the frontier's `field` at `beta`, interpolated linearly in log β; constant beyond the ends. */
export const atBeta = (backdrop, field, beta) => between(backdrop.beta.map(Math.log), backdrop[field], Math.log(beta));

/** Whether the optimum is known: always if the frontier is exact, else only for the β it covers. */
function knowsOptimum(backdrop, beta) {
  return Boolean(backdrop) && beta > 0 && (!backdrop.reward_se || beta >= backdrop.beta[0]);
}

function extent(lists) {
  let low = Infinity, high = -Infinity;
  for (const list of lists) for (const v of list) if (v !== null && v !== undefined && Number.isFinite(v)) {
    if (v < low) low = v;
    if (v > high) high = v;
  }
  return low <= high ? [low, high] : [0, 1];
}

export function padded([low, high]) {
  const span = high - low, least = 0.005 * Math.max(Math.abs(low), Math.abs(high)); // of less the labels are too long
  const pad = span > 0 ? Math.max(0.08 * span, (least - span) / 2) : 0.1 * Math.abs(high) || 0.5;
  return [low >= 0 ? Math.max(0, low - pad) : low - pad, high + pad];
}

/**
 * What a panel shows: {traces, layout, legend}; `view` is {frame, setup, beta, dark, text, ink}, the last two colours.
 * The drawing functions below fill a scene: traces, axes (lower, left, right), legend, annotations.
 */
export function plotOf(spec, { frame, setup, beta, dark, text, ink }) {
  const gridColour = dark ? "rgba(255,255,255,0.09)" : "rgba(0,0,0,0.07)";
  const axis = () => ({ gridcolor: gridColour, zeroline: false, linecolor: gridColour, tickfont: { size: 11, color: ink },
    nticks: 5, automargin: false, exponentformat: "e" });
  const scene = { spec, frame, data: frame ? frame.data : null, backdrop: setup.backdrop, ghosts: setup.ghosts, beta, dark, text,
    colour: (name) => setup.colours[name][dark ? 1 : 0],
    label: (knob) => (setup.controls.find((control) => control.name === knob) || { label: "" }).label,
    traces: [], lower: axis(), left: axis(), right: null, legend: [], annotations: [] };
  ({ lines: drawLines, weights: drawWeights, heatmap: drawHeat, plane: drawPlane, histogram: drawHistogram, xy: drawXY })[spec.kind](scene);
  const title = (words) => (words ? { text: words, font: { size: 11, color: ink }, standoff: 4 } : undefined);
  scene.left.title = title(spec.y_title);
  if (spec.x_title) scene.lower.title = { ...title(spec.x_title), standoff: 2 };
  const layout = {
    uirevision: "keep", showlegend: false, barmode: "stack", bargap: 0.06,
    margin: { l: spec.y_title ? 50 : 40, r: scene.right ? 56 : 12, t: 6, b: scene.lower.title ? 34 : 22 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: "system-ui, sans-serif", size: 11, color: ink },
    xaxis: scene.lower, yaxis: scene.left, hovermode: spec.kind === "lines" ? "x" : "closest", dragmode: "zoom",
    hoverlabel: { font: { size: 11 } }, annotations: scene.annotations,
  };
  if (scene.right) layout.yaxis2 = { ...scene.right, overlaying: "y", side: "right", showgrid: false, title: title(spec.right_title) };
  return { traces: scene.traces, layout, legend: scene.legend };
}

function stroke(scene, x, y, colour, { name = "", dash = "solid", width = 2, opacity = 1, right = false, hover = true } = {}) {
  scene.traces.push({ type: "scatter", mode: "lines", x, y, name, opacity, yaxis: right ? "y2" : "y",
    line: { color: colour, width, dash, shape: "linear", simplify: false }, connectgaps: false,
    ...(hover ? { hovertemplate: `%{y:.4~g}<extra>${name.replace(/[<>&]/g, "")}</extra>` } : { hoverinfo: "skip" }) });
}

function band(scene, x, low, high, colour, right) {
  const edge = { type: "scatter", mode: "lines", line: { width: 0 }, hoverinfo: "skip", yaxis: right ? "y2" : "y" };
  const kept = x.map((_, i) => i).filter((i) => low[i] !== null && high[i] !== null);
  scene.traces.push({ ...edge, x: kept.map((i) => x[i]), y: kept.map((i) => low[i]) },
    { ...edge, x: kept.map((i) => x[i]), y: kept.map((i) => high[i]), fill: "tonexty", fillcolor: withOpacity(colour, scene.dark ? 0.22 : 0.16) });
}

function drawLines(scene) {
  const { spec } = scene, data = scene.data, backdrop = scene.backdrop;
  const left = [], right = [];
  let end = Math.max(1, data ? data.step : 1);
  for (const ghost of scene.ghosts) for (const line of spec.lines) {
    const points = line.ghost && ghost.series[line.series];
    if (!points) continue;
    end = Math.max(end, points.x[points.x.length - 1]);
    stroke(scene, points.x, points.y, scene.colour(line.colour), { name: ghost.label, width: 1, opacity: 0.4 });
    left.push(points.y);
  }
  if (scene.frame && scene.frame.state === "running" && scene.frame.steps) end = Math.min(scene.frame.steps, Math.max(end, end * 1.02));
  const across = [0, end];
  if (data) for (const line of spec.lines) {
    const entry = data.series[line.series];
    if (!entry) continue;
    const x = data.x[entry.x], y = entry.y, colour = scene.colour(line.colour), ends = line.right ? right : left;
    const spread = line.spread && data.series[line.spread];
    if (spread && spread.y.length === y.length) {
      const low = y.map((v, i) => (v === null || spread.y[i] === null ? null : v - spread.y[i]));
      const high = y.map((v, i) => (v === null || spread.y[i] === null ? null : v + spread.y[i]));
      band(scene, x, low, high, colour, line.right);
      ends.push(low, high);
    } else if (!line.spread && entry.lo && !line.series.startsWith("exact/")) {
      band(scene, x, entry.lo, entry.hi, colour, line.right);
      ends.push(entry.lo, entry.hi);
    }
    ends.push(y);
    stroke(scene, x, y, colour, { name: line.name, right: line.right, dash: line.dash });
    const last = line.series.startsWith("exact/") ? data.exact[line.series.slice(6)] : data.last[line.series];
    scene.legend.push({ name: line.name, colour, dash: line.dash, value: last });
  }
  if (!scene.legend.length) for (const line of spec.lines) if (!line.series.startsWith("estimated/")) scene.legend.push({ name: line.name, colour: scene.colour(line.colour), dash: line.dash });
  const aims = [];
  if (spec.target && knowsOptimum(backdrop, scene.beta)) {
    const level = atBeta(backdrop, spec.target, scene.beta), colour = scene.colour("truth"), name = backdrop.reward_se ? "π*, estimate" : "π*";
    stroke(scene, across, [level, level], colour, { name, dash: "6px,4px", width: 1.6 });
    scene.legend.push({ name, colour, dash: "dash", value: level });
    aims.push(level);
  }
  const reference = spec.reference && ((data && data.exact[spec.reference]) ?? (backdrop && !backdrop.reward_se ? backdrop[spec.reference] : undefined));
  if (spec.reference && reference !== undefined && reference !== "") {
    const colour = scene.colour("reference");
    stroke(scene, across, [reference, reference], colour, { name: "π_ref", dash: "dot", width: 1.6 });
    scene.legend.push({ name: "π_{ref}", colour, dash: "dot", value: reference });
    aims.push(reference);
  }
  const range = spec.range || padded(withAims(scene, extent(left), left.length > 0, aims));
  scene.lower.range = across;
  scene.left.range = range;
  if (spec.lines.some((line) => line.right)) scene.right = { ...scene.left, tickmode: "auto", range: spec.right_range || padded(extent(right)) };
  const knob = spec.target ? "beta" : spec.knob;
  if (knob && data) markChanges(scene, data.changes.filter(([, name]) => name === knob), scene.label(knob), range, end);
  if (spec.note) writeNote(scene, spec.note, 1, "top");
}

/** Include the dashed levels, unless one is so far away that it would flatten the curve. */
function withAims(scene, [low, high], hasData, aims) {
  if (!hasData) return aims.length ? extent([aims]) : [0, 1];
  let [a, b] = [low, high];
  for (const aim of aims) { a = Math.min(a, aim); b = Math.max(b, aim); }
  const span = Math.max(high - low, 1e-9);
  if (b - a > 12 * span && scene.frame && scene.frame.step > 200) { a = Math.max(a, low - 6 * span); b = Math.min(b, high + 6 * span); }
  return [a, b];
}

/** One exact value in words, in a corner of the plot. */
function writeNote(scene, name, y, yanchor) {
  const value = scene.data && scene.data.exact[name];
  if (value === undefined || value === null) return;
  scene.annotations.push({ xref: "paper", yref: "paper", x: 1, y, xanchor: "right", yanchor, showarrow: false, borderpad: 2,
    bgcolor: scene.dark ? "rgba(20,20,20,0.7)" : "rgba(255,255,255,0.75)", text: `${name} <b>${steady(value)}</b>`, font: { size: 12.5, color: scene.text } });
}

/** A thin vertical line where a knob was changed; a drag counts as one change, at its end. */
function markChanges(scene, all, label, range, end) {
  const moves = all.filter(([step], i) => i === all.length - 1 || all[i + 1][0] - step > 0.05 * end);
  if (!moves.length) return;
  const x = [], y = [];
  for (const [step] of moves) { x.push(step, step, null); y.push(range[0], range[1], null); }
  stroke(scene, x, y, scene.colour("reference"), { width: 1, dash: "2px,3px", hover: false });
  scene.annotations.push(...moves.filter(([step], i) => i === moves.length - 1 || moves[i + 1][0] - step > 0.17 * end).map(([step, , value]) => ({ x: step, y: 1, yref: "paper", yanchor: "top", xanchor: step > 0.8 * end ? "right" : "left",
    text: `${label} ${short(value)}`, showarrow: false, font: { size: 10, color: scene.colour("reference") }, borderpad: 1 })));
}

/** Histogram from the 2 % to the 98 % quantile, widened to include `places`; the outer bins hold everything beyond. `part`: the same for `some` values. */
export function inBins(values, places, some = [], bins = 40) {
  const finite = values.filter(Number.isFinite).sort((a, b) => a - b), last = finite.length - 1;
  if (last < 0) return { x: [], y: [], ends: [0, 1], part: [] };
  const high = Math.max(finite[Math.round(0.98 * last)], ...places);
  let low = Math.min(finite[Math.round(0.02 * last)], ...places);
  const pad = 0.15 * (high - low) || 0.5, width = (high - low + 2 * pad) / bins;
  low -= pad;
  const percentages = (part) => {
    const y = Array(bins).fill(0);
    for (const value of part) y[Math.min(bins - 1, Math.max(0, Math.floor((value - low) / width)))] += 100 / finite.length;
    return y;
  };
  const y = percentages(finite);
  return { x: y.map((_, i) => low + (i + 0.5) * width), y, ends: [low, low + bins * width], part: percentages(some.filter(Number.isFinite)) };
}

function drawHistogram(scene) {
  const { spec, data } = scene, [line, some] = spec.lines, array = data && data.arrays[line.series];
  const held = some && data && data.arrays[some.series];
  const knobs = data ? data.knobs : {};
  const marks = spec.uprights.map((u) => ({ name: u.name, value: u.knob ? u.at + u.times * knobs[u.knob] : u.at })).filter((u) => Number.isFinite(u.value));
  const { x, y, ends, part } = inBins(array ? array.y : [], marks.map((u) => u.value), held ? held.y : []);
  const top = 1.08 * Math.max(5, ...y);
  for (const [of, heights] of some ? [[line, y.map((all, i) => all - part[i])], [some, part]] : [[line, y]]) {
    if (x.length) scene.traces.push({ type: "bar", x, y: heights, width: 0.92 * (x[1] - x[0]), marker: { color: scene.colour(of.colour) },
      hovertemplate: `%{y:.2~g} % near %{x:.3~g}<extra></extra>` });
    scene.legend.push({ name: of.name, colour: scene.colour(of.colour), dash: "bar" });
  }
  for (const { name, value } of marks) {
    const ink = scene.colour(name ? "truth" : "reference");
    stroke(scene, [value, value], [0, top], ink, { dash: name ? "6px,4px" : "dot", width: 1.6, hover: false });
    if (name) scene.legend.push({ name, colour: ink, dash: "dash", value });
  }
  scene.lower.range = x.length ? ends : [0.5, 1.5];
  scene.left.range = [0, top];
  if (array) writeStep(scene, array.step);
}

/** Arrays against each other, or against their indices. */
function drawXY(scene) {
  const { spec, data } = scene, left = [], right = [], across = [];
  let step;
  for (const line of spec.lines) {
    const array = data && data.arrays[line.series], colour = scene.colour(line.colour);
    scene.legend.push({ name: line.name, colour, dash: line.dots === "alone" ? "dot-big" : line.dash });
    if (!array) continue;
    const x = line.x && data.arrays[line.x] ? data.arrays[line.x].y : array.y.map((_, i) => i);
    stroke(scene, x, array.y, colour, { name: line.name, right: line.right, dash: line.dash });
    const trace = scene.traces[scene.traces.length - 1];
    trace.mode = { "": "lines", joined: "lines+markers", alone: "markers" }[line.dots];
    trace.marker = { color: colour, size: line.dots === "alone" ? 5 : 8, opacity: line.dots === "alone" ? 0.55 : 1 };
    trace.hovertemplate = `%{x:.3~g}, %{y:.3~g}<extra>${line.name}</extra>`;
    trace.cliponaxis = line.dots === "alone";
    const error = line.spread && data.arrays[line.spread], bars = (array) => ({ type: "data", array, color: colour, thickness: 1, width: 0 });
    if (line.x_spread && data.arrays[line.x_spread]) trace.error_x = bars(data.arrays[line.x_spread].y);
    if (error && (line.x_spread || line.dots)) trace.error_y = bars(error.y);
    else if (error) band(scene, x, array.y.map((v, i) => v - error.y[i]), array.y.map((v, i) => v + error.y[i]), colour, line.right);
    across.push(x);
    (line.right ? right : left).push(array.y);
    if (spec.log || line.right || spec.lines.length > 1) scene.legend[scene.legend.length - 1].value = array.y[array.y.length - 1];
    step = array.step;
  }
  const level = data ? data.last[spec.reference] : undefined;
  if (Number.isFinite(level)) left.push([0, level]);
  const [low, high] = extent(across), pad = across.length ? 0.04 * (high - low) : 0;
  scene.lower.range = spec.x_range || [low - pad, high + pad];
  scene.left.range = spec.range || (spec.log ? extent(left) : padded(extent(left)));
  if (spec.log) {
    const ends = (left.length ? scene.left.range : [0.1, 1]).map((end) => Math.max(end, 1e-12));
    const [low, high] = [0.83 * ends[0], 1.2 * ends[1]];
    const tickvals = logTicks(low, high); // as full numbers: plotly.js would label ticks with one digit
    Object.assign(scene.left, { type: "log", range: [Math.log10(low), Math.log10(high)], tickmode: "array", tickvals, ticktext: tickvals.map(short) });
  }
  if (spec.lines.some((line) => line.right)) scene.right = { ...scene.left, range: spec.right_range || padded(extent(right.concat(right.length ? [[0]] : []))) };
  if (Number.isFinite(level)) {
    const colour = scene.colour("reference");
    stroke(scene, scene.lower.range, [level, level], colour, { name: "δ", dash: "dot", width: 1.6 });
    scene.legend.push({ name: "δ", colour, dash: "dot", value: level });
  }
  if (spec.identity) {
    const ends = [Math.max(scene.lower.range[0], scene.left.range[0]), Math.min(scene.lower.range[1], scene.left.range[1])];
    stroke(scene, ends, ends, scene.colour("truth"), { dash: "6px,4px", width: 1.6, hover: false });
    scene.legend.push({ name: "equal", colour: scene.colour("truth"), dash: "dash" });
  }
  if (step) writeStep(scene, step);
}

/** Write the step an array is from into the legend if it is older than the curves. */
function writeStep(scene, step) {
  if (step < scene.data.step) scene.legend.push({ name: `step ${whole(step)}`, colour: "transparent" });
}

function drawWeights(scene) {
  const batch = scene.data && scene.data.batch;
  scene.lower.range = [0, 1];
  scene.lower.dtick = 0.25;
  scene.left.rangemode = "tozero";
  let top = 4;
  if (batch) {
    const n = batch.clean.length, x = batch.clean.map((_, i) => (i + 0.5) / n);
    const flips = scene.data.pairs && scene.data.pairs.flipped > 0; // known for any pair, in this batch or not
    top = 1.08 * Math.max(...batch.clean.map((v, i) => v + batch.flipped[i]), 3);
    const bar = (y, colour, name) => scene.traces.push({ type: "bar", x, y, name, marker: { color: colour }, width: 0.92 / n,
      hovertemplate: `%{y} pairs, weight %{x:.2f}<extra>${name}</extra>` });
    bar(batch.clean, scene.colour("weight"), flips ? "right label" : "pairs");
    scene.legend.push({ name: flips ? "right label" : "pairs", colour: scene.colour("weight"), dash: "bar" });
    if (flips) {
      bar(batch.flipped, scene.colour("rejected"), "wrong label");
      scene.legend.push({ name: "wrong label", colour: scene.colour("rejected"), dash: "bar" });
    }
  }
  stroke(scene, [0.5, 0.5], [0, top], scene.colour("reference"), { dash: "dot", width: 1.6, hover: false });
  scene.legend.push({ name: "½", colour: scene.colour("reference"), dash: "dot" });
  scene.left.range = [0, top];
}

function drawHeat(scene) {
  const heat = scene.data && scene.data.heat;
  scene.left.range = [0, 1];
  scene.left.dtick = 0.25;
  scene.left.showgrid = scene.lower.showgrid = false;
  const end = heat ? heat.x[heat.x.length - 1] : 1;
  scene.lower.range = [0, Math.max(1, end)];
  if (heat) {
    const bins = heat.z[0].length, colour = scene.colour("weight");
    const z = Array.from({ length: bins }, (_, row) => heat.z.map((column) => Math.sqrt(column[row])));
    const scale = [0, 0.25, 0.5, 0.75, 1].map((at) => [at, withOpacity(colour, at)]);
    scene.traces.push({ type: "heatmap", x: [0, ...heat.x], y: Array.from({ length: bins + 1 }, (_, i) => i / bins), z, zmin: 0, zmax: 5.5,
      colorscale: scale, showscale: false, customdata: Array.from({ length: bins }, (_, row) => heat.z.map((column) => column[row])),
      hovertemplate: "step %{x}, weight %{y:.2f}: %{customdata} %<extra></extra>" });
    scene.legend.push({ name: "0 %", colour: withOpacity(colour, 0.08), dash: "bar" }, { name: "8 %", colour: withOpacity(colour, 0.52), dash: "bar" },
      { name: "≥ 30 % of pairs", colour, dash: "bar" });
  }
  stroke(scene, scene.lower.range, [0.5, 0.5], scene.colour("reference"), { dash: "dot", width: 1.6, hover: false });
}

function drawPlane(scene) {
  const trail = scene.data && scene.data.trail, backdrop = scene.backdrop, ghosts = scene.ghosts, who = scene.spec.who;
  const far = Math.max(0, ...(trail ? trail.kl : []), ...ghosts.flatMap((g) => g.trail.kl));
  const best = knowsOptimum(backdrop, scene.beta) ? [atBeta(backdrop, "kl", scene.beta), atBeta(backdrop, "reward", scene.beta)] : null;
  const right = 1.2 * Math.max(far, best ? Math.min(best[0], Math.max(3 * far, far + 2.5)) : 0, 0.05);
  const truth = scene.colour("truth"), policy = scene.colour("policy"), rewards = [];
  if (backdrop) {
    const order = backdrop.kl.map((_, i) => i).sort((a, b) => backdrop.kl[a] - backdrop.kl[b]);
    const x = [0], y = [backdrop.ref_reward], error = [0];
    for (const i of order) {
      x.push(backdrop.kl[i]);
      y.push(backdrop.reward[i]);
      if (backdrop.reward_se) error.push(backdrop.reward_se[i]);
      if (backdrop.kl[i] > right) break;
    }
    rewards.push(y);
    if (backdrop.reward_se) band(scene, x, y.map((v, i) => v - error[i]), y.map((v, i) => v + error[i]), truth, false);
    stroke(scene, x, y, truth, { name: "frontier", dash: "6px,4px", width: 1.6 });
    scene.legend.push({ name: backdrop.reward_se ? "frontier, estimate ± its error" : "frontier", colour: truth, dash: "dash" });
    scene.traces.push({ type: "scatter", mode: "markers", x: [0], y: [backdrop.ref_reward], name: "π_ref", yaxis: "y", cliponaxis: false,
      marker: { color: scene.colour("reference"), size: 8 }, hovertemplate: "π_ref<extra></extra>" });
  }
  for (const ghost of ghosts) {
    stroke(scene, ghost.trail.kl, ghost.trail.reward, policy, { name: ghost.label, width: 1, opacity: 0.45 });
    rewards.push(ghost.trail.reward);
  }
  if (trail) {
    rewards.push(trail.reward);
    stroke(scene, trail.kl, trail.reward, policy, { name: who, width: trail.kl_se ? 1 : 2.2 });
    const n = trail.kl.length, bars = (array) => ({ type: "data", array, color: policy, thickness: 1, width: 0 });
    if (trail.kl_se) {
      Object.assign(scene.traces[scene.traces.length - 1], { error_x: bars(trail.kl_se), error_y: bars(trail.reward_se) });
      rewards.push(...[-1, 1].map((sign) => trail.reward.map((v, i) => v + sign * trail.reward_se[i])));
    }
    scene.traces.push({ type: "scatter", mode: "markers", x: [trail.kl[n - 1]], y: [trail.reward[n - 1]], yaxis: "y",
      marker: { color: policy, size: 11, line: { color: scene.dark ? "#111" : "#fff", width: 1.5 } },
      hovertemplate: `${who} now<br>KL %{x:.3f}, E[r] %{y:.3f}<extra></extra>` });
  }
  scene.legend.push({ name: trail && trail.kl_se ? `${who} now, ± error` : `${who} now`, colour: policy, dash: "dot-big" });
  if (best) {
    scene.traces.push({ type: "scatter", mode: "markers", x: [best[0]], y: [best[1]], yaxis: "y",
      marker: { color: truth, size: 11, symbol: "diamond", line: { color: scene.dark ? "#111" : "#fff", width: 1.5 } },
      hovertemplate: `π* at β = ${short(scene.beta)}<br>KL %{x:.3f}, E[r] %{y:.3f}<extra></extra>` });
    rewards.push([best[1]]);
    scene.legend.push({ name: `π* (β ${short(scene.beta)})`, colour: truth, dash: "diamond" });
  }
  writeNote(scene, scene.spec.note, 0, "bottom");
  scene.lower.range = [-0.015 * right, right];
  scene.left.range = padded(extent(rewards));
}
