// The reasoning panel: mounts into an element of the viewer, keeps the conversation while other panels cover it.
// Nothing here knows OHIF; `viewer` and `segments` do (see viewer.js and segments.js).

import { Actions } from "./actions.js";
import { Availability } from "./availability.js";
import { Conversation, clientId, forgetDrawing } from "./conversation.js";
import { Learning } from "./learning.js";
import { slot } from "./slices.js";
import { Suggestions } from "./suggestions.js";
import { badge, hindrance } from "./views/badge.js";
import { Composer } from "./views/composer.js";
import { button, element, redraw } from "./views/dom.js";
import { learningContent, learningTitle } from "./views/learning.js";
import { turnContent } from "./views/turn.js";

const kept = new Map(); // study -> Conversation, so that a running question outlives the panel's being covered
const timings = [];
const VERDICT_KEYS = { KeyA: "accept", KeyS: "submit", KeyR: "openReject" };
const NOTICE_MS = 8000;
const RELEASES = ["pointerup", "pointercancel", "blur"];
const TYPED = ["keydown", "keypress", "keyup"];

/** Build the panel in `host`; returns what takes it away again. */
export function mount(host, { viewer, segments, server }) {
  const panel = new Panel(host, { viewer, segments, server });
  return () => panel.close();
}

class Panel {
  constructor(host, { viewer, segments, server }) {
    Object.assign(this, {
      viewer,
      segments,
      server,
      client: clientId(),
      chosen: null,
      previous: null,
      cards: new Map(),
    });
    this.suggestions = new Suggestions(server);
    this.offered = [];
    this.actions = new Actions(this);
    this.conversation = this.conversationOf(viewer.active());
    this.build(host);
    this.availability = new Availability(server, () => this.becameAvailable());
    this.learning = new Learning(server, { changed: () => this.drawLearning(), announce: (text) => this.announce(text) });
    this.stops = [
      viewer.onChange(() => this.imageChanged()),
      segments.onEdited((handle, n) => this.edited(handle, n)),
      listen(window, "keydown", (event) => this.shortcut(event), { capture: true }),
      listen(this.root, "pointerdown", () => (this.held = true)),
      ...RELEASES.map((kind) => listen(window, kind, () => setTimeout(() => (this.held = false)), { capture: kind !== "blur" })),
      () => this.availability.stop(),
      () => this.learning.stop(),
    ];
    this.imageChanged();
  }

  build(host) {
    loadStyle();
    this.head = element("header", {});
    this.list = element("ol", { class: "turns", "aria-label": "Conversation", tabindex: "0" });
    this.live = element("p", { class: "for-ears", role: "status", "aria-live": "polite" });
    this.notice = element("p", { class: "note", hidden: true });
    this.hindrance = element("div", { class: "hindrance", role: "alert", hidden: true });
    this.composer = new Composer(this.actions);
    this.lesson = { title: element("summary", {}), content: element("div", { class: "lesson", tabindex: "-1" }) };
    this.lessons = element("details", { class: "learning", hidden: true }, this.lesson.title, this.lesson.content);
    this.labels = element("datalist", { id: "medsegr-labels" });
    this.root = element("section", { class: "medsegr-panel", "aria-label": "Ask the image" }, [
      this.head,
      this.list,
      this.live,
      this.notice,
      this.hindrance,
      this.composer.element,
      this.lessons,
      this.labels,
    ]);
    for (const kind of TYPED) this.root.addEventListener(kind, (event) => event.stopPropagation()); // the viewer's own keys
    host.replaceChildren(this.root);
  }

  /** The conversation of the study on the screen; masks of another life of the viewer are forgotten. */
  conversationOf(image) {
    const study = image?.studyUid ?? image?.seriesUid ?? "";
    if (!kept.has(study)) kept.set(study, new Conversation(study));
    const conversation = kept.get(study);
    for (const turn of conversation.turns) {
      if (turn.live.drawn && turn.live.drawn !== "drawing" && turn.live.segments !== this.segments) forgetDrawing(turn);
    }
    conversation.listener = this.changed;
    return conversation;
  }

