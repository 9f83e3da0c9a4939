// What the panel knows of learning: corrections, the round that runs, the version in charge, the next case. Polls while the
// panel is there, more often while a round runs; a server without rounds is asked no further. Sentences are plain functions.

const IDLE_MS = 20000;
const RUNNING_MS = 3000;
const OUTCOMES = {
  adopted: "adopted",
  refused: "not adopted",
  collecting: "not judged yet",
  failed: "failed",
  cancelled: "cancelled",
};

/** How many corrections wait for a round, and what is missing for one to be judged. */
export function correctionsInWords({ corrections_since: count = 0, missing = null }) {
  const since = `${count === 0 ? "No" : count} correction${count === 1 ? "" : "s"} since the last round.`;
  if (!missing) return since;
  return `${since} ${missing} more case${missing === 1 ? " is" : "s are"} needed before a new version can be judged.`;
}

/** What the server could not make cases of, or "" where there is nothing. */
export function withoutCaseInWords({ without_case: count = 0 }) {
  if (!count) return "";
  return `${count} correction${count === 1 ? "" : "s"} cannot be learnt from yet; the server's log says why.`;
}

/** Whether this user may only ask for a rollback; on a server without a login everybody may do it. */
export const onlyAsks = ({ administrator = true }) => !administrator;

/** "bob asks for the version before v0007-aa: worse on children" */
export function requestInWords({ editor, version, reason }) {
  return `${editor} asks for the version before ${version}: ${reason}`;
}

/** "Round 8: training, 3 of 10." or "" when none runs. */
export function runningInWords(running) {
  if (!running) return "";
  const share = running.total ? `, ${running.done} of ${running.total}` : "";
  return `Round ${running.id}: ${running.phase}${share}.`;
}

/** "Round 8 adopted: the optic disc is better." or "" before the first round. */
export function decisionInWords(last) {
  if (!last) return "";
  const outcome = OUTCOMES[last.status] ?? last.status;
  return `Round ${last.id} ${outcome}${last.sentence ? `: ${last.sentence}` : "."}`;
}

/** What is worth hearing after `before` has become `now`: a round has begun or ended, or another version answers. */
export function newsInWords(before, now) {
  if (!before) return "";
  const said = [];
  if (now.last && (now.last.id !== before.last?.id || now.last.status !== before.last?.status)) said.push(decisionInWords(now.last));
  else if (now.running && now.running.id !== before.running?.id) said.push(`Round ${now.running.id} has begun.`);
  if (now.version !== before.version) said.push(`Version ${now.version} answers from now on.`);
  return said.join(" ");
}

/** The address at which this viewer shows another study, or null where the study is not known. */
export function addressOf(next, here) {
  if (!next?.study) return null;
  const query = new URLSearchParams({ StudyInstanceUIDs: next.study, initialSeriesInstanceUID: next.image });
  return `${here}?${query}`;
}

const spoken = (said) => Object.values(said).some((one) => one.length);

/** Lower-case names of the structures that the model outlines, or that somebody or the knowledge base has described. */
function described({ labels, described: more }) {
  const told = labels.filter((one) => one.known || spoken(one.knowledge));
  return new Set([...told.map((one) => one.name), ...more].map((name) => name.toLowerCase()));
}

export class Learning {
  /** `changed()` is called after every change, `announce(text)` with what is worth hearing. */
  constructor(server, { changed, announce }) {
    Object.assign(this, { server, changed, announce });
    this.state = null; // the last reply of GET /medsegr/learning; null: not known, or the server has no rounds
    this.next = null; // {image, why, strategy, study}
    this.skipped = null; // the case that was skipped last
    this.form = null; // {reason}: the rollback that is being written
    this.unheard = null; // {name, names, location, fact}: a structure that nobody has described yet, and what is being said of it
    this.busy = null; // "next", "skip", "rollback" or "describe" while the server is asked
    this.note = null; // {kind: "saved" or "trouble", sentence}
    this.noted = null; // the image that was told to be open
    this.timer = null;
    this.refresh();
  }

