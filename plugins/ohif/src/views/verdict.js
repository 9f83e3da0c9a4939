// What the reader makes of an answer: accept, correct, reject with a reason, edit the text, draw what was missed, undo.

import { listed } from "../words.js";
import { button, element } from "./dom.js";

export const REASONS = [
  "Wrong structure",
  "Outline is off",
  "It is not there",
  "Something was missed",
  "The text is wrong",
];

export function verdictBar(turn, actions) {
  const key = (what) => ({ "data-key": `${turn.key}-${what}` });
  const form = FORMS[turn.live.form?.kind];
  return [
    form ? form(turn, actions, key) : null,
    element(
      "div",
      { class: "verdicts", role: "group", "aria-label": "Your verdict" },
      verdict("Accept", "A", "accept", () => actions.accept(turn), key("accept")),
      verdict("Submit correction", "S", "submit", () => actions.submit(turn), key("submit")),
      verdict("Reject", "R", "reject", () => actions.openReject(turn), key("reject")),
    ),
    element(
      "div",
      { class: "strip deeds" },
      button("Edit text", () => actions.open(turn, { kind: "text", text: turn.edited ?? turn.answer }), {
        class: "quiet",
        ...key("text"),
      }),
      button("Draw what was missed", () => actions.open(turn, { kind: "add", text: "" }), {
        class: "quiet",
        ...key("add"),
      }),
      button("Undo", actions.undo, { class: "quiet", title: "Take the last brush stroke back", ...key("undo") }),
    ),
    state(turn, actions, key),
  ];
}

function verdict(caption, letter, kind, click, attributes) {
  return button([caption, " ", element("kbd", {}, `Alt+${letter}`)], click, {
    class: kind,
    "aria-keyshortcuts": `Alt+${letter}`,
    ...attributes,
  });
}

/** What became of the last verdict; also shown when another turn is the current one. */
export function state(turn, actions, key) {
  const last = turn.verdict;
  if (!last) return null;
  if (last.state === "sending") return element("p", { class: "saved" }, "Saving…");
  if (last.state === "saved")
    return element(
      "p",
      { class: "saved" },
      `✓ ${last.sentence}`,
      element("span", { class: "small" }, ` No. ${String(last.id).slice(0, 8)}`),
    );
  if (last.state === "note") return element("p", { class: "note" }, last.sentence);
  return element(
    "div",
    { class: "trouble" },
    element("p", {}, `Not saved: ${last.sentence} Nothing is lost.`),
    button("Try again", () => actions.repeat(turn), key("repeat")),
  );
}

const FORMS = { reject: rejectForm, text: textForm, add: addForm, confirm: confirmForm };

function rejectForm(turn, actions, key) {
  const draft = turn.live.form;
  const chips = REASONS.map((reason, i) =>
    button(reason, () => actions.reason(turn, reason), {
      class: "chip",
      "aria-pressed": String(draft.reason === reason),
      ...key(`reason-${i}`),
    }),
  );
  const input = element("input", {
    type: "text",
    value: draft.text,
    maxlength: "1000",
    placeholder: "or in your own words",
    "aria-label": "Why you reject this answer, in your own words",
    input: (event) => (draft.text = event.target.value),
    ...key("reason-text"),
  });
  return framed(turn, actions, key, {
    title: "Why do you reject it?",
    content: [element("div", { class: "chips", role: "group", "aria-label": "Reasons" }, chips), input],
    caption: "Send rejection",
    submit: () => actions.reject(turn),
  });
}

function textForm(turn, actions, key) {
  const area = element("textarea", {
    value: turn.live.form.text,
    rows: "4",
    maxlength: "8000",
    "aria-label": "The answer as it should read",
    input: (event) => (turn.live.form.text = event.target.value),
    ...key("answer-text"),
  });
  return framed(turn, actions, key, {
    title: "The answer as it should read",
    content: [area],
    caption: "Keep text",
    submit: () => actions.keepText(turn),
  });
}

function addForm(turn, actions, key) {
  const input = element("input", {
    type: "text",
    value: turn.live.form.text,
    maxlength: "64",
    list: "medsegr-labels",
    placeholder: "for example: left kidney",
    "aria-label": "Name of what was missed",
    input: (event) => (turn.live.form.text = event.target.value),
    ...key("add-name"),
  });
  return framed(turn, actions, key, {
    title: "What was missed?",
    content: [input],
    caption: "Begin to draw",
    submit: () => actions.add(turn),
  });
}

function confirmForm(turn, actions, key) {
  const { emptied } = turn.live.form;
  const words = `${listed(emptied)} ${emptied.length > 1 ? "have" : "has"} nothing drawn and will be stored as “not present”.`;
  return framed(turn, actions, key, {
    title: words,
    content: [],
    caption: "Yes, submit",
    submit: () => actions.submit(turn, { confirmed: true }),
  });
}

/** Escape leaves a form. */
export function closing(turn, actions) {
  return (event) => {
    if (event.key === "Escape") actions.open(turn, null);
  };
}

function framed(turn, actions, key, { title, content, caption, submit }) {
  const send = (event) => {
    event.preventDefault();
    submit();
  };
  return element(
    "form",
    { class: "framed", submit: send, keydown: closing(turn, actions), "aria-label": title },
    element("p", { class: "title" }, title),
    content,
    element(
      "div",
      { class: "strip" },
      element("button", { type: "submit", class: "primary", ...key("form-send") }, caption),
      button("Back", () => actions.open(turn, null), { class: "quiet", ...key("form-back") }),
    ),
  );
}
