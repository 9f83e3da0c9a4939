// Where a question is written: suggestions, what it is about, the box, and which slices.

import { button, element, redraw } from "./dom.js";

const SCOPES = [
  ["this", "This slice"],
  ["range", "Range"],
  ["series", "Whole series"],
];

export class Composer {
  /** `actions`: ask(text), draft(text), scope(change), forget(), wait() and previous(step). */
  constructor(actions) {
    this.actions = actions;
    this.chips = element("div", { class: "chips", role: "group", "aria-label": "Suggested questions" });
    this.about = element("div", { class: "about" });
    this.box = element("textarea", {
      id: "medsegr-question",
      rows: "2",
      maxlength: "2000",
      placeholder: "Ask about this image…",
      "aria-describedby": "medsegr-hint",
      input: () => this.changed(),
      keydown: (event) => this.press(event),
    });
    this.send = element("button", { type: "submit", class: "primary", "data-key": "ask" }, "Ask");
    this.where = element("fieldset", { class: "scope" });
    this.element = element(
      "form",
      { class: "composer", "aria-label": "Ask", submit: (event) => this.submit(event) },
      this.chips,
      this.about,
      element("label", { class: "for-ears", for: "medsegr-question" }, "Question"),
      this.box,
      this.where,
      element(
        "div",
        { class: "strip" },
        element(
          "span",
          { class: "small", id: "medsegr-hint" },
          element("kbd", {}, "Enter"),
          " asks",
          element("span", { class: "if-wide" }, ", ", element("kbd", {}, "Shift+Enter"), " new line"),
        ),
        this.send,
      ),
    );
  }

  /** `view`: {draft, suggestions, about, scope, image, number, open, begun}. */
  show({ draft, suggestions, about, scope, image, number, open, begun }) {
    if (this.box.value !== draft) this.box.value = draft;
    this.open = open;
    this.send.disabled = open || !image;
    this.chips.classList.toggle("one-row", begun); // room for the conversation
    redraw(this.chips, ...suggestions.map((text, i) => this.chip(text, i, open || !image)));
    redraw(this.about, about ? this.aboutChip(about) : null);
    this.showScope(scope, image, number);
  }

  chip(text, i, disabled) {
    return button(text, () => this.actions.ask(text), {
      class: "chip",
      title: text,
      "data-key": `chip-${i}`,
      disabled,
    });
  }

  aboutChip(name) {
    return element(
      "span",
      { class: "chip meant" },
      `about: ${name} `,
      button("×", this.actions.forget, { "aria-label": `Do not ask about ${name}`, "data-key": "forget" }),
    );
  }

  showScope(scope, image, number) {
    const count = image?.numImages ?? 1;
    this.where.hidden = count < 2;
    if (count < 2) return;
    const choices = SCOPES.map(([kind, words]) => {
      const checked = scope.kind === kind;
      const input = element("input", {
        type: "radio",
        name: "medsegr-scope",
        change: () => this.actions.scope({ kind }),
        "data-key": `scope-${kind}`,
        checked,
      });
      return element(
        "label",
        { class: checked ? "chosen" : "" },
        input,
        kind === "this" && number ? `${words} (${number})` : words,
      );
    });
    const ends =
      scope.kind === "range"
        ? element("div", { class: "strip ends" }, this.end("from", scope, 1, count), this.end("to", scope, count, count))
        : null;
    redraw(
      this.where,
      element("legend", { class: "for-ears" }, "Which slices"),
      element("div", { class: "segments" }, choices),
      ends,
    );
  }

  end(which, scope, preset, count) {
    const change = (event) => this.actions.scope({ [which]: Number(event.target.value) });
    const input = element("input", {
      type: "number",
      min: "1",
      max: String(count),
      value: String(scope[which] ?? preset),
      change,
      "data-key": `scope-${which}`,
    });
    return element("label", {}, which === "from" ? "Slices " : "to ", input);
  }

  changed() {
    this.actions.draft(this.box.value);
  }

  press(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) this.submit(event);
    if (event.key === "ArrowUp" && this.box.selectionEnd === 0) this.recall(event, -1);
    if (event.key === "ArrowDown" && this.box.selectionStart === this.box.value.length) this.recall(event, 1);
  }

  /** Earlier questions, as in a terminal. */
  recall(event, step) {
    const text = this.actions.previous(step);
    if (text === null) return;
    event.preventDefault();
    this.box.value = text;
    this.box.setSelectionRange(0, 0);
    this.changed();
  }

  submit(event) {
    event.preventDefault();
    const text = this.box.value.trim();
    if (this.open && text) this.actions.wait();
    if (!text || this.send.disabled) return;
    this.actions.draft("");
    this.box.value = "";
    this.actions.ask(text);
  }
}
