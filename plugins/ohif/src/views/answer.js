// The answer's text. Where it names a finding it is a button in the colour of that finding's segment.

import { pieces } from "../words.js";
import { button, element } from "./dom.js";

export function answerText(turn, actions) {
  if (turn.status !== "done") {
    const text = turn.text ? element("p", { class: "answer streaming" }, turn.text) : null;
    return text;
  }
  const answer = turn.edited ?? turn.answer;
  const shown = turn.findings.filter((finding) => !finding.added);
  const parts = pieces(answer, shown).map(({ text, n }) => (n === undefined ? text : phrase(turn, n, text, actions)));
  return element("p", { class: "answer" }, parts);
}

function phrase(turn, n, text, actions) {
  const made = button(text, () => actions.goTo(turn, n), {
    class: "phrase",
    title: "Show it in the image",
    "data-key": `${turn.key}-phrase-${n}`,
    "data-n": String(n),
  });
  made.style.setProperty("--colour", actions.colour(turn, n));
  return made;
}

/** "Not present" and "not trained for this" are answers of their own, not failures. */
export function outcomeTag(turn) {
  if (turn.status !== "done") return null;
  if (turn.outcome === "not_present") return element("p", { class: "outcome absent" }, "Not present");
  if (turn.outcome === "not_trained") return element("p", { class: "outcome untrained" }, "Not trained for this");
  if (turn.outcome === "foreign") return element("p", { class: "outcome untrained" }, "Not trained for such images");
  return null;
}
