// The panel's plain modules under node: words, slices, server-sent events, what a correction holds, what a reload keeps.

import assert from "node:assert/strict";
import { test } from "node:test";
import { pathToFileURL } from "node:url";

const SOURCE = pathToFileURL(`${process.env.MEDSEGR_PLUGIN}/src/`);
const load = (name) => import(new URL(name, SOURCE));
const { confidenceInWords, listed, pieces, queueInWords, sizeInWords } = await load("words.js");
const { compact, largest, locate, neighbour, numbers, slicesInWords, whole } = await load("slices.js");
const { ServerError, messages } = await load("server.js");
const { assemble } = await load("correcting.js");
const { Conversation, clientId, forgetOthers } = await load("conversation.js");
const { draw } = await load("asking.js");
const { Actions } = await load("actions.js");

const instances = [..."dacb"].map((sop) => ({ sop, frame: 1 }));
const stack = { n: 2, shape: [2, 1, 4], instances };
const series = { series: "s", stacks: [{ n: 1, shape: [2, 1], instances: [{ sop: "z", frame: 1 }] }, stack] };
const mask = { sizes: [2, 1, 4], data: Uint8Array.from([0, 0, 1, 0, 1, 1, 0, 0]) };
const viewer = { images: () => [..."abcd"].map((sopUid) => ({ sopUid, frame: 1 })) };

test("sizes carry their unit, and say when there is none", () => {
  assert.equal(sizeInWords({ volume_ml: 1234.4 }), "1,234 ml");
  assert.equal(sizeInWords({ volume_ml: 0.456 }), "0.46 ml");
  assert.equal(sizeInWords({ area_mm2: 250.04 }), "250 mm²");
  assert.equal(sizeInWords({ area_mm2: 12345 }), "123 cm²");
  assert.equal(sizeInWords({ area_px: 4321 }), "4,321 pixels (no spacing known)");
  assert.equal(sizeInWords({}), "");
});

test("confidence is a word and a number", () => {
  const said = [0.91, 0.7, 0.5, 0.123].map(confidenceInWords);
  assert.deepEqual(said, ["very likely right, 91 %", "probably right, 70 %", "uncertain, 50 %", "doubtful, 12 %"]);
});

test("the queue and lists are said as people say them", () => {
  assert.deepEqual([0, 1, 4].map(queueInWords), [
    "Waiting for the model.",
    "One question is ahead of yours.",
    "4 questions are ahead of yours.",
  ]);
  assert.equal(listed(["a", "b", "c"]), "a, b and c");
});

test("phrases are found as whole words, each once, whatever the case", () => {
  const findings = [
    { n: 1, phrase: "kidneys", label: "kidneys" },
    { n: 2, phrase: "left kidney", label: "left kidney" },
    { n: 3, phrase: "kidney", label: "kidney" },
    { n: 4, phrase: "", label: "liver (segment 4)" },
  ];
  const cut = pieces("Kidneys: the left kidney, a kidney; liver (segment 4).", findings);
  const marked = cut.filter((piece) => piece.n).map((piece) => [piece.n, piece.text]);
  assert.deepEqual(marked, [
    [1, "Kidneys"],
    [2, "left kidney"],
    [3, "kidney"],
    [4, "liver (segment 4)"],
  ]);
  assert.equal(cut.map((piece) => piece.text).join(""), "Kidneys: the left kidney, a kidney; liver (segment 4).");
});

test("slices are paired by instance, never by order", () => {
  const { touched: found } = compact(mask, stack);
  assert.deepEqual(
    found.map(({ k, sop, count }) => [k, sop, count]),
    [
      [1, "a", 1],
      [2, "c", 2],
    ],
  );
  assert.equal(largest(found).sop, "c");
  const numbering = numbers(viewer, stack);
  assert.equal(slicesInWords(found, numbering), "slices 1–3 (2 of them)");
  assert.equal(neighbour(found, numbering, 1, 1).sop, "c");
  assert.equal(neighbour(found, numbering, 3, 1).sop, "a");
  assert.equal(neighbour(found, numbering, 1, -1).sop, "c");
  assert.equal(slicesInWords(found, numbers({}, stack)), "slices 2–3");
  assert.deepEqual([locate(series, "b", 1).k, locate(series, "z").stack.n, locate(series, "b", 2)], [3, 1, null]);
});

