// Who answers: name, version and licence of the model, and that it is no diagnosis.

import { button, element } from "./dom.js";

export const USE = "Research use only, not a diagnosis";

export function badge(state, actions) {
  const known = [state.model, state.licence].filter(Boolean).join(" · ");
  return [
    element(
      "div",
      { class: "strip" },
      element("span", { class: `light ${state.kind}`, role: "img", "aria-label": `Model: ${WORDS[state.kind]}` }),
      element("strong", {}, state.name || "MedSeg-R"),
      button("New conversation", actions.startAnew, { class: "quiet end", "data-key": "new" }),
    ),
    element("p", { class: "small" }, known ? element("span", { class: "model" }, known) : WORDS[state.kind]),
    element("p", { class: "use" }, USE),
  ];
}

const WORDS = {
  ready: "ready",
  starting: "loading",
  away: "the server is away",
  login: "login needed",
  unknown: "asking the server…",
};

/** What keeps questions from being answered, in a sentence, with the way out; nothing while all is well. */
export function hindrance(state, actions, server) {
  if (state.kind === "login") {
    const link = element("a", { href: server.loginAddress(), "data-key": "login" }, "Log in again");
    return [element("p", {}, `${state.sentence} Your text is kept. `, link)];
  }
  if (state.kind !== "away" && state.kind !== "starting") return [];
  return [
    element("p", {}, state.sentence),
    element(
      "div",
      { class: "strip" },
      element("span", { class: "small" }, "Trying again by itself."),
      button("Retry now", actions.retry, { class: "end", "data-key": "retry" }),
    ),
  ];
}
