// Helpers for the widgets of rlhflab: elements, formulas, colours, plotly.js. No dependencies.

/** Make an element; properties, then children. Strings become text nodes: model text is never parsed as HTML. */
function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "class") node.className = value;
    else if (key === "style") node.style.cssText = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key in node && !key.startsWith("aria")) node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

/** Write a formula into `node`: _x, _{…} and ^{…} become subscripts and superscripts. */
function writeFormula(node, text) {
  node.replaceChildren();
  for (const part of text.split(/(_\{[^}]*\}|\^\{[^}]*\}|_[A-Za-z0-9θφπ](?![A-Za-z0-9_]))/)) {
    if (/^[_^](\{|.$)/.test(part) && part.length > 1) {
      const inner = part.slice(1).replace(/^\{|\}$/g, "");
      node.append(make(part[0] === "_" ? "sub" : "sup", {}, inner));
    } else if (part) node.append(part);
  }
  return node;
}

/** Whether a panel shows arrays, not series over steps. */
function isOfArrays(spec) {
  return spec.kind === "histogram" || spec.kind === "xy";
}

/** Three or four digits, no more: 0.693, 12.3, 1,240, 5e-4. */
function short(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 1e-3 || size >= 1e6) return value.toExponential(Math.max(0, digits - 2)).replace("e+", "e").replace(/\.0+e/, "e");
  if (size >= 1000) return Math.round(value).toLocaleString("en-US");
  const text = value.toFixed(Math.max(0, Math.min(6, digits - 1 - Math.floor(Math.log10(size)))));
  return text.replace("-", "−");
}

/** As short, without zeros at the end: 0.3, 2.5, 1e-4. */
function brief(value) {
  const text = short(value);
  return /\.\d*0+$/.test(text) ? text.replace(/\.?0+$/, "") : text;
}

function seconds(value) {
  if (value === null || value === undefined) return "";
  const s = Math.max(0, Math.round(value));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

/** Whether the background behind `node` is dark. */
function isDark(node) {
  const numbers = getComputedStyle(node).backgroundColor.match(/[\d.]+/g);
  if (!numbers || (numbers.length > 3 && Number(numbers[3]) === 0)) return matchMedia("(prefers-color-scheme: dark)").matches;
  const [r, g, b] = numbers.map(Number);
  return 0.299 * r + 0.587 * g + 0.114 * b < 128;
}

function withOpacity(hex, opacity) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return `rgba(${r},${g},${b},${opacity})`;
}

// ---- plotly.js, once a page ----------------------------------------------------------------------------------------
// Whoever needs it first asks its kernel; the answer (gzipped, a binary buffer or pieces of base64) serves all views.

function plotlyShelf() {
  if (!window.__rlhflabPlotly) {
    const shelf = { asked: 0, parts: [] };
    shelf.promise = new Promise((resolve) => (shelf.resolve = resolve));
    window.__rlhflabPlotly = shelf;
  }
  return window.__rlhflabPlotly;
}

/** Resolve to plotly.js; `send` asks this view's kernel for it, at most every 8 seconds from all views together. */
function getPlotly(send) {
  if (window.Plotly) return Promise.resolve(window.Plotly);
  const shelf = plotlyShelf();
  const ask = () => {
    if (window.Plotly) return shelf.resolve(window.Plotly);
    if (Date.now() - shelf.asked < 8000) return;
    shelf.asked = Date.now();
    send({ op: "plotly" });
  };
  ask();
  const timer = setInterval(ask, 2000);
  shelf.promise.then(() => clearInterval(timer));
  return shelf.promise;
}

/** Take in a message {op: "plotly"}; further copies are ignored. */
async function receivePlotly(message, buffers) {
  const shelf = plotlyShelf();
  if (window.Plotly) return shelf.resolve(window.Plotly);
  let bytes;
  if (message.parts) {
    shelf.parts[message.part] = message.text;
    if (Object.keys(shelf.parts).length < message.parts || shelf.busy) return;
    bytes = Uint8Array.from(atob(shelf.parts.join("")), (c) => c.charCodeAt(0));
  } else {
    if (!buffers || !buffers[0] || shelf.busy) return;
    const view = buffers[0];
    bytes = view instanceof ArrayBuffer ? new Uint8Array(view) : new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  }
  shelf.busy = true;
  try {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const source = await new Response(stream).text();
    // Notebook pages may define AMD's `define` or CommonJS's `module`: hide them, so that the file sets window.Plotly.
    const holder = { exports: {} };
    new Function("define", "require", "module", "exports", source)(undefined, undefined, holder, holder.exports);
    if (!window.Plotly) window.Plotly = holder.exports;
    shelf.resolve(window.Plotly);
  } finally {
    shelf.busy = false;
    shelf.parts = [];
  }
}

/** plotly.js writes its style rules into the document's head: copy them into a shadow tree. */
function adoptPlotlyStyle(shadow) {
  const global = document.getElementById("plotly.js-style-global");
  if (!global || !global.sheet) return;
  const sheet = new CSSStyleSheet();
  sheet.replaceSync([...global.sheet.cssRules].map((rule) => rule.cssText).join("\n"));
  shadow.adoptedStyleSheets = [...shadow.adoptedStyleSheets, sheet];
}
