// What every explorable draws with on a canvas: lines, dots, texts in our notation, axes. Texts from Python are untrusted:
// they reach a page through fillText and textContent only.

import { isDark } from "../../static/colours.js";
import { pieces } from "../../static/dom.js";
import { logTicks, short, ticks, toFraction } from "../../static/numbers.js";

/** Fit a canvas to its box and the screen's resolution, clear it, and return its context. */
export function surface(node, { width, height, ratio }) {
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (node.width !== w || node.height !== h) [node.width, node.height] = [w, h];
  const context = node.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

/** The page's colours and font as a panel needs them. */
export function themeOf(root) {
  const css = getComputedStyle(root);
  const dark = isDark(root);
  return {
    font: css.fontFamily, small: `11px ${css.fontFamily}`, dark, background: css.backgroundColor, text: css.color,
    muted: dark ? "#a8a8a8" : "#666666", grid: dark ? "#333333" : "#ececec",
    reference: dark ? "#7d7d7d" : "#b3b3b3", ink: dark ? "#e8e8e8" : "#333333", accent: css.getPropertyValue("--rlhf-accent"),
  };
}

function trace(context, points) {
  context.beginPath();
  points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
}

export function line(context, points, { colour, width = 1, dash = [], alpha = 1 }) {
  context.save();
  trace(context, points);
  context.strokeStyle = colour;
  context.globalAlpha = alpha;
  context.lineWidth = width;
  context.lineJoin = "round";
  context.setLineDash(dash);
  context.stroke();
  context.restore();
}

/** A line through the whole plot, at an x or at a y. */
export const verticalAt = (context, at, x, style) => line(context, [[at.x(x), at.top], [at.x(x), at.base]], style);
export const horizontalAt = (context, at, y, style) => line(context, [[at.left, at.y(y)], [at.right, at.y(y)]], style);

/** A filled polygon. */
export function area(context, points, { colour, alpha = 1 }) {
  context.save();
  trace(context, points);
  context.closePath();
  context.fillStyle = colour;
  context.globalAlpha = alpha;
  context.fill();
  context.restore();
}

export function dot(context, x, y, radius, fill, ring) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = fill;
  context.fill();
  if (!ring) return;
  context.lineWidth = 2;
  context.strokeStyle = ring;
  context.stroke();
}

export function arrow(context, [x0, y0], [x1, y1], { colour, width = 2, head = 8, alpha = 1 }) {
  line(context, [[x0, y0], [x1, y1]], { colour, width, alpha });
  if (Math.hypot(x1 - x0, y1 - y0) < 1) return;
  const angle = Math.atan2(y1 - y0, x1 - x0);
  const wing = (turn) => [x1 - head * Math.cos(angle + turn), y1 - head * Math.sin(angle + turn)];
  area(context, [[x1, y1], wing(0.45), wing(-0.45)], { colour, alpha });
}

/** Draw with everything outside the axes cut off. */
export function inside(context, { left, right, top, base }, draw) {
  context.save();
  context.beginPath();
  context.rect(left, top, right - left, base - top);
  context.clip();
  draw();
  context.restore();
}

