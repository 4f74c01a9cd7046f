// Building blocks of a page: elements, our notation, cards with a "?", and the shadow tree that isolates the page.

import PAGE_CSS from "./page.css" with { type: "text" };

let serial = 0;

/** An id that is unique on this page. */
export const freshId = () => `rlhf-${(serial += 1)}`;

/**
 * Make an element: its properties or attributes, then its children. Strings become text nodes: texts of models and of
 * Python are never parsed as HTML. The property `notation` is a text in our notation.
 */
export function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "class") node.className = value;
    else if (key === "style") node.style.cssText = value;
    else if (key === "notation") setNotation(node, value);
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key in node && !key.startsWith("aria")) node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

/** Our notation, "π_ref", "γ^t" or "s_{t+1}", cut into {text, shift}: 1 is below the line, −1 above; but not the name "grad_norm".
 * Never for answers. */
export const pieces = (text) => text.split(/([_^]\{[^}]*\}|[_^][\p{L}\p{N}](?![\p{L}\p{N}_])|(?<![a-z]{2})[_^][\p{L}\p{N}]+)/u).map((part, i) =>
  (i % 2 ? { text: part.replace(/^.\{?|\}$/g, ""), shift: part[0] === "_" ? 1 : -1 } : { text: part, shift: 0 }));

/** Write a text in our notation into `node`; returns the node. */
export function setNotation(node, text) {
  node.replaceChildren(...pieces(text).map((part) => (part.shift ? make(part.shift > 0 ? "sub" : "sup", {}, part.text) : part.text)));
  return node;
}

/** The same text as a screen reader should read it. */
export const spoken = (text) => text.replaceAll("_", " ");

/** Write a text into `node` if it differs from the last one. */
export function write(node, text, into = (target, value) => (target.textContent = value)) {
  if (node.written === text) return;
  node.written = text;
  into(node, text);
}

/**
 * Begin a page in `el`; returns its root, an element of the classes "rlhf" and `name`.
 *
 * It is in a shadow tree. So the browser need not match the notebook's thousands of style rules against every stroke of a
 * plot, which halves the drawing time, and neither page can restyle the other. Keys pressed here do not trigger shortcuts
 * of the notebook.
 */
export function mount(el, name, css, properties = {}) {
  const root = make("div", { class: `rlhf ${name}`, ...properties });
  root.addEventListener("keydown", (event) => event.stopPropagation());
  const host = make("div", { class: `${name}-host`, "data-lm-suppress-shortcuts": "true" });
  host.attachShadow({ mode: "open" }).append(make("style", {}, PAGE_CSS + css), root);
  el.append(host);
  return root;
}

/**
 * A card: a title in our notation, the `body`, and, if there is a formula, a "?" that shows it over the card.
 *
 * - formula: [["math" | "note", text]]; symbols: [[symbol, meaning]]; all in our notation.
 * - signal: an AbortSignal that removes the card's listeners.
 */
export function card({ title, formula = [], symbols = [] }, body, signal) {
  const head = make("div", { class: "rlhf-head" }, make("h4", { notation: title }));
  const root = make("section", { class: "rlhf-card", "aria-label": spoken(title) }, head, ...body);
  if (!formula.length) return root;
  const box = make("div", { class: "rlhf-formula", id: freshId(), role: "note", hidden: true },
    ...formula.map(([kind, text]) => make("div", { class: `rlhf-${kind}`, notation: text })));
  if (symbols.length) box.append(make("dl", {}, ...symbols.flatMap(([symbol, meaning]) => [make("dt", { notation: symbol }), make("dd", { notation: meaning })])));
  const ask = make("button", {
    class: "rlhf-ask", type: "button", title: "Formula", "aria-label": `Formula: ${spoken(title)}`, "aria-expanded": "false", "aria-controls": box.id,
  }, "?");
  head.append(ask);
  root.append(box);
  const show = (open) => {
    box.hidden = !open;
    ask.setAttribute("aria-expanded", String(open));
  };
  ask.addEventListener("click", () => show(box.hidden), { signal });
  document.addEventListener("pointerdown", (event) => {
    if (!box.hidden && !event.composedPath().some((node) => node === box || node === ask)) show(false);
  }, { signal });
  root.addEventListener("keydown", (event) => event.key === "Escape" && show(false), { signal });
  return root;
}