test("a mask is kept without its empty slices and comes back whole", () => {
  const kept = compact(mask, stack);
  assert.deepEqual([...kept.planes.keys()], [1, 2]);
  assert.deepEqual(whole(kept, stack).data, mask.data);
});

test("a correction is put together in the server's order of slices", () => {
  const own = compact(mask, stack);
  const planes = new Map([
    ["a|1", [5, 0]],
    ["b|1", [0, 9]],
    ["c|1", [0, 0]],
  ]);
  assert.deepEqual([...assemble(planes, stack, own)], [0, 0, 1, 0, 0, 0, 0, 1]);
  planes.delete("c|1");
  assert.throws(() => assemble(planes, stack, own, own), /did not give slice 3 of the mask back/);
  assert.throws(() => assemble(new Map([["a|1", [1]]]), stack, own), /not of the size/);
});

test("events come whole, however the stream is cut", async () => {
  const bytes = new TextEncoder().encode(
    'event: text\ndata: {"piece": "große "}\n\n: still here\n\nevent: done\r\ndata: {"answer": 1}\r\n\r\n',
  );
  for (const size of [1, 3, 1000]) {
    const chunks = [];
    for (let i = 0; i < bytes.length; i += size) chunks.push(bytes.subarray(i, i + size));
    const found = [];
    for await (const message of messages(ReadableStream.from(chunks))) found.push(message);
    assert.deepEqual(found, [
      { event: "text", data: { piece: "große " } },
      { event: "done", data: { answer: 1 } },
    ]);
  }
});

test("failures are told apart", () => {
  const kinds = [401, 429, 503, 502, 504, 422, 500].map((status) => ServerError.of(status, "Why.").kind);
  assert.deepEqual(kinds, ["login", "busy", "busy", "away", "away", "refused", "failed"]);
  assert.equal(ServerError.of(422, [{ loc: 1 }]).message, "The server answered with status 422.");
});

class Storage {
  kept = new Map();
  constructor(limit = Infinity) {
    this.limit = limit;
  }
  getItem = (name) => this.kept.get(name) ?? null;
  removeItem = (name) => this.kept.delete(name);
  key = (i) => [...this.kept.keys()][i] ?? null;
  get length() {
    return this.kept.size;
  }
  setItem(name, value) {
    if (value.length > this.limit) throw Object.assign(new Error(), { name: "QuotaExceededError" });
    this.kept.set(name, value);
  }
}

test("a reload keeps the conversation, and an open question becomes one that was interrupted", () => {
  const storage = new Storage();
  const first = new Conversation("1.2", storage);
  const done = first.add({ series: "s", stack: 1, question: "one", about: null });
  Object.assign(done, {
    status: "done",
    answer: "A.",
    findings: [
      { n: 1, label: "liver", touched: true, lost: true },
      { n: 2, added: true, label: "new" },
    ],
  });
  first.add({ series: "s", stack: 1, question: "two" }).status = "running";
  first.draft = "half a quest";
  first.save();
  const again = new Conversation("1.2", storage);
  assert.equal(again.draft, "half a quest");
  assert.deepEqual(
    again.turns.map((turn) => turn.status),
    ["done", "interrupted"],
  );
  assert.deepEqual(again.turns[0].findings, [{ n: 1, label: "liver", touched: false, lost: false }]); // the edit is gone
  assert.equal(new Conversation("another study", storage).turns.length, 0);
  storage.kept.set("medsegr.conversation.9", "{half");
  assert.equal(new Conversation("9", storage).turns.length, 0);
});

