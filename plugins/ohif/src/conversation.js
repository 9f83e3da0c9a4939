// The conversation about one study: its turns, the draft and the scope. It outlives a reload of the page (sessionStorage
// of this tab), and never mixes with what another tab or another person asked.

const PREFIX = "medsegr.conversation.";
const CLIENT = "medsegr.client";
const USER = "medsegr.user";
const MAX_TURNS = 100;
const MAX_HISTORY = 20;

/** What a turn can be; the last four have ended. */
export const OPEN = new Set(["sending", "queued", "running"]);

/** The random name of this tab, by which the server keeps its turns apart from everybody else's. */
export function clientId(storage = sessionStorage) {
  const known = storage.getItem(CLIENT);
  if (known) return known;
  const bytes = crypto.getRandomValues(new Uint8Array(12)); // randomUUID exists on https only
  const made = `ohif-${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
  storage.setItem(CLIENT, made);
  return made;
}

/** Forget what somebody else asked in this tab before `user` logged in; returns whether there was anybody. */
export function forgetOthers(user, storage = sessionStorage) {
  const before = storage.getItem(USER);
  storage.setItem(USER, user);
  if (before === null || before === user) return false;
  const names = Array.from({ length: storage.length }, (_, i) => storage.key(i));
  for (const name of names) if (name.startsWith(PREFIX) || name === CLIENT) storage.removeItem(name);
  return true;
}

export class Conversation {
  /** `study`: what names the study in the viewer. */
  constructor(study, storage = sessionStorage) {
    this.study = study;
    this.storage = storage;
    this.turns = [];
    this.draft = "";
    this.scope = { kind: "this", from: null, to: null };
    this.listener = null;
    this.about = null; // {key, n} of the finding that the next question is about
    this.restore();
  }

  /** A new turn at the end. `asked`: series, stack, sop, frame, question, about, slices, scopeText. */
  add(asked) {
    const turn = {
      ...asked,
      key: `t${Date.now().toString(36)}${this.turns.length}`,
      id: null,
      status: "sending",
      place: null,
      progress: null,
      text: "",
      answer: null,
      edited: null,
      outcome: null,
      findings: [],
      error: null,
      verdict: null,
    };
    live(turn);
    this.turns = [...this.turns, turn].slice(-MAX_TURNS);
    this.save();
    return turn;
  }

  find(key) {
    return this.turns.find((turn) => turn.key === key) ?? null;
  }

  /** The turn whose answer is being looked at: the chosen one, else the newest that was answered. */
  current(chosen) {
    const done = this.turns.filter((turn) => turn.status === "done");
    return done.find((turn) => turn.key === chosen) ?? done.at(-1) ?? null;
  }

  /** Turns about the same image, oldest first, as the server wants them; the one that is meant comes last.
   * `stack`: which of the series' images, or null for all of them. */
  history(series, stack, about = this.about) {
    const same = (turn) => turn.series === series && (stack === null || turn.stack === null || turn.stack === stack);
    const turns = this.turns.filter((turn) => turn.status === "done" && same(turn));
    const meant = turns.find((turn) => turn.key === about?.key);
    const ordered = meant ? [...turns.filter((turn) => turn !== meant), meant] : turns;
    const told = ordered.map((turn) => ({ question: turn.question, answer: turn.edited ?? turn.answer ?? "" }));
    if (meant?.findings.length > 1) told.push(...pointedAt(meant.findings.find((finding) => finding.n === about.n)));
    return told.slice(-MAX_HISTORY);
  }

  /** The finding that the next question is about, as {turn, finding}, or null. */
  meant() {
    const turn = this.about && this.find(this.about.key);
    const finding = turn?.findings.find((f) => f.n === this.about.n);
    return finding ? { turn, finding } : null;
  }

  /** The question that waits or is being answered, or undefined. */
  open() {
    return this.turns.find((turn) => OPEN.has(turn.status));
  }

  /** Tell whoever shows this conversation; nobody may, while another panel covers it. */
  changed(turn) {
    this.save();
    this.listener?.(turn);
  }

  clear() {
    this.turns = [];
    this.about = null;
    this.save();
  }

  save() {
    const { turns, draft, scope, about } = this;
    for (let keep = turns.length; keep >= 0; keep = keep > 1 ? keep >> 1 : keep - 1) {
      try {
        this.storage.setItem(
          PREFIX + this.study,
          JSON.stringify({ turns: turns.slice(turns.length - keep), draft, scope, about }),
        );
        return;
      } catch (error) {
        if (error?.name !== "QuotaExceededError") throw error; // full: keep the newer half
      }
    }
  }

  restore() {
    let stored = null;
    try {
      stored = JSON.parse(this.storage.getItem(PREFIX + this.study));
    } catch {
      return; // not ours, or cut off: begin anew
    }
    if (!stored || !Array.isArray(stored.turns)) return;
    Object.assign(this, { draft: stored.draft ?? "", scope: stored.scope ?? this.scope, about: stored.about ?? null });
    this.turns = stored.turns.map((turn) => live(turn));
    for (const turn of this.turns) {
      if (OPEN.has(turn.status)) {
        turn.status = "interrupted";
        turn.error = { kind: "away", sentence: "The page was reloaded before the answer was complete." };
      }
      if (turn.verdict?.state === "sending") turn.verdict = null;
      forgetDrawing(turn); // it went with the page
    }
  }
}

/** The viewer has a turn's segmentations no longer, and with them went what the reader drew and edited. */
export function forgetDrawing(turn) {
  turn.live.drawn = null;
  turn.live.handles.clear();
  turn.findings = turn.findings.filter((finding) => !finding.added);
  for (const finding of turn.findings) Object.assign(finding, { touched: false, lost: false });
}

/** To choose one of several findings is a turn as well: without it "only the left one" could mean any of them. */
function pointedAt(finding) {
  const name = finding?.renamed ?? finding?.label;
  return name ? [{ question: `Show me the ${name}.`, answer: `Visible here: ${name}.` }] : [];
}

/** Give a turn the part that is not stored: masks, handles of segmentations, the running request. */
function live(turn) {
  Object.defineProperty(turn, "live", {
    value: { masks: new Map(), handles: new Map(), drawn: null },
    enumerable: false,
  });
  return turn;
}
