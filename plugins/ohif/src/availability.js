// Whether questions can be answered now. Polls the server's readiness, more often while it is away; viewing never waits.

import { AWAY } from "./server.js";

const READY_MS = 15000;
const AWAY_MS = 2000;
const LOADING = "The model is being loaded; you can go on viewing.";

export class Availability {
  /** `changed` is called with the new state: {kind: "unknown" | "ready" | "starting" | "away" | "login", sentence, model, licence}. */
  constructor(server, changed) {
    this.server = server;
    this.changed = changed;
    this.state = { kind: "unknown", sentence: "", model: "", licence: "", name: "" };
    this.timer = null;
    this.stopListening = server.onReply((error) => this.hear(error));
    this.check();
  }

  async check() {
    clearTimeout(this.timer);
    this.checking = true;
    try {
      const reply = await this.server.ready();
      if (reply.ready) await this.introduce(reply);
      else this.become({ kind: "starting", sentence: reply.detail ?? LOADING });
    } catch (error) {
      this.become({ kind: error.kind === "login" ? "login" : "away", sentence: error.message });
    }
    this.checking = false;
    clearTimeout(this.timer);
    if (this.stopListening)
      this.timer = setTimeout(() => this.check(), this.state.kind === "ready" ? READY_MS : AWAY_MS);
  }

  /** Ready: learn name and labels, which also shows whether the login still holds. */
  async introduce(reply) {
    const known = { model: reply.model_version, licence: reply.weights_licence };
    if (this.state.model !== known.model || this.state.kind !== "ready") {
      const info = await this.server.info().catch((error) => (error.kind === "login" ? Promise.reject(error) : {}));
      Object.assign(known, { name: info.name ?? "", labels: namesOf(info.labels) });
    }
    this.become({ ...known, kind: "ready", sentence: "" });
  }

  /** Every reply of the server tells something; a failure is noticed at once and not at the next poll. */
  hear(error) {
    if (this.checking) return;
    if (error?.kind === "away" && this.state.kind !== "away") {
      this.become({ kind: "away", sentence: AWAY });
      this.timer = setTimeout(() => this.check(), AWAY_MS);
    } else if (error?.kind === "login") this.become({ kind: "login", sentence: error.message });
    else if (!error && this.state.kind === "away") this.check();
  }

  become(state) {
    this.state = { ...this.state, ...state };
    this.changed(this.state);
  }

  stop() {
    clearTimeout(this.timer);
    this.stopListening();
    this.stopListening = null;
  }
}

function namesOf(labels) {
  if (Array.isArray(labels)) return labels.filter((label) => typeof label === "string");
  return labels && typeof labels === "object" ? Object.keys(labels).filter((label) => label !== "background") : [];
}
