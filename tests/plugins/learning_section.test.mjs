// The panel's section "Learning" under node: what it says, what it asks the server, what it tells ears, and its elements.

import assert from "node:assert/strict";
import { test } from "node:test";
import { pathToFileURL } from "node:url";

const SOURCE = pathToFileURL(`${process.env.MEDSEGR_PLUGIN}/src/`);
const load = (name) => import(new URL(name, SOURCE));
const { Learning, addressOf, correctionsInWords, decisionInWords, newsInWords, runningInWords, withoutCaseInWords } = await load("learning.js");
const { learningContent, learningTitle } = await load("views/learning.js");

const STATE = { version: "v0007-aa", corrections_since: 3, missing: null, running: null, last: null, can_rollback: true };
const ADOPTED = { id: 8, status: "adopted", sentence: "optic disc is better by 0.12." };
const CASE = { image: "1.2.9", why: "It is the least sure.", strategy: "mixture", study: "1.2" };

test("numbers are said as people say them", () => {
  assert.equal(correctionsInWords({ corrections_since: 0 }), "No corrections since the last round.");
  assert.equal(correctionsInWords({ corrections_since: 1, missing: null }), "1 correction since the last round.");
  assert.equal(
    correctionsInWords({ corrections_since: 5, missing: 1 }),
    "5 corrections since the last round. 1 more case is needed before a new version can be judged.",
  );
  assert.match(correctionsInWords({ corrections_since: 5, missing: 4 }), / 4 more cases are needed /);
});

test("corrections that cannot be learnt from yet are counted in one line, and only then", () => {
  assert.equal(withoutCaseInWords({}), "");
  assert.equal(withoutCaseInWords({ without_case: 1 }), "1 correction cannot be learnt from yet; the server's log says why.");
  assert.ok(drawn({ state: { ...STATE, without_case: 2 } }).text.includes("2 corrections cannot be learnt from yet"));
  assert.ok(!drawn({ state: { ...STATE, without_case: 0 } }).text.includes("cannot be learnt"));
});

test("a round and its decision are one sentence each", () => {
  assert.equal(runningInWords({ id: 9, phase: "training", done: 3, total: 10 }), "Round 9: training, 3 of 10.");
  assert.equal(runningInWords({ id: 9, phase: "starting", done: 0, total: 0 }), "Round 9: starting.");
  assert.equal(runningInWords(null), "");
  assert.equal(decisionInWords(ADOPTED), "Round 8 adopted: optic disc is better by 0.12.");
  assert.equal(decisionInWords({ id: 9, status: "refused", sentence: "the liver got worse." }), "Round 9 not adopted: the liver got worse.");
  assert.equal(decisionInWords({ id: 9, status: "cancelled", sentence: null }), "Round 9 cancelled.");
  assert.equal(decisionInWords(null), "");
});

test("only what is new is worth hearing", () => {
  const running = { id: 8, phase: "training", done: 1, total: 10 };
  assert.equal(newsInWords(null, STATE), "");
  assert.equal(newsInWords(STATE, { ...STATE, corrections_since: 4 }), "");
  assert.equal(newsInWords(STATE, { ...STATE, running }), "Round 8 has begun.");
  assert.equal(newsInWords({ ...STATE, running }, { ...STATE, running: { ...running, done: 2 } }), "");
  assert.equal(
    newsInWords({ ...STATE, running }, { ...STATE, last: ADOPTED, version: "v0008-bb" }),
    "Round 8 adopted: optic disc is better by 0.12. Version v0008-bb answers from now on.",
  );
});

test("a case is opened where the viewer is", () => {
  assert.equal(addressOf(CASE, "/ohif/medsegr"), "/ohif/medsegr?StudyInstanceUIDs=1.2&initialSeriesInstanceUID=1.2.9");
  assert.equal(addressOf({ ...CASE, study: null }, "/x"), null);
});

/** A server that remembers what it was asked; `fails`: name of the request -> error. */
function serverOf(replies = {}, fails = {}) {
  const asked = [];
  const answer = (name) => async (...given) => {
    asked.push([name, ...given]);
    if (fails[name]) throw fails[name];
    return replies[name];
  };
  return { asked, fails, ...Object.fromEntries(["learning", "next", "skip", "opened", "rollback", "requestRollback"].map((name) => [name, answer(name)])) };
}

