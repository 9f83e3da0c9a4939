// One finding under its answer: name, size, slices, confidence, and what can be done with it.

import { confidenceInWords, confidenceLevel, sizeInWords } from "../words.js";
import { button, element } from "./dom.js";
import { closing } from "./verdict.js";

export function findingRow(finding, turn, actions) {
  const { n } = finding;
  const key = (what) => ({ "data-key": `${turn.key}-${n}-${what}` });
  const meant = actions.isMeant(turn, n);
  const current = actions.isCurrent(turn);
  const name = button(
    [element("i", { class: "swatch", "aria-hidden": "true" }), finding.renamed ?? finding.label],
    () => actions.goTo(turn, n),
    { class: "name", "aria-pressed": String(meant), title: "Show it, and edit it with the brush", ...key("name") },
  );
  const row = element("li", { class: `finding${meant ? " meant" : ""}`, "data-n": String(n) });
  row.style.setProperty("--colour", actions.colour(turn, n));
  if (!current) {
    row.append(
      element(
        "div",
        { class: "strip" },
        name,
        tags(finding),
        element("span", { class: "small end" }, sizeInWords(finding)),
      ),
    );
    return row;
  }
  row.append(element("div", { class: "strip" }, name, tags(finding), walk(finding, turn, actions, key)));
  const facts = factsOf(finding, turn, actions);
  if (facts) row.append(facts);
  if (turn.live.form?.kind === "rename" && turn.live.form.n === n) row.append(renameForm(finding, turn, actions, key));
  else if ((meant || finding.lost || finding.absent) && turn.live.drawn === "drawn")
    row.append(deeds(finding, turn, actions, key));
  return row;
}

function tags(finding) {
  if (finding.absent) return element("span", { class: "tag" }, "not there");
  if (finding.lost) return element("span", { class: "tag" }, "deleted");
  if (finding.added) return element("span", { class: "tag" }, "new");
  return finding.touched ? element("span", { class: "tag" }, "edited") : null;
}

/** Previous and next slice of a finding that spans several. */
function walk(finding, turn, actions, key) {
  const slices = actions.slicesOf(turn, finding.n);
  if (!slices || slices.length < 2 || finding.absent) return null;
  const label = finding.renamed ?? finding.label;
  return element(
    "span",
    { class: "walk end" },
    button("◀", () => actions.step(turn, finding.n, -1), {
      "aria-label": `Previous slice of ${label}`,
      ...key("back"),
    }),
    button("▶", () => actions.step(turn, finding.n, 1), { "aria-label": `Next slice of ${label}`, ...key("on") }),
  );
}

function factsOf(finding, turn, actions) {
  if (finding.added)
    return element(
      "p",
      { class: "small" },
      "Drawn by you. Paint it with the viewer's brush, then submit the correction.",
    );
  if (finding.absent) return element("p", { class: "small" }, "Will be stored as “not present”.");
  const size = sizeInWords(finding) + (finding.touched ? " (before your edit)" : "");
  const where = actions.whereInWords(turn, finding.n);
  const sure = element(
    "span",
    { class: `sure ${confidenceLevel(finding.confidence)}` },
    confidenceInWords(finding.confidence),
  );
  return element("p", { class: "small facts" }, [size, where].filter(Boolean).join(" · "), element("br"), sure);
}

function deeds(finding, turn, actions, key) {
  const back = button("Bring it back", () => actions.bringBack(turn, finding.n), {
    class: "quiet",
    ...key("back-again"),
  });
  const away = button("Not there", () => actions.takeAway(turn, finding.n), {
    class: "quiet",
    title: "It is not present in this image",
    ...key("away"),
  });
  return element(
    "div",
    { class: "strip deeds" },
    button(
      "Rename",
      () => actions.open(turn, { kind: "rename", n: finding.n, text: finding.renamed ?? finding.label }),
      { class: "quiet", ...key("rename") },
    ),
    !finding.added && (finding.absent || finding.lost) ? back : null,
    (!finding.added || finding.lost) && !finding.absent ? away : null,
  );
}

function renameForm(finding, turn, actions, key) {
  const input = element("input", {
    type: "text",
    value: turn.live.form.text,
    maxlength: "64",
    list: "medsegr-labels",
    "aria-label": `New name of ${finding.label}`,
    input: (event) => (turn.live.form.text = event.target.value),
    ...key("new-name"),
  });
  const submit = (event) => {
    event.preventDefault();
    actions.rename(turn, finding.n, input.value);
  };
  return element(
    "form",
    { class: "strip rename", submit, keydown: closing(turn, actions) },
    input,
    element("button", { type: "submit", ...key("rename-ok") }, "Rename"),
    button("Back", () => actions.open(turn, null), { class: "quiet", ...key("rename-back") }),
  );
}
