// Colours of plots, and whether the page is dark.

/** Colours that are distinguishable for colour-blind readers, on light and on dark. */
export const BLUE = "#0072B2";
export const VERMILION = "#D55E00";
export const GREEN = "#009E73";
export const ORANGE = "#E69F00";
export const PURPLE = "#CC79A7";

/** A colour #rrggbb with an opacity from 0 to 1. */
export function withOpacity(hex, opacity) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return `rgba(${r},${g},${b},${opacity})`;
}

/** Whether the background of `node` is dark; if it is transparent, whether the browser prefers dark pages. */
export function isDark(node) {
  const numbers = getComputedStyle(node).backgroundColor.match(/[\d.]+/g)?.map(Number);
  if (!numbers || numbers[3] === 0) return matchMedia("(prefers-color-scheme: dark)").matches;
  const [r, g, b] = numbers;
  return 0.299 * r + 0.587 * g + 0.114 * b < 128;
}

/**
 * Call `changed` soon, and whenever the colours of `root` or the screen's resolution change; returns a function that ends
 * it. Front ends have no common event for a change of theme, so this polls; a hidden page has no size to draw in, and is
 * checked again when it is back.
 */
export function watchLook(root, changed) {
  let seen = "";
  const timer = setInterval(() => {
    if (!root.clientWidth || root.checkVisibility?.({ contentVisibilityAuto: true }) === false) return;
    const css = getComputedStyle(root);
    const look = `${css.color} ${css.backgroundColor} ${window.devicePixelRatio}`;
    if (look !== seen) changed();
    seen = look;
  }, 400);
  return () => clearInterval(timer);
}
