// What the buttons below an answer do: edit, add, take away, accept, correct, reject.

import { draw, drawAgain } from "./asking.js";
import { collect, form } from "./correcting.js";
import { listed } from "./words.js";

const NOTHING_CHANGED =
  "Nothing is changed yet: edit a mask with the brush, its name or the text, or accept the answer.";

export class Judging {
  /** `panel`: conversation, viewer, segments, server, client, availability; changed(turn), say(text, turn), announce(text),
   * focusForm(turn), reveal(turn). */
  constructor(panel) {
    this.panel = panel;
  }

  draw = (turn) => draw(turn, this.panel, this.panel.changed);

  // Editing ----------------------------------------------------------------------------------------------------------

  open = (turn, draft) => {
    turn.live.form = draft;
    this.panel.chosen = turn.key;
    this.panel.changed();
    this.panel.focusForm(turn);
  };

  openReject = (turn) => this.open(turn, { kind: "reject", reason: "", text: "" });

  reason = (turn, reason) => {
    const draft = turn.live.form;
    draft.reason = draft.reason === reason ? "" : reason;
    this.panel.changed(turn);
  };

  keepText = (turn) => {
    const text = turn.live.form.text.trim();
    turn.edited = text && text !== turn.answer ? text : null;
    this.open(turn, null);
  };

  rename = (turn, n, name) => {
    const finding = turn.findings.find((one) => one.n === n);
    const label = name.trim();
    if (!label) return;
    finding.renamed = label === finding.label ? null : label;
    const handle = turn.live.handles.get(n);
    if (handle !== undefined) attempt(() => this.panel.segments.rename(handle, n, label));
    this.open(turn, null);
  };

  /** An empty finding, to be painted by the reader. */
  add = async (turn) => {
    const label = turn.live.form.text.trim();
    if (!label) return;
    try {
      if (turn.live.drawn !== "drawn") await this.draw(turn);
      if (turn.live.drawn !== "drawn") throw new Error(turn.live.drawn);
      const n = await this.panel.segments.addEmpty(turn.live.subject, label);
      turn.live.handles.set(n, turn.live.handle);
      turn.findings.push({ n, label, added: true });
      attempt(() => this.panel.segments.select(turn.live.handle, n));
      turn.live.form = null;
      this.panel.conversation.about = { key: turn.key, n };
      this.panel.say(`Paint the ${label} with the brush, then submit the correction.`);
    } catch (error) {
      turn.verdict = { state: "note", sentence: `It cannot be drawn: ${error.message}` };
    }
    this.panel.changed();
  };

  /** Say that a finding is not there: its segment goes, an empty mask will be sent. */
  takeAway = (turn, n) => {
    Object.assign(
      turn.findings.find((one) => one.n === n),
      { absent: true, lost: false },
    );
    attempt(() => this.panel.segments.remove(turn.live.handles.get(n), n));
    this.panel.changed(turn);
  };

  bringBack = async (turn, n) => {
    try {
      await drawAgain(turn, n, this.panel);
      Object.assign(
        turn.findings.find((one) => one.n === n),
        { absent: false, lost: false, touched: false },
      );
    } catch (error) {
      this.panel.say(error.message);
    }
    this.panel.changed(turn);
  };

  undo = () => {
    if (!attempt(() => this.panel.segments.undo())) this.panel.say("There is no brush stroke to take back.");
  };

  // Judging ----------------------------------------------------------------------------------------------------------

  /** Accept as it is; what was edited on the way is sent as the correction that it is. */
  accept = (turn) => this.judge(turn, "accepted");

  submit = (turn, { confirmed = false } = {}) => this.judge(turn, "edited", { confirmed });

  reject = (turn) => {
    const draft = turn.live.form;
    const reason = [draft.reason, draft.text.trim()].filter(Boolean).join(": ");
    if (!reason) return this.panel.say("Choose or write a reason first.", turn);
    return this.send(turn, "rejected", { reason });
  };

  repeat = (turn) => turn.live.repeat?.();

  async judge(turn, verdict, { confirmed = false } = {}) {
    if (turn.verdict?.state === "sending") return;
    let collected;
    try {
      collected = await collect(turn, this.panel);
    } catch (error) {
      this.failed(turn, error, () => this.judge(turn, verdict, { confirmed }));
      return;
    }
    if (verdict === "edited" && !collected.changed.length) return this.note(turn, NOTHING_CHANGED);
    if (collected.emptied.length && !confirmed) return this.open(turn, { kind: "confirm", emptied: collected.emptied });
    await this.send(turn, collected.changed.length ? "edited" : "accepted", { collected });
  }

  async send(turn, verdict, { reason, collected }) {
    if (turn.verdict?.state === "sending") return;
    turn.verdict = { state: "sending" };
    this.panel.changed(turn);
    try {
      const { client, server } = this.panel;
      const { correction, files } = await form(turn, verdict, { reason, collected, client, server });
      const reply = await server.correct(correction, files);
      turn.live.form = null;
      turn.verdict = { state: "saved", id: reply.id, verdict, sentence: said(verdict, reason, collected) };
      this.panel.announce(turn.verdict.sentence);
      this.panel.learning?.refresh();
      this.panel.learning?.meet(named(turn, collected));
    } catch (error) {
      this.failed(turn, error, () => this.send(turn, verdict, { reason, collected }));
      return;
    }
    this.panel.changed(turn);
    this.panel.reveal(turn);
  }

  failed(turn, error, repeat) {
    turn.verdict = { state: "failed", sentence: error.message };
    turn.live.repeat = () => {
      turn.verdict = null;
      return repeat();
    };
    this.panel.announce(`Not saved: ${error.message}`);
    this.panel.changed(turn);
    this.panel.reveal(turn);
  }

  note(turn, sentence) {
    this.panel.say(sentence, turn);
  }
}

/** Names in a correction that the answer did not have. */
function named(turn, collected) {
  const own = new Set(turn.findings.filter((one) => !one.added).map((one) => one.label));
  return (collected?.findings ?? []).map((one) => one.label).filter((label) => !own.has(label));
}

function said(verdict, reason, collected) {
  if (verdict === "rejected") return `Rejected (${reason.toLowerCase()}).`;
  if (verdict === "accepted") return "Accepted.";
  return `Correction saved (${listed(collected.changed)}).`;
}

/** What a call returns, or null: an OHIF service that is gone must not take the panel with it. */
export function attempt(call) {
  try {
    return call() ?? null;
  } catch {
    return null;
  }
}