async function learningOf(replies, fails) {
  const server = serverOf({ learning: STATE, next: CASE, rollback: { current: "v0006-cc" }, ...replies }, fails);
  const heard = [];
  const learning = new Learning(server, { changed: () => {}, announce: (text) => heard.push(text) });
  await new Promise((resolve) => setTimeout(resolve));
  return { server, learning, heard };
}

test("a server without rounds is asked once", async () => {
  const gone = Object.assign(new Error("Not Found"), { status: 404 });
  const { server, learning } = await learningOf({}, { learning: gone });
  assert.equal(learning.state, null);
  learning.recovered();
  assert.deepEqual(server.asked, [["learning"]]);
  assert.equal(learning.timer, null);
});

test("a server that was away is asked again when it is back", async () => {
  const { server, learning } = await learningOf({}, { learning: new Error("away") });
  assert.equal(learning.state, null);
  delete server.fails.learning;
  learning.recovered();
  await new Promise((resolve) => setTimeout(resolve));
  assert.equal(learning.state, STATE);
  learning.stop();
});

test("the next case, skipped, and the skip taken back", async () => {
  const { server, learning, heard } = await learningOf();
  await learning.choose();
  assert.equal(learning.next, CASE);
  await learning.skip();
  assert.equal(learning.skipped, "1.2.9");
  await learning.unskip();
  assert.equal(learning.skipped, null);
  assert.deepEqual(server.asked.slice(1), [["next"], ["skip", "1.2.9"], ["next"], ["skip", "1.2.9", true]]);
  assert.deepEqual(heard, [
    "Next case: It is the least sure.",
    "Skipped. Next case: It is the least sure.",
    "The skipped case may be offered again.",
  ]);
  learning.stop();
});

test("a skip holds although nothing is left to offer", async () => {
  const { server, learning } = await learningOf();
  await learning.choose();
  server.fails.next = new Error("All that is left was opened.");
  await learning.skip();
  assert.deepEqual([learning.next, learning.skipped, learning.busy], [null, "1.2.9", null]);
  assert.deepEqual(learning.note, { kind: "trouble", sentence: "All that is left was opened." });
  learning.stop();
});

test("a rollback needs a reason, and what the server refuses is said", async () => {
  const { server, learning, heard } = await learningOf();
  learning.open({ reason: "  " });
  await learning.rollback();
  assert.match(learning.note.sentence, /Say why first/);
  learning.form.reason = " worse on children ";
  server.fails.rollback = new Error("Only an administrator may do this.");
  await learning.rollback();
  assert.deepEqual([learning.note.sentence, learning.form.reason], ["Only an administrator may do this.", " worse on children "]);
  delete server.fails.rollback;
  await learning.rollback();
  assert.deepEqual(server.asked.filter(([name]) => name === "rollback").at(-1), ["rollback", "worse on children"]);
  assert.equal(learning.form, null);
  assert.equal(heard.at(-1), "Version v0006-cc is in charge again.");
  learning.stop();
});

test("who is no administrator asks for a rollback, and changes nothing", async () => {
  const state = { ...STATE, administrator: false };
  const { server, learning, heard } = await learningOf({ learning: state, requestRollback: {} });
  learning.open({ reason: " worse on children " });
  await learning.rollback();
  assert.deepEqual(server.asked.at(1), ["requestRollback", "worse on children"]);
  assert.ok(!server.asked.some(([name]) => name === "rollback"));
  assert.equal(learning.form, null);
  assert.equal(heard.at(-1), "Your request is kept, and administrators see it here.");
  learning.stop();
});

test("the form says who decides, and takes no more text than the server", () => {
  const of = (administrator) => drawn({ state: { ...STATE, administrator }, form: { reason: "" } });
  assert.match(of(true).all("form")[0].attributes["aria-label"], /for everybody/);
  assert.match(of(false).all("form")[0].attributes["aria-label"], /Ask the administrators/);
  assert.ok(of(false).text.includes("Yes, ask them") && of(true).text.includes("Yes, go back"));
  assert.equal(of(false).all("input")[0].attributes.maxlength, "500");
});

test("open requests are shown, in the line that is always seen as well", () => {
  const state = { ...STATE, rollback_requests: [{ editor: "bob", version: "v0007-aa", reason: "worse on children" }] };
  assert.ok(drawn({ state }).text.includes("bob asks for the version before v0007-aa: worse on children"));
  assert.equal(learningTitle({ state }), "Learning: 3 new corrections, a rollback is requested");
});

