// The tables of a board: preference pairs by weight, answers before and after. Model text is shown as text only.

import { make } from "../../static/dom.js";
import { fixed, whole } from "../../static/numbers.js";

export class Tables {
  constructor() {
    this.order = "heaviest";
    this.at = 0; // time of the last change
    this.data = null;
    this.pairsCard = make("section", { class: "rlhf-card rlhf-pairs", hidden: true });
    this.samplesCard = make("section", { class: "rlhf-card rlhf-samples", hidden: true });
    this.orderButtons = ["heaviest", "lightest"].map((order) => make("button", { type: "button", class: "rlhf-tab", "aria-pressed": "false",
      onclick: () => { this.order = order; this.at = 0; this.draw(this.data); } }, `${order} first`));
    this.pairsNote = make("p", { class: "rlhf-caption" });
    this.pairsBody = make("tbody");
    const head = make("tr", {}, ...["weight", "prompt", "chosen", "rejected", "margin"].map((h) => make("th", { scope: "col" }, h)));
    this.pairsCard.append(
      make("div", { class: "rlhf-head" }, make("h4", {}, "Preference pairs by weight"), make("div", { class: "rlhf-tabs" }, ...this.orderButtons)),
      this.pairsNote, make("div", { class: "rlhf-scroll" }, make("table", {}, make("thead", {}, head), this.pairsBody)));
    this.samplesNote = make("p", { class: "rlhf-caption" });
    this.samplesBody = make("tbody");
    const columns = ["prompt", "π_{ref} says", "r", "π_θ says now", "r"].map((h) => make("th", { scope: "col", notation: h }));
    this.samplesCard.append(make("div", { class: "rlhf-head" }, make("h4", {}, "Answers before and after")), this.samplesNote,
      make("div", { class: "rlhf-scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ...columns)), this.samplesBody)));
  }

  /** Show the tables of a frame's data, at most every 0.6 s: text must stay readable. */
  draw(data) {
    this.data = data;
    const wait = 600 - (Date.now() - this.at);
    if (wait > 0) {
      if (!this.timer) this.timer = setTimeout(() => { this.timer = null; this.draw(this.data); }, wait);
      return;
    }
    this.at = Date.now();
    const { pairs, samples, samples_step } = data;
    this.pairsCard.hidden = !pairs;
    this.samplesCard.hidden = !samples;
    if (pairs) {
      for (const [i, order] of ["heaviest", "lightest"].entries()) this.orderButtons[i].setAttribute("aria-pressed", String(order === this.order));
      const wrong = pairs.flipped ? ` ${whole(pairs.flipped)} of them carry a wrong label.` : "";
      this.pairsNote.textContent = (this.order === "heaviest" ? "These pull hardest: ranked wrong so far, or wrongly labelled." : "These hardly pull any more: already learnt.")
        + ` ${whole(pairs.known)} pairs seen.` + wrong;
      const rows = pairs[this.order];
      while (this.pairsBody.children.length > rows.length) this.pairsBody.lastChild.remove();
      while (this.pairsBody.children.length < rows.length) this.pairsBody.append(make("tr", {},
        make("td", { class: "rlhf-weight" }, make("i"), make("span")), make("td"), make("td", { class: "rlhf-chosen" }, make("span"), make("em", { hidden: true }, "wrong label")),
        make("td", { class: "rlhf-rejected" }), make("td", { class: "rlhf-value" })));
      rows.forEach((row, i) => {
        const [weight, prompt, chosen, rejected, margin] = this.pairsBody.children[i].children;
        weight.style.setProperty("--w", `${100 * (row.weight || 0)}%`);
        weight.lastChild.textContent = row.weight === null ? "–" : fixed(row.weight, 2);
        prompt.textContent = row.prompt;
        chosen.firstChild.textContent = row.chosen;
        chosen.lastChild.hidden = row.flipped !== true;
        rejected.textContent = row.rejected;
        margin.textContent = row.margin === null ? "–" : fixed(row.margin, 2);
        this.pairsBody.children[i].classList.toggle("rlhf-flipped", row.flipped === true);
      });
    }
    if (samples) {
      this.samplesNote.textContent = `Drawn at step ${whole(samples_step)}` + (samples.some((s) => s.reward_after !== null) ? "; r is the true reward." : ".");
      const reward = (v) => make("td", { class: "rlhf-value" }, v === null ? "" : fixed(v, 2));
      const key = JSON.stringify(samples);
      if (key !== this.samplesKey) {
        this.samplesKey = key;
        const judged = samples.some((s) => s.reward_after !== null);
        this.samplesCard.querySelector("tr").querySelectorAll("th:nth-child(3), th:nth-child(5)").forEach((th) => (th.hidden = !judged));
        this.samplesBody.replaceChildren(...samples.map((s) => make("tr", {}, make("td", {}, s.prompt), make("td", {}, s.before), ...(judged ? [reward(s.reward_before)] : []),
          make("td", {}, s.after), ...(judged ? [reward(s.reward_after)] : []))));
      }
    }
  }
}