  /** Ask the server now, and again after a while. Never raises; a failure leaves what is known. */
  async refresh() {
    clearTimeout(this.timer);
    try {
      const now = await this.server.learning();
      if (this.stopped) return;
      const news = newsInWords(this.state, now);
      this.state = now;
      if (news) this.announce(news);
      this.changed();
    } catch (error) {
      this.absent = error.status === 404; // a server without rounds
      if (this.absent) return;
    }
    if (this.stopped) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.refresh(), this.state?.running ? RUNNING_MS : IDLE_MS);
  }

  /** The server answers again, or its model does: what is known may be old. */
  recovered() {
    if (!this.state && !this.absent) this.refresh();
  }

  /** Tell the server which image is open, so that nobody else is offered it; once each, and no matter if it fails. */
  opened(image) {
    if (!image || image === this.noted) return;
    this.noted = image;
    this.server.opened(image).catch(() => {});
  }

  /** Ask for the next case. */
  choose = () =>
    this.during("next", async () => {
      this.skipped = null;
      this.next = await this.server.next();
      this.announce(`Next case: ${this.next.why}`);
    });

  /** Never offer the case again, and give another one. */
  skip = () =>
    this.during("skip", async () => {
      const { image } = this.next;
      await this.server.skip(image);
      this.next = null;
      this.skipped = image;
      this.next = await this.server.next();
      this.announce(`Skipped. Next case: ${this.next.why}`);
    });

  /** Offer the skipped case again. */
  unskip = () =>
    this.during("skip", async () => {
      await this.server.skip(this.skipped, true);
      this.skipped = null;
      this.tell("saved", "The skipped case may be offered again.");
    });

  /** Begin to write a request, or what an `unheard` structure is, or (null) give it up. */
  open = (form, kind = "form") => {
    this[kind] = form;
    this.note = null;
    this.changed();
  };

  /** Go back to the version before, or ask the administrators to; a reason is required. */
  rollback = () =>
    this.during("rollback", async () => {
      const reason = this.form.reason.trim();
      if (!reason) throw new Error("Say why first; the reason is kept with the change.");
      if (onlyAsks(this.state)) {
        await this.server.requestRollback(reason);
        this.tell("saved", "Your request is kept, and administrators see it here.");
      } else {
        const reply = await this.server.rollback(reason);
        this.tell("saved", `Version ${reply.current} is in charge again.`);
      }
      this.form = null;
      this.refresh();
    });

  /** Ask what the first of these structures is that nobody has described. Never raises. */
  async meet(names) {
    if (!names.length || this.unheard) return;
    const heard = await this.server.labels().then(described).catch(() => null);
    const name = heard && names.find((one) => !heard.has(one.toLowerCase()));
    if (!name || this.stopped) return;
    this.open({ name, names: "", location: "", fact: "" }, "unheard");
    this.announce(`${name} is new here: say what it is under “Learning”, if you like.`);
  }

  describe = () =>
    this.during("describe", async () => {
      const { name, names, location, fact } = this.unheard;
      const parts = (text, mark) => text.split(mark).filter((one) => one.trim());
      const said = { names: parts(names, ","), location: location.trim(), facts: parts(fact, ";") };
      if (!spoken(said)) throw new Error("Fill in one of the three lines, or choose “Not now”.");
      await this.server.teach({ name, ...said });
      this.unheard = null;
      this.tell("saved", `The next round learns what ${name} is.`);
    });

  async during(what, work) {
    if (this.busy) return;
    Object.assign(this, { busy: what, note: null });
    this.changed();
    try {
      await work();
    } catch (error) {
      this.tell("trouble", error.message);
    }
    this.busy = null;
    this.changed();
  }

  tell(kind, sentence) {
    this.note = { kind, sentence };
    this.announce(sentence);
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
  }
}