test("one thing at a time", async () => {
  const { server, learning } = await learningOf();
  await Promise.all([learning.choose(), learning.choose()]);
  assert.equal(server.asked.filter(([name]) => name === "next").length, 1);
  learning.stop();
});

test("an open image is told once, however often it is scrolled", async () => {
  const { server, learning } = await learningOf({}, { opened: new Error("refused") });
  for (const image of [null, "a", "a", "b", "b"]) learning.opened(image);
  await new Promise((resolve) => setTimeout(resolve));
  assert.deepEqual(server.asked.slice(1), [["opened", "a"], ["opened", "b"]]);
  learning.stop();
});

/** As much of a document as building elements takes. */
class Node {
  constructor(name) {
    Object.assign(this, { name, attributes: {}, listeners: {}, children: [] });
  }
  setAttribute(key, value) {
    this.attributes[key] = String(value);
  }
  addEventListener(kind, listener) {
    this.listeners[kind] = listener;
  }
  append(...children) {
    this.children.push(...children);
  }
  get text() {
    return this.children.map((child) => child.text ?? String(child)).join("");
  }
  all(name) {
    const inside = this.children.flatMap((child) => (child instanceof Node ? child.all(name) : []));
    return this.name === name ? [this, ...inside] : inside;
  }
}

function shown(learning) {
  globalThis.document = { createElement: (name) => new Node(name) };
  const root = new Node("root");
  root.append(...learningContent(learning, "/viewer").filter(Boolean));
  delete globalThis.document;
  return root;
}

const drawn = (more) => shown({ state: STATE, next: null, skipped: null, form: null, busy: null, note: null, ...more });
const keyOf = (node) => node.attributes["data-key"];

test("the section shows version, decision, progress and a named button for each deed", () => {
  const running = { id: 9, phase: "training", done: 3, total: 10 };
  const root = drawn({ state: { ...STATE, running, last: ADOPTED } });
  for (const words of ["3 corrections since", "Round 9: training, 3 of 10.", "Round 8 adopted: optic disc", "In charge: v0007-aa"])
    assert.ok(root.text.includes(words), words);
  const [bar] = root.all("progress");
  assert.deepEqual([bar.value, bar.attributes["aria-label"]], [0.3, "Progress of round 9"]);
  assert.deepEqual(root.all("button").map(keyOf), ["learning-rollback", "learning-next"]);
  assert.equal(learningTitle({ state: { ...STATE, running } }), "Learning: round 9 runs");
  assert.equal(learningTitle({ state: STATE }), "Learning: 3 new corrections");
});

test("without a version to go back to the button cannot be pressed, and says why", () => {
  const [button] = drawn({ state: { ...STATE, can_rollback: false } }).all("button");
  assert.ok("disabled" in button.attributes);
  assert.equal(button.attributes.title, "There is no version before this one");
});

test("a rollback is asked for in a form that a keyboard can fill and leave", () => {
  const did = [];
  const form = { reason: "" };
  const root = drawn({ form, open: (to) => did.push(["open", to]), rollback: () => did.push(["rollback"]) });
  const [made] = root.all("form");
  const [input] = made.all("input");
  assert.ok(input.attributes["aria-label"] && made.attributes["aria-label"]);
  input.listeners.input({ target: { value: "why not" } });
  assert.equal(form.reason, "why not");
  made.listeners.submit({ preventDefault: () => did.push(["prevented"]) });
  made.listeners.keydown({ key: "Escape" });
  assert.deepEqual(did, [["prevented"], ["rollback"], ["open", null]]);
  assert.deepEqual(root.all("button").map(keyOf), ["learning-confirm", "learning-leave", "learning-next"]);
});

test("the next case has its reason and a link, or its id where the study is not known", () => {
  const root = drawn({ next: CASE, skipped: "1.2.8" });
  assert.ok(root.text.includes("It is the least sure."));
  assert.equal(root.all("a")[0].attributes.href, "/viewer?StudyInstanceUIDs=1.2&initialSeriesInstanceUID=1.2.9");
  assert.deepEqual(root.all("button").map(keyOf).slice(1), ["learning-skip", "learning-next", "learning-unskip"]);
  const plain = drawn({ next: { ...CASE, study: null, image: "scan" } });
  assert.ok(plain.text.includes("Image scan") && plain.all("a").length === 0);
});
