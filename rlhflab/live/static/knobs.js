// The controls of a board: one slider per knob, which no frame moves while it is in use, and the form above them.

import { make } from "../../static/dom.js";
import { sliderOf } from "../../static/slider.js";

/** As Knob.validate in Python. */
function isAllowed(spec, value) {
  const highEnough = spec.at_least === null ? value > spec.above : value >= spec.at_least;
  return Number.isFinite(value) && highEnough && (spec.at_most === null || value <= spec.at_most) && (!spec.whole || Number.isInteger(value));
}

/** The form above a board: one list per setting that is chosen before a training; another choice builds a new one. */
export class ChoiceRow {
  constructor(post) {
    this.post = post;
    this.node = make("div", { class: "rlhf-choices", hidden: true });
    this.lists = new Map();
  }

  build(choices) {
    this.node.hidden = !choices.length;
    this.lists.clear();
    this.node.replaceChildren(...choices.map((choice) => {
      const list = make("select", { "aria-label": choice.label, onchange: () => this.post(choice.name, list.selectedIndex) },
        ...choice.options.map((text) => make("option", {}, text)));
      this.lists.set(choice.name, list);
      return make("label", { class: "rlhf-choice", title: choice.help }, make("span", { class: "rlhf-knob-label" }, choice.label), list);
    }), ...(choices.length ? [make("span", { class: "rlhf-choice-note" }, "another choice starts anew")] : []));
  }

  follow(places) {
    for (const [name, list] of this.lists) if (list.getRootNode().activeElement !== list && name in places) list.selectedIndex = places[name];
  }
}

export class KnobRow {
  /**
   * `page` identifies this page among all that show the board; `post(name, value)` sends a value, `notice(text)` shows
   * why one is not allowed, `moved(name)` is called at every move of a slider, by the user or the kernel.
   */
  constructor({ page, post, notice, moved }) {
    Object.assign(this, { page, post, notice, moved });
    this.node = make("div", { class: "rlhf-knobs" });
    this.knobs = new Map();
  }

  build(specs) {
    this.node.replaceChildren();
    this.knobs.clear();
    for (const spec of specs) this.add(spec);
  }

  /** The value on a slider; undefined if there is no such knob. */
  value(name) {
    return this.knobs.get(name)?.value;
  }

  add(spec) {
    const knob = { spec, value: spec.default, rev: -1, held: false, sent: 0, timer: null };
    const post = () => {
      knob.timer = null;
      knob.sent = Date.now();
      this.post(spec.name, knob.value);
    };
    const change = (value, source) => { // at most 20 messages a second, the newest always
      this.notice("");
      knob.show(value, source);
      this.moved(spec.name);
      if (knob.timer === null) knob.timer = setTimeout(post, Math.max(0, 50 - (Date.now() - knob.sent)));
    };
    const refuse = () => this.notice(`${spec.label} must be ${spec.allowed}.`);
    const title = `${spec.help} Double-click: back to ${spec.default}.`.trim();
    const { slider, box, show } = sliderOf({ label: spec.label, min: spec.low, max: spec.high, log: spec.log, step: spec.whole ? 1 : undefined, title },
      { change, refuse, allows: (value) => isAllowed(spec, value) });
    knob.show = (value, source) => {
      knob.value = value;
      show(value, source);
    };
    slider.addEventListener("pointerdown", () => (knob.held = true));
    box.addEventListener("focus", () => (knob.held = true));
    const release = () => (knob.held = false);
    for (const event of ["pointerup", "pointercancel", "change", "blur"]) slider.addEventListener(event, release);
    box.addEventListener("blur", release);
    slider.addEventListener("dblclick", () => change(spec.default, null));
    this.node.append(make("label", { class: "rlhf-knob", title }, make("span", { class: "rlhf-knob-label" }, spec.label), slider, box));
    this.knobs.set(spec.name, knob);
    knob.show(spec.default, null);
  }

  /** Take over the newest frame's knob values, except for a knob that is in use or was moved on this page. */
  follow(values) {
    for (const [name, knob] of this.knobs) {
      const seen = values[name];
      if (!seen) continue;
      if (knob.rev === -1 || (seen.rev > knob.rev && seen.by !== this.page)) {
        if (knob.held || knob.timer !== null) continue; // in use
        const moved = Math.abs(knob.value - seen.value) > 1e-12 * Math.abs(seen.value);
        knob.rev = seen.rev;
        if (moved) { knob.show(seen.value, null); this.moved(name); }
      } else if (seen.rev > knob.rev) knob.rev = seen.rev;
    }
  }
}
