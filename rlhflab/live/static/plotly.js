// plotly.js, once per page: the first board to need it asks its kernel; the answer (gzipped, a binary buffer or chunks
// of base64) serves all views.

function plotlyShelf() {
  if (!window.__rlhflabPlotly) {
    const shelf = { asked: 0, parts: [] };
    shelf.promise = new Promise((resolve) => (shelf.resolve = resolve));
    window.__rlhflabPlotly = shelf;
  }
  return window.__rlhflabPlotly;
}

/** Resolve to plotly.js; `send` asks this view's kernel for it, at most once every 8 seconds over all views. */
export function getPlotly(send) {
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
export async function receivePlotly(message, buffers) {
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
export function adoptPlotlyStyle(shadow) {
  const global = document.getElementById("plotly.js-style-global");
  if (!global || !global.sheet) return;
  const sheet = new CSSStyleSheet();
  sheet.replaceSync([...global.sheet.cssRules].map((rule) => rule.cssText).join("\n"));
  shadow.adoptedStyleSheets = [...shadow.adoptedStyleSheets, sheet];
}
