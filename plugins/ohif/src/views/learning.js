// The section "Learning": what corrections have led to, which version answers and the way back, and the next case.

import { addressOf, correctionsInWords, decisionInWords, onlyAsks, requestInWords, runningInWords, withoutCaseInWords } from "../learning.js";
import { button, element } from "./dom.js";

const key = (what) => ({ "data-key": `learning-${what}` });

const MAX_REASON = 500; // as many characters as the server takes

/** The one line that is always seen. */
export function learningTitle({ state, unheard }) {
  if (unheard) return `Learning: what is ${unheard.name}?`;
  if (state.running) return `Learning: round ${state.running.id} runs`;
  const asked = state.rollback_requests?.length ? ", a rollback is requested" : "";
  return `Learning: ${state.corrections_since} new correction${state.corrections_since === 1 ? "" : "s"}${asked}`;
}

/** Everything below it. `learning` is a `Learning` with a state; `here` the viewer's address without a query. */
export function learningContent(learning, here) {
  const { state } = learning;
  const without = withoutCaseInWords(state);
  return [
    learning.unheard ? describeForm(learning) : null,
    element("p", { class: "small" }, correctionsInWords(state)),
    without ? element("p", { class: "small" }, without) : null,
    running(state.running),
    state.last ? element("p", { class: `decision was-${state.last.status}` }, decisionInWords(state.last)) : null,
    element(
      "div",
      { class: "strip" },
      element("span", { class: "small" }, "In charge: ", element("span", { class: "version" }, state.version)),
      learning.form ? null : rollbackButton(learning),
    ),
    ...(state.rollback_requests ?? []).map((one) => element("p", { class: "small" }, requestInWords(one))),
    learning.form ? rollbackForm(learning) : null,
    nextCase(learning, here),
    learning.note ? element("p", { class: learning.note.kind === "saved" ? "saved" : "note" }, learning.note.sentence) : null,
  ];
}

function running(round) {
  if (!round) return null;
  const bar = element("progress", { "aria-label": `Progress of round ${round.id}`, max: "1" });
  if (round.total) bar.value = round.done / round.total;
  return element("div", { class: "round" }, element("span", { class: "small" }, runningInWords(round)), bar);
}

function rollbackButton(learning) {
  const does = onlyAsks(learning.state) ? "Ask the administrators for the version before" : "Put the version before in charge again";
  return button("Request rollback", () => learning.open({ reason: "" }), {
    class: "quiet end",
    disabled: !learning.state.can_rollback || Boolean(learning.busy),
    title: learning.state.can_rollback ? does : "There is no version before this one",
    ...key("rollback"),
  });
}

function rollbackForm(learning) {
  const asks = onlyAsks(learning.state);
  const title = asks
    ? "Ask the administrators to put the version before in charge again?"
    : "Put the version before in charge again, for everybody?";
  const input = element("input", {
    type: "text",
    value: learning.form.reason,
    maxlength: String(MAX_REASON),
    placeholder: asks ? "why: it is kept with the request" : "why: it is kept with the change",
    "aria-label": "Why the version before should be in charge again",
    required: true,
    input: (event) => (learning.form.reason = event.target.value),
    ...key("reason"),
  });
  const submit = (event) => {
    event.preventDefault();
    learning.rollback();
  };
  const leave = (event) => {
    if (event.key === "Escape") learning.open(null);
  };
  return element(
    "form",
    { class: "framed", submit, keydown: leave, "aria-label": title },
    element("p", { class: "title" }, title),
    input,
    element(
      "div",
      { class: "strip" },
      element("button", { type: "submit", class: "primary", disabled: Boolean(learning.busy), ...key("confirm") }, asks ? "Yes, ask them" : "Yes, go back"),
      button("Back", () => learning.open(null), { class: "quiet", ...key("leave") }),
    ),
  );
}

const LINES = [
  ["names", "other names, with commas", "Other names of it"],
  ["location", "where it lies: behind the cornea", "Where it lies"],
  ["fact", "what it does: surrounds the pupil", "What is true of every one, not of this image alone"],
];

function describeForm(learning) {
  const draft = learning.unheard;
  const title = `What is ${draft.name}?`;
  const inputs = LINES.map(([line, placeholder, label]) =>
    element("input", {
      type: "text",
      value: draft[line],
      maxlength: "200",
      placeholder,
      "aria-label": label,
      input: (event) => (draft[line] = event.target.value),
      ...key(`describe-${line}`),
    }),
  );
  return element(
    "form",
    { class: "framed", submit: (event) => (event.preventDefault(), learning.describe()), "aria-label": title },
    element("p", { class: "title" }, title),
    inputs,
    element(
      "div",
      { class: "strip" },
      element("button", { type: "submit", class: "primary", disabled: Boolean(learning.busy), ...key("describe") }, "Tell it"),
      button("Not now", () => learning.open(null, "unheard"), { class: "quiet", ...key("describe-leave") }),
    ),
  );
}

function nextCase(learning, here) {
  const busy = Boolean(learning.busy);
  const { next, skipped } = learning;
  const address = addressOf(next, here);
  const undo = skipped ? button("Undo skip", learning.unskip, { class: "quiet", disabled: busy, ...key("unskip") }) : null;
  if (!next) {
    const caption = learning.busy === "next" ? "Choosing…" : "Next case";
    return element("div", { class: "strip" }, button(caption, learning.choose, { disabled: busy, ...key("next") }), undo);
  }
  return element(
    "div",
    { class: "case", role: "group", "aria-label": "Next case" },
    element("p", {}, next.why),
    address ? null : element("p", { class: "small" }, `Image ${next.image}`),
    element(
      "div",
      { class: "strip" },
      address ? element("a", { href: address, ...key("open") }, "Open it") : null,
      button("Skip it", learning.skip, { class: "quiet", title: "Never offer it again", disabled: busy, ...key("skip") }),
      button("Another", learning.choose, { class: "quiet", disabled: busy, ...key("next") }),
      undo,
    ),
  );
}