  async imageChanged() {
    const image = this.viewer.active();
    const study = image?.studyUid ?? image?.seriesUid;
    if (study && study !== this.conversation.study) {
      this.moveDraft(study);
      this.chosen = null;
    }
    if (image?.seriesUid !== this.shownSeries) this.changed();
    this.shownSeries = image?.seriesUid;
    this.learning.opened(image?.seriesUid);
    this.drawComposer(); // scrolling draws no more than this
    this.offered = await this.suggestions.for(image);
    this.drawComposer();
  }

  /** What was typed before the first image was there goes along with it. */
  moveDraft(study) {
    const typed = this.conversation.study === "" ? this.conversation.draft : "";
    this.conversation.listener = null;
    this.conversation = this.conversationOf({ studyUid: study });
    if (typed && !this.conversation.draft) this.conversation.draft = typed;
  }

  current() {
    return this.conversation.current(this.chosen);
  }

  /** The number of the slice on the screen, as the viewer counts; null when it does not tell. */
  shownNumber() {
    const image = this.viewer.active();
    const at = (this.viewer.images?.() ?? []).findIndex(
      (one) => slot(one.sopUid, one.frame) === slot(image?.sopUid, image?.frame),
    );
    return at < 0 ? null : at + 1;
  }

  // Showing ----------------------------------------------------------------------------------------------------------

  /** Something changed: one turn, or (without one) anything. Drawn with the next frame. */
  changed = (turn = null, how = "") => {
    if (turn?.status === "done" && turn.live.told !== turn.id) this.tell(turn);
    this.conversation.save();
    if (how === "new") this.scrollDown = true;
    if (this.waiting) return;
    this.waiting = true;
    setTimeout(() => this.draw(), 16); // not a frame: a covered tab must go on
  };

  draw() {
    if (this.held) return void setTimeout(() => this.draw(), 16); // a button replaced under the finger would miss its click
    this.waiting = false;
    if (this.closed) return;
    const { turns } = this.conversation;
    redraw(this.head, ...badge(this.availability.state, this.actions));
    this.drawHindrance();
    const cards = turns.length ? turns.map((turn) => this.card(turn)) : [this.welcome()];
    if (cards.length !== this.list.children.length || cards.some((card, i) => card !== this.list.children[i])) {
      this.list.replaceChildren(...cards);
    }
    for (const [key] of this.cards) if (!this.conversation.find(key)) this.cards.delete(key);
    this.drawComposer();
    if (this.scrollDown) this.list.scrollTop = this.list.scrollHeight;
    this.scrollDown = Boolean(this.conversation.open());
  }

  card(turn) {
    if (!this.cards.has(turn.key))
      this.cards.set(turn.key, element("li", { class: "turn", tabindex: "-1", "data-turn": turn.key }));
    const card = this.cards.get(turn.key);
    card.className = `turn is-${turn.status}${this.current() === turn ? " current" : ""}`;
    redraw(card, ...turnContent(turn, this.actions));
    return card;
  }

  welcome() {
    const back = this.previous
      ? button("Bring the last conversation back", this.actions.restore, { class: "quiet" })
      : null;
    return element(
      "li",
      { class: "welcome" },
      element("p", {}, "Ask what you want to see. The answer comes in words, with an outline on the image."),
      back,
    );
  }

  drawHindrance() {
    const shown = hindrance(this.availability.state, this.actions, this.server);
    this.hindrance.hidden = !shown.length;
    redraw(this.hindrance, ...shown);
  }

  /** The section is there only where the server learns; what it says is announced by `Learning` itself. */
  drawLearning() {
    if (this.held) return void setTimeout(() => this.drawLearning(), 16);
    if (this.closed || !this.learning?.state) return;
    this.lessons.hidden = false;
    this.lesson.title.textContent = learningTitle(this.learning);
    const form = Boolean(this.learning.form);
    redraw(this.lesson.content, ...learningContent(this.learning, location.pathname));
    if (form && !this.lessonForm) this.lesson.content.querySelector("input")?.focus({ preventScroll: true });
    this.lessonForm = form;
  }

  drawComposer() {
    if (this.closed) return;
    const { draft, scope } = this.conversation;
    const meant = this.conversation.meant();
    this.composer.show({
      draft,
      scope,
      suggestions: this.offered,
      about: meant ? (meant.finding.renamed ?? meant.finding.label) : null,
      image: this.viewer.active(),
      number: this.shownNumber(),
      open: Boolean(this.conversation.open()),
      begun: this.conversation.turns.length > 0,
    });
  }