test("history is of this image, corrected where the reader corrected it, the meant turn last", () => {
  const conversation = new Conversation("1.2", new Storage());
  const asked = (question, more) =>
    Object.assign(conversation.add({ series: "s", stack: 1, question }), {
      status: "done",
      answer: `${question}!`,
      ...more,
    });
  const one = asked("one", { edited: "One, corrected." });
  const two = asked("two", {
    findings: [
      { n: 1, label: "liver" },
      { n: 2, label: "kidneys" },
    ],
  });
  asked("elsewhere", { series: "t" });
  asked("other stack", { stack: 2 });
  asked("failed", { status: "failed" });
  assert.deepEqual(conversation.history("s", 1), [
    { question: "one", answer: "One, corrected." },
    { question: "two", answer: "two!" },
  ]);
  assert.deepEqual(
    conversation.history("s", null).map((turn) => turn.question),
    ["one", "two", "other stack"],
  );
  assert.deepEqual(
    conversation.history("s", 1, { key: one.key, n: 1 }).map((turn) => turn.question),
    ["two", "one"],
  );
  const pointed = { question: "Show me the kidneys.", answer: "Visible here: kidneys." };
  assert.deepEqual(conversation.history("s", 1, { key: two.key, n: 2 }).slice(1), [
    { question: "two", answer: "two!" },
    pointed,
  ]);
});

test("a full storage keeps the newer turns", () => {
  const storage = new Storage(2500);
  const conversation = new Conversation("1.2", storage);
  for (let i = 0; i < 20; i++)
    conversation.add({ series: "s", stack: 1, question: `question ${i} ${"x".repeat(100)}` });
  const kept = new Conversation("1.2", storage).turns;
  assert.ok(kept.length >= 1 && kept.length < 20);
  assert.match(kept.at(-1).question, /^question 19 /);
});

test("every tab has a name of its own that a reload keeps", () => {
  const [one, other] = [new Storage(), new Storage()];
  assert.match(clientId(one), /^ohif-[0-9a-f]{24}$/);
  assert.equal(clientId(one), clientId(one));
  assert.notEqual(clientId(one), clientId(other));
});

test("who logs in after somebody else sees nothing of theirs", () => {
  const storage = new Storage();
  assert.equal(forgetOthers("anna", storage), false);
  const client = clientId(storage);
  new Conversation("1.2", storage).add({ series: "s", stack: 1, question: "mine" });
  storage.setItem("of the viewer", "kept");
  assert.equal(forgetOthers("anna", storage), false);
  assert.equal(new Conversation("1.2", storage).turns.length, 1);
  assert.equal(forgetOthers("ben", storage), true);
  assert.equal(new Conversation("1.2", storage).turns.length, 0);
  assert.notEqual(clientId(storage), client);
  assert.equal(storage.getItem("of the viewer"), "kept");
});

test("masks that are drawn again have the reader's names, and what is not there stays away", async () => {
  const nrrd = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 1 4\nencoding: raw\n\n";
  const file = Uint8Array.from([...new TextEncoder().encode(nrrd), ...mask.data]).buffer;
  const turn = new Conversation("1.2", new Storage()).add({ series: "s", stack: 2, question: "q" });
  Object.assign(turn, { id: "t", status: "done" });
  turn.findings = [
    { n: 1, label: "liver", renamed: "left liver" },
    { n: 2, label: "spleen", absent: true },
  ];
  const [drawn, removed] = [[], []];
  const segments = {
    draw: async ({ findings }) => void drawn.push(...findings.map(({ label }) => label)) ?? "handle",
    remove: (_, n) => removed.push(n),
  };
  await draw(turn, { server: { series: async () => series, mask: async () => file }, segments }, () => {});
  assert.equal(turn.live.drawn, "drawn");
  assert.deepEqual([drawn, removed], [["left liver", "spleen"], [2]]);
});

test("an answer that comes after the viewer was left is kept and not drawn into what is gone", async () => {
  for (const disposed of [true, false]) {
    const conversation = new Conversation("1.2", new Storage());
    const turn = conversation.add({ series: "s", sop: "d", frame: 1, question: "q", scope: { kind: "series" } });
    const done = { turn_id: "t", answer: "A.", outcome: "not_present", findings: [], stack: 2 };
    const server = {
      series: async () => series,
      async *ask() {
        yield { event: "done", data: done };
      },
    };
    const drawn = [];
    const segments = { disposed, draw: async ({ id }) => drawn.push(id) };
    await new Actions({ conversation, server, segments, viewer, changed() {}, record() {} }).run(turn);
    assert.deepEqual([turn.status, turn.answer, drawn], ["done", "A.", disposed ? [] : ["t"]]);
  }
});
