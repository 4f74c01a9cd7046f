// The top of a board: its title, its state, the buttons, and the progress of the training.

import { make, write } from "../../static/dom.js";
import { duration, steady, whole } from "../../static/numbers.js";

const STATES = { // kind and text of the badge
  connecting: ["ready", "Connecting…"],
  idle: ["ready", "Ready"], preparing: ["busy", "Preparing…"], running: ["run", "Training"], paused: ["rest", "Paused"],
  stopping: ["busy", "Stopping…"], stopped: ["rest", "Stopped"], finished: ["done", "Finished"], error: ["bad", "Error"],
};

export class Header {
  /** `press(what)`: a button is pressed, "start", "pause", "resume", "step", "stop" or "reset". */
  constructor(press) {
    const button = (label, what, title) => make("button", { type: "button", class: "rlhf-button", title, onclick: () => press(what) }, label);
    this.startButton = make("button", { type: "button", class: "rlhf-button rlhf-primary", onclick: () => {
      const { what } = this.startButton.dataset;
      if (what === "start") this.say("Starting…", "busy");
      press(what);
    } });
    this.stepButton = button("Step", "step", "Make one update, then pause");
    this.stopButton = button("Stop", "stop", "End this run");
    this.resetButton = button("Reset", "reset", "Begin anew; the curves stay as faint lines");
    this.heading = make("h3", { class: "rlhf-title" });
    this.pill = make("span", { class: "rlhf-pill", "aria-live": "polite" });
    this.bar = make("div", { class: "rlhf-bar-fill" });
    this.progress = make("div", { class: "rlhf-bar", role: "progressbar", "aria-label": "Progress", "aria-valuemin": "0" }, this.bar);
    this.progressText = make("span", { class: "rlhf-progress-text" });
    this.node = make("header", { class: "rlhf-header" }, this.heading, this.pill,
      make("div", { class: "rlhf-buttons", role: "group", "aria-label": "Training" },
        this.startButton, this.stepButton, this.stopButton, this.resetButton),
      make("div", { class: "rlhf-progress" }, this.progress, this.progressText));
  }

  say(text, kind = "ready") {
    write(this.pill, text); // so that a screen reader announces only changes
    this.pill.dataset.kind = kind;
  }

  showState(state) {
    const [kind, text] = STATES[state] ?? ["ready", state];
    this.say(text, kind);
    const what = state === "running" ? "pause" : state === "paused" ? "resume" : "start";
    const label = { pause: "Pause", resume: "Resume", start: ["stopped", "finished", "error"].includes(state) ? "Start again" : "Start" }[what];
    if (this.startButton.textContent !== label) this.startButton.textContent = label;
    this.startButton.dataset.what = what;
    this.startButton.disabled = ["preparing", "stopping", "connecting"].includes(state);
    this.stepButton.disabled = !["idle", "paused", "running"].includes(state);
    this.stopButton.disabled = !["preparing", "running", "paused"].includes(state);
    this.resetButton.disabled = ["idle", "stopping", "connecting"].includes(state);
  }

  /** `asked`: how often this page has asked without an answer whether the kernel hears it while a cell waits. */
  writeProgress(f, { polled }, asked) {
    const fraction = f.steps ? Math.min(1, f.step / f.steps) : 0;
    this.bar.style.width = `${100 * fraction}%`;
    this.progress.setAttribute("aria-valuemax", f.steps || 1);
    this.progress.setAttribute("aria-valuenow", f.step);
    const parts = [];
    if (f.steps) parts.push(`step ${whole(f.step)} of ${whole(f.steps)}`);
    else if (f.state === "preparing") parts.push("building the model and its data…");
    else if (f.state === "idle") parts.push(polled ? "press Start, or run board.run() in a cell to watch live" : "press Start");
    const [waits, title] = f.awaited ? this.waitingCell(f, asked) : ["", ""];
    this.progressText.title = title;
    if (f.state === "running" && f.rate) parts.push(`${steady(f.rate, 2)} steps/s`);
    if (f.state === "running" && Number.isFinite(f.left)) parts.push(`${duration(f.left)} left`);
    if (waits) parts.push(waits);
    const unbroken = parts.map((part) => make("span", {}, part)); // so that lines break only between parts
    this.progressText.replaceChildren(...unbroken.flatMap((part, i) => (i ? [" · ", part] : [part])));
  }

  /** What a waiting cell means for buttons and sliders: a short text, and a tooltip. */
  waitingCell(f, asked) {
    const way = { paused: ": Resume continues it, Stop ends it so that the cell can finish", idle: ": Start begins it" }[f.state] || "";
    const title = `A cell waits for the end of this training${way}. `;
    if (f.heard === "directly") return ["controls act at once while a cell waits", title + "Buttons and sliders reach the kernel directly."];
    if (f.heard === "polled") return ["controls act through polling while a cell waits", title +
      "Buttons and sliders queue behind the cell, which checks that queue twenty times a second."];
    if (asked < 5) return ["a cell waits", title]; // not heard yet
    return ["controls act only after the waiting cell", "The kernel does not hear buttons and sliders while a cell waits. " +
      "Interrupt the cell to use them: the training continues."];
  }
}