  /** For ears only: what the eye finds in the conversation. */
  announce(text) {
    this.live.textContent = text;
  }

  /** For eyes and ears. `turn`: said there, else above the question box for a while. */
  say(text, turn = null) {
    this.announce(text);
    if (turn) {
      turn.verdict = { state: "note", sentence: text };
      this.changed(turn);
      return;
    }
    this.notice.textContent = text;
    this.notice.hidden = false;
    clearTimeout(this.noticeTimer);
    this.noticeTimer = setTimeout(() => (this.notice.hidden = true), NOTICE_MS);
  }

  tell(turn) {
    turn.live.told = turn.id;
    const names = turn.findings.map((finding) => finding.label);
    this.announce(`Answer: ${turn.answer}${names.length ? ` ${names.length} outlined.` : ""}`);
  }

  focusBox() {
    this.composer.box.focus();
  }

  /** Once it is drawn, the first field of the form that was opened, or the card when it was closed. */
  focusForm(turn) {
    setTimeout(() => {
      const card = this.cards.get(turn.key);
      const field = card?.querySelector("form input, form textarea, form button");
      (field ?? (card?.contains(document.activeElement) ? null : card))?.focus({ preventScroll: true });
      (field?.closest("form") ?? card)?.scrollIntoView({ block: "nearest" });
    }, 40);
  }

  /** Scroll to what became of a verdict, once it is drawn. */
  reveal(turn) {
    setTimeout(
      () =>
        this.cards
          .get(turn.key)
          ?.querySelector(":scope > .saved, :scope > .trouble, :scope > .note")
          ?.scrollIntoView({ block: "nearest" }),
      40,
    );
  }

  // Hearing ----------------------------------------------------------------------------------------------------------

  becameAvailable() {
    this.labels.replaceChildren(
      ...(this.availability?.state.labels ?? []).map((value) => element("option", { value })),
    );
    if (this.availability) this.changed();
    if (this.availability?.state.kind === "ready" && this.offered.length < 2) this.imageChanged();
    if (this.availability?.state.kind === "ready") this.learning?.recovered();
  }

  edited(handle, n) {
    for (const turn of this.conversation.turns) {
      for (const finding of turn.findings) {
        const own = turn.live.handles.get(finding.n);
        if (own !== undefined && own === handle && finding.n === n && !finding.touched) {
          finding.touched = true;
          this.changed(turn);
        }
      }
    }
  }

  /** Alt+A, Alt+S, Alt+R judge the current answer and Alt+Q goes to the question box, wherever the focus is. */
  shortcut(event) {
    if (!event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const elsewhere =
      !this.root.contains(event.target) &&
      event.target instanceof Element &&
      event.target.matches("input, textarea, select");
    const verdict = VERDICT_KEYS[event.code];
    if (elsewhere || (!verdict && event.code !== "KeyQ")) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.code === "KeyQ") this.focusBox();
    else if (this.current()) this.actions[verdict](this.current());
  }

  /** Times of a turn in ms of this page, for tests and for the curious: window.medsegr.panel.timings. */
  record(turn) {
    timings.push({ turn: turn.id, status: turn.status, ...turn.live.marks });
    ((window.medsegr ??= {}).panel ??= {}).timings = timings;
  }

  close() {
    this.closed = true;
    clearTimeout(this.noticeTimer);
    for (const stop of this.stops) stop?.();
    this.conversation.save();
    if (this.conversation.listener === this.changed) this.conversation.listener = null; // not that of a later panel
    this.root.remove();
  }
}

function listen(target, kind, listener, options) {
  target.addEventListener(kind, listener, options);
  return () => target.removeEventListener(kind, listener, options);
}

function loadStyle() {
  const address = new URL("../panel.css", import.meta.url).href;
  if (
    [...document.styleSheets].some((sheet) => sheet.href === address) ||
    document.querySelector(`link[href="${CSS.escape(address)}"]`)
  )
    return;
  document.head.append(element("link", { rel: "stylesheet", href: address }));
}
