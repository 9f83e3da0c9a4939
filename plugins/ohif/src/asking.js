// One question from asking to drawn masks. The turn is changed in place; `changed(turn)` is called after every change.

import { parse } from "./nrrd.js";
import { ServerError } from "./server.js";
import { compact, locate, stackOf, whole } from "./slices.js";

/** The body of POST /medsegr/ask for a turn. Slices of a range arrive as the viewer's numbers. Raises `Error` in words. */
export async function requestBody(turn, conversation, { server, viewer, client }) {
  const body = {
    image: turn.series,
    instance: turn.sop,
    frame: turn.frame,
    question: turn.question,
    history: conversation.history(turn.series, await stackNumber(turn, conversation, server), turn.about),
    slices: "all",
    client_id: client,
  };
  if (turn.scope.kind === "this") body.slices = "this";
  if (turn.scope.kind === "range") Object.assign(body, await rangeOf(turn, server, viewer));
  return body;
}

/** The stack that the question is about, where that matters: a series may hold several images. null: any of them. */
async function stackNumber(turn, conversation, server) {
  const earlier = conversation.turns.some((one) => one.status === "done" && one.series === turn.series);
  if (!earlier || !turn.sop) return null;
  return locate(await server.series(turn.series), turn.sop, turn.frame)?.stack.n ?? null;
}

async function rangeOf(turn, server, viewer) {
  turn.ends ??= endsOf(turn.scope, viewer);
  const series = await server.series(turn.series);
  const [from, to] = turn.ends.map(({ sop, frame }) => locate(series, sop, frame));
  if (!from || !to) throw new Error("The server does not know a slice of this range; choose another range.");
  if (from.stack !== to.stack)
    throw new Error("The two slices belong to different stacks of images; choose a range within one.");
  const [first, last] = [from.k, to.k].sort((a, b) => a - b);
  return { instance: turn.ends[0].sop, frame: turn.ends[0].frame, slices: `${first}-${last}` };
}

function endsOf({ from, to }, viewer) {
  const images = viewer.images?.() ?? [];
  const ends = [from, to].map((number) => images[number - 1]);
  if (ends.includes(undefined)) throw new Error(`The range must lie between slices 1 and ${images.length}.`);
  return ends.map(({ sopUid, frame }) => ({ sop: sopUid, frame: frame ?? 1 }));
}

/** Ask and follow the answer. Ends with turn.status done, cancelled, failed or interrupted; never raises. */
export async function ask(turn, conversation, context, changed) {
  const { server } = context;
  turn.live.abort = new AbortController();
  turn.live.marks = { asked: mark(turn, "asked") };
  Object.assign(turn, { status: "sending", error: null, id: null, text: "", progress: null, place: null });
  changed(turn);
  try {
    const body = await requestBody(turn, conversation, context);
    for await (const { event, data } of server.ask(body, turn.live.abort.signal)) {
      hear(turn, event, data);
      changed(turn);
    }
  } catch (error) {
    fail(turn, error);
    changed(turn);
  }
}

function hear(turn, event, data) {
  if (data.turn_id) turn.id = data.turn_id;
  if (event === "queued") Object.assign(turn, { status: "queued", place: data.place });
  if (event === "started") Object.assign(turn, { status: "running", place: null });
  if (event === "progress") turn.progress = { done: data.done, total: data.total };
  if (event === "text") turn.text += data.piece;
  if (event === "error") {
    const refused = ServerError.of(data.status, data.detail);
    fail(turn, refused);
  }
  if (event === "done") {
    turn.live.marks.done = mark(turn, "done");
    const outcome = data.outcome ?? (data.findings.length ? "found" : "not_present");
    Object.assign(turn, {
      status: "done",
      progress: null,
      answer: data.answer,
      findings: data.findings,
      outcome,
      stack: data.stack ?? turn.stack,
      model: data.model_version,
      latencies: data.latencies,
    });
  }
}

function fail(turn, error) {
  if (turn.cancelling || turn.live.abort.signal.aborted) {
    turn.status = "cancelled";
    turn.error = null;
    turn.cancelling = false;
    return;
  }
  const kind = error instanceof ServerError ? error.kind : "refused";
  turn.status = kind === "away" || kind === "busy" || kind === "login" ? "interrupted" : "failed";
  turn.error = { kind, sentence: error.message };
}

/** Withdraw an open question; where the server cannot be told, the connection is closed, which cancels as well. */
export async function cancel(turn, { server }, changed) {
  turn.cancelling = true;
  changed(turn);
  try {
    if (!turn.id) throw new Error("not queued yet");
    await server.cancel(turn.id);
  } catch {
    turn.live.abort.abort();
  }
}

/** Fetch the masks of a finished turn and draw them. Sets turn.live.drawn to "drawing", "drawn" or a sentence; never raises. */
export async function draw(turn, { server, segments }, changed) {
  turn.live.drawn = "drawing";
  turn.live.segments = segments;
  changed(turn);
  try {
    const wanted = turn.findings.filter((finding) => !finding.added);
    const fetched = wanted.map(({ n }) => fetchWhole(turn, n, server));
    const [series, ...masks] = await Promise.all([server.series(turn.series), ...fetched]);
    turn.live.marks = { ...turn.live.marks, fetched: mark(turn, "fetched") };
    turn.live.stack = stackOf(series, turn.stack);
    turn.live.subject = { id: turn.id, series, stack: turn.live.stack.n, findings: [] };
    for (const [i, { n }] of wanted.entries()) turn.live.masks.set(n, compact(masks[i], turn.live.stack));
    const findings = wanted.map(({ n, label, renamed }, i) => ({ n, label: renamed ?? label, mask: masks[i] }));
    const handle = await segments.draw({ ...turn.live.subject, findings });
    for (const { n } of wanted) turn.live.handles.set(n, handle);
    for (const { n, absent } of wanted) if (absent) segments.remove(handle, n);
    turn.live.handle = handle;
    turn.live.drawn = "drawn";
    turn.live.marks.drawn = mark(turn, "drawn");
  } catch (error) {
    turn.live.drawn = error.message || "The masks cannot be drawn.";
  }
  changed(turn);
}

/** Draw one finding again, in a segmentation of its own, after it was taken away. */
export async function drawAgain(turn, n, { segments }) {
  const finding = turn.findings.find((one) => one.n === n);
  const shown = { n, label: finding.renamed ?? finding.label, mask: whole(turn.live.masks.get(n), turn.live.stack) };
  turn.live.handles.set(n, await segments.draw({ ...turn.live.subject, findings: [shown] }));
}

/** The mask of finding n as `compact` gives it; fetched once. n = 0 is the image's grid. */
export async function fetchMask(turn, n, server) {
  if (!turn.live.masks.has(n)) {
    turn.live.stack ??= stackOf(await server.series(turn.series), turn.stack);
    turn.live.masks.set(n, compact(await fetchWhole(turn, n, server), turn.live.stack));
  }
  return turn.live.masks.get(n);
}

const fetchWhole = async (turn, n, server) => parse(await server.mask(turn.id, n));

function mark(turn, what) {
  return performance.mark(`medsegr:${what}:${turn.key}`).startTime;
}
