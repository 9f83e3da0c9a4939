// What viewer.js and segments.js promise, without OHIF: tests look into it and paint with `edit`.

const slot = (sop, frame) => `${sop}|${frame ?? 1}`;

export class FakeViewer {
  constructor(query, images, view) {
    this.query = query;
    this.shown = images; // in the order in which a viewer numbers them
    this.view = view;
    this.at = Math.floor(images.length / 2);
    this.jumps = [];
    this.listeners = new Set();
    this.show(this.at);
  }

  images() {
    return this.shown;
  }

  active() {
    const { sopUid, frame } = this.shown[this.at];
    const get = (name) => this.query.get(name);
    return {
      seriesUid: get("series"),
      studyUid: get("study") ?? "study",
      modality: get("modality"),
      bodyPart: get("body"),
      viewportId: "fake",
      numImages: this.shown.length,
      sopUid,
      frame,
    };
  }

  onChange(callback) {
    this.listeners.add(callback);
    return () => this.listeners.delete(callback);
  }

  async jumpTo(seriesUid, sopUid, frame) {
    this.jumps.push({ seriesUid, sopUid, frame });
    const at = this.shown.findIndex((image) => slot(image.sopUid, image.frame) === slot(sopUid, frame));
    if (at < 0) throw new Error("This slice is not on the screen.");
    this.show(at);
  }

  show(at) {
    this.at = at;
    this.view.textContent = `slice ${at + 1} of ${this.shown.length}`;
    for (const callback of this.listeners) callback();
  }
}

const COLOURS = ["#dd5454", "#54dd7a", "#5497dd", "#ddb454", "#b454dd"];

export class FakeSegments {
  constructor() {
    this.drawn = []; // one entry for each call of draw: Map n -> {label, planes: Map slot -> Uint8Array}
    this.listeners = new Set();
    this.undone = 0;
    this.selected = null;
  }

  async draw({ series, stack, findings }) {
    const { instances } = series.stacks.find((one) => one.n === stack);
    const segments = new Map();
    for (const { n, label, mask } of findings) {
      const area = mask.data.length / instances.length;
      const planes = instances.map(({ sop, frame }, k) => [
        slot(sop, frame),
        mask.data.slice(k * area, (k + 1) * area),
      ]);
      segments.set(n, { label, planes: new Map(planes) });
    }
    this.drawn.push({ segments, stack: series.stacks.find((one) => one.n === stack) });
    return this.drawn.length - 1;
  }

  async read(handle, n) {
    const { planes } = this.of(handle, n);
    return { planes: new Map([...planes].map(([name, plane]) => [name, plane.slice()])) };
  }

  async addEmpty({ id }, label) {
    const last = this.drawn.at(-1);
    const n = Math.max(0, ...last.segments.keys()) + 1;
    const shape = last.stack.shape;
    const planes = last.stack.instances.map(({ sop, frame }) => [
      slot(sop, frame),
      new Uint8Array(shape[0] * shape[1]),
    ]);
    last.segments.set(n, { label, planes: new Map(planes), turn: id });
    return n;
  }

  /** What a brush does: set voxels of one plane. */
  edit(handle, n, name, from, to, value) {
    const segment = this.of(handle, n);
    this.before = segment.planes.get(name).slice();
    segment.planes.get(name).fill(value, from, to);
    this.last = { segment, name, handle, ns: [n] };
    for (const callback of this.listeners) callback(handle, n);
  }

  undo() {
    this.undone++;
    if (!this.last) return null;
    const { segment, name, handle, ns } = this.last;
    segment.planes.set(name, this.before);
    this.last = null;
    return { handle, ns };
  }

  of(handle, n) {
    const segment = this.drawn[handle]?.segments.get(n);
    if (!segment) throw new Error("There is no such segment.");
    return segment;
  }

  remove(handle, n) {
    this.drawn[handle].segments.delete(n);
  }

  rename(handle, n, label) {
    this.of(handle, n).label = label;
  }

  select(handle, n) {
    this.selected = { handle, n };
  }

  colour(handle, n) {
    return COLOURS[(n - 1) % COLOURS.length];
  }

  onEdited(callback) {
    this.listeners.add(callback);
    return () => this.listeners.delete(callback);
  }
}