export function label(context, text, x, y, { colour, align = "left", font, halo } = {}) {
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

/** Cut a text with … to fit `width` in the current font; texts are short, so a linear search is enough. */
export function fitted(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let kept = Array.from(text);
  while (kept.length && context.measureText(kept.join("") + "…").width > width) kept = kept.slice(0, -1);
  return kept.join("") + "…";
}

/** Draw a text in our notation at x, which `align` ("left", "center", "right") places; returns its width. */
export function notation(context, text, x, y, { size = 11, colour, family, align = "left", halo }) {
  const parts = pieces(text).map(({ text: part, shift }) => {
    context.font = `${shift ? Math.round(0.78 * size) : size}px ${family}`;
    return { part, shift, font: context.font, width: context.measureText(part).width };
  });
  const width = parts.reduce((sum, { width: w }) => sum + w, 0);
  let at = align === "right" ? x - width : align === "center" ? x - width / 2 : x;
  for (const { part, shift, font, width: w } of parts) {
    label(context, part, at, y + [-0.4, 0, 0.3][shift + 1] * size, { colour, font, halo });
    at += w;
  }
  return width;
}

/** A row of colour marks with names, from x on; `items` are [text, colour] in our notation. Returns where it ends. */
export function legend(context, items, x, y, theme) {
  for (const [text, colour] of items) {
    context.fillStyle = colour;
    context.fillRect(x, y - 1.5, 14, 3);
    x += 32 + notation(context, text, x + 18, y, { colour: theme.text, family: theme.font });
  }
  return x;
}

/** Level lines of values[row][column] on a unit grid: a list of segments [x0, y0, x1, y1] (marching squares). */
export function contour(values, level) {
  const segments = [];
  for (let j = 0; j + 1 < values.length; j++) {
    const [here, above] = [values[j], values[j + 1]];
    for (let i = 0; i + 1 < here.length; i++) {
      if (!(Math.min(here[i], here[i + 1], above[i], above[i + 1]) < level)) continue; // most cells have no line in them
      if (!(Math.max(here[i], here[i + 1], above[i], above[i + 1]) >= level)) continue;
      const corners = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]];
      const cuts = [];
      for (let k = 0; k < 4; k++) {
        const [[x0, y0], [x1, y1]] = [corners[k], corners[(k + 1) % 4]];
        const [a, b] = [values[y0][x0] - level, values[y1][x1] - level];
        if (a < 0 !== b < 0) cuts.push([x0 + (a / (a - b)) * (x1 - x0), y0 + (a / (a - b)) * (y1 - y0)]);
      }
      for (let k = 0; k + 1 < cuts.length; k += 2) segments.push([...cuts[k], ...cuts[k + 1]]);
    }
  }
  return segments;
}

// -------------------------------------------------------------------------------------------------------- axes

/**
 * Where things are in a plot with two axes: edges in pixels, `x` and `y` from values to pixels, `valueX` and `valueY`
 * back. `logX` and `logY` make an axis logarithmic.
 */
export function plotLayout({ width, height }, { x, y, logX = false, logY = false, left = 44, right = 12, top = 12, bottom = 34 }) {
  const axis = ([low, high], log, from, to) => {
    const fraction = log ? (v) => toFraction(v, low, high) : (v) => (v - low) / (high - low);
    return {
      place: (v) => from + fraction(v) * (to - from),
      value: (p) => (log ? low * Math.exp(((p - from) / (to - from)) * Math.log(high / low)) : low + ((p - from) / (to - from)) * (high - low)),
    };
  };
  const [a, b] = [axis(x, logX, left, width - right), axis(y, logY, height - bottom, top)];
  return {
    left, right: width - right, top, base: height - bottom, foot: height - 9, ranges: { x, y }, logX, logY,
    x: a.place, y: b.place, valueX: a.value, valueY: b.value,
  };
}

/** Grid, tick labels and names of the axes of a `plotLayout`; names are in our notation. */
export function axes(context, at, theme, { xName = "", yName = "", xTicks, yTicks, xCount = 5, yCount = 4, xFormat = short, yFormat = short }) {
  const { left, right, top, base, ranges } = at;
  const chosen = (given, range, log, count) => given ?? (log ? logTicks(...range) : ticks(...range, count));
  for (const tick of chosen(yTicks, ranges.y, at.logY, yCount)) {
    horizontalAt(context, at, tick, { colour: theme.grid });
    label(context, yFormat(tick), left - 6, at.y(tick), { colour: theme.muted, align: "right", font: theme.small });
  }
  for (const tick of chosen(xTicks, ranges.x, at.logX, xCount)) {
    verticalAt(context, at, tick, { colour: theme.grid });
    label(context, xFormat(tick), at.x(tick), base + 12, { colour: theme.muted, align: "center", font: theme.small });
  }
  notation(context, xName, right, at.foot, { colour: theme.muted, align: "right", family: theme.font });
  notation(context, yName, left + 4, top - 3, { colour: theme.muted, family: theme.font });
  line(context, [[left, top], [left, base], [right, base]], { colour: theme.muted });
}
