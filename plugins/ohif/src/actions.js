// What the buttons do: asking and looking here, editing and judging in judging.js. One object per mounted panel; views call
// it and never change a turn themselves.

import { ask, cancel, draw, fetchMask } from "./asking.js";
import { Judging, attempt } from "./judging.js";
import { largest, neighbour, numbers, slicesInWords, slot } from "./slices.js";

const PALETTE = ["#4fc3f7", "#ffb74d", "#81c784", "#f06292", "#ba68c8", "#fff176", "#4db6ac", "#a1887f"];
const A_CUT = "This view cuts across the images; show them in their own plane, or ask about the whole series.";

export class Actions extends Judging {
  recalled = null;

  // Asking -----------------------------------------------------------------------------------------------------------

  ask = (text) => {
    const { conversation, viewer } = this.panel;
    const image = viewer.active();
    if (!image || conversation.open()) return;
    const meant = conversation.meant();
    const scope = image.numImages > 1 ? { ...conversation.scope } : { kind: "series" };
    if (scope.kind === "this" && !image.sopUid) return this.refuse(text, A_CUT);
    if (scope.kind === "range") Object.assign(scope, { from: scope.from ?? 1, to: scope.to ?? image.numImages });
    const turn = conversation.add({
      series: image.seriesUid,
      sop: image.sopUid,
      frame: image.frame ?? 1,
      stack: null,
      question: text,
      about: conversation.about,
      scope,
      scopeText: [
        image.numImages > 1 && scopeInWords(scope, this.panel.shownNumber()),
        meant && `about: ${meant.finding.renamed ?? meant.finding.label}`,
      ]
        .filter(Boolean)
        .join(" · "),
    });
    this.recalled = null;
    this.panel.chosen = null;
    this.panel.previous = null;
    conversation.about = null;
    this.run(turn);
  };

  /** Say why it is not asked, and keep the text. */
  refuse(text, sentence) {
    const { conversation } = this.panel;
    if (!conversation.draft) this.draft(text);
    this.panel.say(sentence);
    this.panel.changed();
  }

  wait = () => this.panel.say("Wait for the answer, or cancel it first; your text is kept.");

  again = (turn) => {
    if (this.panel.conversation.open()) return;
    this.run(turn);
  };

  async run(turn) {
    const { conversation } = this.panel;
    const { server, viewer, segments, client } = this.panel;
    this.panel.changed(turn, "new");
    const changed = (one) => conversation.changed(one);
    await ask(turn, conversation, { server, viewer, client }, changed);
    const there = !segments.disposed; // else the viewer was left meanwhile; its next life offers to show the masks
    if (turn.status === "done" && there) await draw(turn, { server, segments }, changed);
    this.panel.record(turn);
  }

  cancel = (turn) => cancel(turn, this.panel, this.panel.changed);

  previous = (step) => {
    const asked = [...new Set(this.panel.conversation.turns.map((turn) => turn.question))];
    const at = (this.recalled ?? asked.length) + step;
    if (at < 0 || at > asked.length || !asked.length) return null;
    this.recalled = at;
    return asked[at] ?? "";
  };

  // Looking ----------------------------------------------------------------------------------------------------------

  isCurrent = (turn) => this.panel.current() === turn;

  isMeant = (turn, n) => this.panel.conversation.about?.key === turn.key && this.panel.conversation.about.n === n;

  /** Whether a turn is about another series than the one on the screen. */
  isElsewhere = (turn) => {
    const shown = this.panel.viewer.active()?.seriesUid;
    return Boolean(shown) && shown !== turn.series;
  };

  choose = (turn) => {
    this.panel.chosen = turn.key;
    this.panel.changed();
  };

  colour = (turn, n) => {
    const handle = turn.live.handles.get(n);
    const known = handle === undefined ? null : attempt(() => this.panel.segments.colour(handle, n));
    return known ?? PALETTE[(n - 1) % PALETTE.length];
  };

  /** Slices that finding n touches, or null before its mask is there. */
  slicesOf = (turn, n) => turn.live.masks.get(n)?.touched ?? null;

  whereInWords = (turn, n) => {
    const slices = this.slicesOf(turn, n);
    if (!slices || turn.live.stack.instances.length < 2) return "";
    return slicesInWords(slices, this.numbering(turn));
  };

  /** Select a finding: jump to the slice where it is largest, and mean it in the next question. */
  goTo = async (turn, n) => {
    const { conversation, segments } = this.panel;
    this.panel.chosen = turn.key;
    conversation.about = { key: turn.key, n };
    this.panel.changed();
    const handle = turn.live.handles.get(n);
    if (handle !== undefined) attempt(() => segments.select(handle, n));
    const slices = await this.slicesWhenThere(turn, n);
    const best = slices && largest(slices);
    if (best) await this.jump(turn, best);
  };

  step = async (turn, n, step) => {
    const image = this.panel.viewer.active();
    const numbering = this.numbering(turn);
    const from = numbering.get(slot(image?.sopUid, image?.frame)) ?? 0;
    const next = neighbour(this.slicesOf(turn, n), numbering, from, step);
    if (next) await this.jump(turn, next);
  };

  async slicesWhenThere(turn, n) {
    if (turn.findings.find((finding) => finding.n === n)?.added) return null;
    try {
      await fetchMask(turn, n, this.panel.server);
    } catch (error) {
      this.panel.say(error.message);
    }
    return this.slicesOf(turn, n);
  }

  async jump(turn, { sop, frame }) {
    try {
      await this.panel.viewer.jumpTo(turn.series, sop, frame ?? 1);
    } catch (error) {
      this.panel.say(error.message || "The viewer cannot show this slice.");
    }
  }

  numbering(turn) {
    return numbers(this.panel.viewer, turn.live.stack);
  }

  // Conversation and server ------------------------------------------------------------------------------------------

  startAnew = () => {
    const { conversation } = this.panel;
    if (conversation.open()) return this.panel.say("Cancel the open question first.");
    this.panel.previous = conversation.turns.length ? conversation.turns : null;
    conversation.clear();
    this.panel.changed();
    this.panel.focusBox();
  };

  restore = () => {
    this.panel.conversation.turns = this.panel.previous;
    this.panel.previous = null;
    this.panel.changed();
  };

  retry = () => this.panel.availability.check();

  forget = () => {
    this.panel.conversation.about = null;
    this.panel.changed();
  };

  draft = (text) => {
    this.panel.conversation.draft = text;
    this.panel.conversation.save();
  };

  scope = (change) => {
    Object.assign(this.panel.conversation.scope, change);
    this.panel.changed();
  };
}

function scopeInWords(scope, number) {
  if (scope.kind === "range") return `slices ${Math.min(scope.from, scope.to)}–${Math.max(scope.from, scope.to)}`;
  return scope.kind === "series" ? "whole series" : number ? `slice ${number}` : "this slice";
}
