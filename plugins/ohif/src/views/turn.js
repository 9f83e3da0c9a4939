// One turn: the question, the answer as it comes in, its findings, and the reader's verdict.

import { OPEN } from "../conversation.js";
import { queueInWords } from "../words.js";
import { answerText, outcomeTag } from "./answer.js";
import { button, element } from "./dom.js";
import { findingRow } from "./finding.js";
import { state, verdictBar } from "./verdict.js";

export function turnContent(turn, actions) {
  const key = (what) => ({ "data-key": `${turn.key}-${what}` });
  const current = actions.isCurrent(turn);
  const about = [turn.scopeText, actions.isElsewhere(turn) && "another series"].filter(Boolean).join(" · ");
  return [
    element("p", { class: "question" }, turn.question, " ", element("span", { class: "small" }, about)),
    outcomeTag(turn),
    answerText(turn, actions),
    OPEN.has(turn.status) ? waiting(turn, actions, key) : null,
    trouble(turn, actions, key),
    turn.findings.length
      ? element(
          "ul",
          { class: "findings", "aria-label": "Findings" },
          turn.findings.map((f) => findingRow(f, turn, actions)),
        )
      : null,
    turn.status === "done" ? drawing(turn, actions, key) : null,
    turn.status !== "done" ? null : current ? verdictBar(turn, actions) : other(turn, actions, key),
  ];
}

function waiting(turn, actions, key) {
  const words = turn.cancelling
    ? "Cancelling…"
    : turn.status === "queued"
      ? queueInWords(turn.place)
      : turn.status === "sending"
        ? "Sending…"
        : "Answering…";
  const bar = element("progress", { "aria-label": "Progress", max: "1" });
  if (turn.progress?.total) bar.value = turn.progress.done / turn.progress.total;
  const share = turn.progress?.total ? ` ${turn.progress.done} of ${turn.progress.total} slices` : "";
  return element(
    "div",
    { class: "waiting" },
    element("span", { class: "small place" }, words + share),
    bar,
    button("Cancel", () => actions.cancel(turn), { ...key("cancel"), disabled: Boolean(turn.cancelling) }),
  );
}

function trouble(turn, actions, key) {
  if (turn.status === "cancelled") {
    return element(
      "div",
      { class: "strip" },
      element("p", { class: "note" }, "You cancelled this question."),
      again(turn, actions, key),
    );
  }
  if (!turn.error) return null;
  return element("div", { class: "trouble" }, element("p", {}, turn.error.sentence), again(turn, actions, key));
}

function again(turn, actions, key) {
  return button("Ask again", () => actions.again(turn), { class: "end", ...key("again") });
}

function drawing(turn, actions, key) {
  const drawn = turn.live.drawn;
  if (drawn === "drawing") return element("p", { class: "small" }, "Drawing…");
  if (drawn === "drawn" || !turn.findings.length) return null;
  const offer = button(drawn ? "Draw again" : "Show the masks", () => actions.draw(turn), key("draw"));
  return element("div", { class: drawn ? "trouble" : "strip" }, drawn ? element("p", {}, drawn) : null, offer);
}

function other(turn, actions, key) {
  const choose = button("Work on this answer", () => actions.choose(turn), { class: "quiet", ...key("choose") });
  return [element("div", { class: "strip" }, choose), state(turn, actions, key)];
}
