// What the reader does to our label maps with the viewer's own tools, stroke by stroke, so that each can be taken back.
// OHIF 3.10 keeps no such history. A copy of every plane as it was after the last stroke is compared with what it is now.

import { differing, isEmpty, same } from "./planes.js";

const MOST_STROKES = 50;
const PAUSE_MS = 250;
const BEGIN = ["pointerdown", "keydown"];
const END = ["pointerup", "pointercancel", "mouseup", "touchend", "keyup"];

export class Strokes {
  /** `planesOf(sheet)` -> Map of any key to live bytes; `changed(sheet, values)` is told which label values a stroke changed. */
  constructor(planesOf, changed) {
    Object.assign(this, { planesOf, changed, before: new Map(), dirty: new Set(), done: [], gesture: 0, held: false });
    for (const name of BEGIN) document.addEventListener(name, this.began, { capture: true });
    for (const name of END) document.addEventListener(name, this.ended, { capture: true });
  }

  began = ({ type }) => {
    this.gesture += 1;
    this.held = type === "pointerdown";
  };

  ended = () => {
    this.held = false;
    if (this.dirty.size) this.later(0);
  };

  /** Take the sheet as it is now for its beginning. `filled`: the only planes that hold something, where that is known. */
  begin(sheet, filled = null) {
    const copies = new Map();
    for (const [key, bytes] of this.planesOf(sheet)) {
      if (filled ? filled.has(key) : !isEmpty(bytes)) copies.set(key, bytes.slice());
    }
    this.before.set(sheet, copies);
    this.dirty.delete(sheet);
  }

  /** Forget a sheet and all that was done to it. */
  forget(sheet) {
    this.before.delete(sheet);
    this.dirty.delete(sheet);
    this.done = this.done.filter((stroke) => stroke.sheet !== sheet);
  }

  /** Something in the sheet was changed by somebody else. A stroke lasts as long as a button is held, however slow the
   * machine; what is changed later without a new press or key belongs to it as well. */
  touch(sheet) {
    this.dirty.add(sheet);
    if (!this.held) this.later(PAUSE_MS);
  }

  later(ms) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.settle(), ms);
  }

  /** Close the stroke that is under way. */
  settle() {
    clearTimeout(this.timer);
    for (const sheet of [...this.dirty]) this.record(sheet);
  }

  record(sheet) {
    this.dirty.delete(sheet);
    const copies = this.before.get(sheet);
    if (!copies) return;
    const planes = [];
    const values = new Set();
    for (const [key, bytes] of this.planesOf(sheet)) {
      const old = copies.get(key);
      if (old ? same(old, bytes) : isEmpty(bytes)) continue;
      for (const value of differing(old, bytes)) values.add(value);
      planes.push([key, old ?? null]);
      copies.set(key, bytes.slice());
    }
    if (!planes.length) return;
    this.keep(sheet, planes, values);
    this.changed(sheet, values);
  }

  keep(sheet, planes, values) {
    const last = this.done.at(-1);
    if (last?.sheet === sheet && last.gesture === this.gesture) {
      for (const [key, old] of planes) if (!last.planes.has(key)) last.planes.set(key, old);
      for (const value of values) last.values.add(value);
      return;
    }
    this.done.push({ sheet, planes: new Map(planes), values, gesture: this.gesture });
    if (this.done.length > MOST_STROKES) this.done.shift();
  }

  /** Take the last stroke back; {sheet, values} or null where there is none. */
  undo() {
    this.settle();
    const stroke = this.done.pop();
    if (!stroke) return null;
    const [live, copies] = [this.planesOf(stroke.sheet), this.before.get(stroke.sheet)];
    for (const [key, old] of stroke.planes) {
      if (old) live.get(key).set(old);
      else live.get(key).fill(0);
      copies.set(key, live.get(key).slice());
    }
    return { sheet: stroke.sheet, values: stroke.values };
  }

  dispose() {
    clearTimeout(this.timer);
    for (const name of BEGIN) document.removeEventListener(name, this.began, { capture: true });
    for (const name of END) document.removeEventListener(name, this.ended, { capture: true });
  }
}
