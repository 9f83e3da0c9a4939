// Requests to the server that this module came from: every failure is a `ServerError` with one sentence for people.

export const AWAY = "The server does not answer. The images stay as they are and your text is kept.";
const ENDED = "Your login has ended.";
const ME_MS = 3000;
const GATEWAY = new Set([502, 504]);

/** kind: "away" (no answer), "busy" (429, 503), "login" (401), "refused" (other 4xx) or "failed" (500). */
export class ServerError extends Error {
  constructor(kind, sentence, status = 0) {
    super(sentence);
    this.kind = kind;
    this.status = status;
  }

  static of(status, detail) {
    if (status === 401) return new ServerError("login", ENDED, status);
    if (GATEWAY.has(status)) return new ServerError("away", AWAY, status);
    const kind = status === 429 || status === 503 ? "busy" : status >= 500 ? "failed" : "refused";
    const sentence = typeof detail === "string" && detail ? detail : `The server answered with status ${status}.`;
    return new ServerError(kind, sentence, status);
  }
}

export class Server {
  /** `base`: address of `…/medsegr/`; found from this module's own address. */
  constructor(base = new URL("../../", import.meta.url)) {
    this.base = new URL(base);
    this.listeners = new Set();
  }

  /** Hear of every reply: null for one that arrived, a `ServerError` otherwise. Returns the way to stop. */
  onReply(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** {ready, model_version, weights_licence} or {ready: false, detail}; raises when nobody answers. */
  async ready() {
    const response = await this.fetch("readyz", { quiet: [503] });
    const state = await response.json().catch(() => ({}));
    if (response.status === 503 && typeof state.ready !== "boolean") throw new ServerError("away", AWAY, 503);
    return state;
  }

  info = () => this.json("../info/");
  me = () => this.json("me", { signal: AbortSignal.timeout(ME_MS) });
  series = (uid) => this.json(`series/${encodeURIComponent(uid)}`);
  cancel = (id) => this.json(`turns/${encodeURIComponent(id)}`, { method: "DELETE" });

  learning = () => this.json("learning");
  next = () => this.json("next");
  skip = (image, undo = false) => this.send("skip", { image, undo });
  opened = (image) => this.send("opened", { image });
  rollback = (reason) => this.send("models/rollback", { reason });
  requestRollback = (reason) => this.send("rollback-requests", { reason });
  labels = () => this.json("labels");
  teach = (label) => this.send("labels", label);

  /** POST plain data; the reply's. */
  send(path, data) {
    const headers = { "Content-Type": "application/json" };
    return this.json(path, { method: "POST", headers, body: JSON.stringify(data) });
  }

  suggestions(modality, bodyPart) {
    const query = new URLSearchParams();
    if (modality) query.set("modality", modality);
    if (bodyPart) query.set("body_part", bodyPart);
    return this.json(`suggestions?${query}`);
  }

  /** A finding's own mask as the bytes of an NRRD file; n = 0 is an empty one on the image's grid. */
  async mask(id, n) {
    const response = await this.fetch(`turns/${encodeURIComponent(id)}/masks/${n}?format=nrrd`);
    return response.arrayBuffer();
  }

  /** `correction` as the contract of POST /medsegr/corrections says; `files`: Map of part name to Blob. */
  async correct(correction, files) {
    const form = new FormData();
    form.append("correction", JSON.stringify(correction));
    for (const [name, blob] of files) form.append(name, blob, `${name}.nrrd`);
    return this.json("corrections", { method: "POST", body: form });
  }

  /** Ask; yields {event, data} until `done` or `error`. Raises `ServerError`; "away" when the stream breaks off. */
  async *ask(body, signal) {
    const headers = { "Content-Type": "application/json" };
    const response = await this.fetch("ask", { method: "POST", headers, body: JSON.stringify(body), signal });
    try {
      for await (const message of messages(response.body)) {
        yield message;
        if (message.event === "done" || message.event === "error") return;
      }
    } catch (error) {
      if (error instanceof ServerError || signal?.aborted) throw error;
      throw this.tell(new ServerError("away", AWAY));
    }
    throw this.tell(new ServerError("away", "The connection broke off before the answer was complete."));
  }

  /** Where to log in again and come back. */
  loginAddress() {
    const here = `${location.pathname}${location.search}`;
    return new URL(`login?next=${encodeURIComponent(here)}`, this.base).href;
  }

  async json(path, options) {
    const response = await this.fetch(path, options);
    return response.json();
  }

  async fetch(path, { quiet = [], ...options } = {}) {
    let response;
    try {
      response = await fetch(new URL(path, this.base), { cache: "no-store", credentials: "same-origin", ...options });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw this.tell(new ServerError("away", AWAY));
    }
    if (response.ok || quiet.includes(response.status)) {
      this.tell(null);
      return response;
    }
    const reply = await response.json().catch(() => ({}));
    throw this.tell(ServerError.of(response.status, reply.detail));
  }

  tell(error) {
    for (const listener of this.listeners) listener(error);
    return error;
  }
}

/** Server-sent events of a response's body, as {event, data: parsed JSON}; comments (": still here") are skipped. */
export async function* messages(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    const blocks = rest.split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split(/\r?\n/);
      const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5).replace(/^ /, ""));
      const event = lines
        .find((line) => line.startsWith("event:"))
        ?.slice(6)
        .trim();
      if (event && data.length) yield { event, data: JSON.parse(data.join("\n")) };
    }
  }
}
