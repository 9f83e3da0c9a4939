// Colours of findings: told apart on grey images and on the dark panel, and the same for the same name all day.

const PALETTE = [
  [86, 180, 233], [230, 159, 0], [0, 190, 140], [240, 110, 170], [240, 228, 66], [150, 120, 255], [255, 110, 64], [120, 220, 80],
  [0, 210, 210], [200, 140, 100], [255, 160, 160], [160, 200, 255], [190, 190, 90], [220, 130, 240], [110, 160, 120], [255, 200, 120],
];

export class Colours {
  constructor() {
    this.known = new Map();
  }

  /** [r, g, b, 255] of a name; another one where `taken` (a list of colours) has it already. */
  of(name, taken = []) {
    const key = name.toLowerCase();
    if (!this.known.has(key)) this.known.set(key, this.known.size % PALETTE.length);
    const start = this.known.get(key);
    const order = PALETTE.map((_, i) => PALETTE[(start + i) % PALETTE.length]);
    const free = order.find((colour) => !taken.some((other) => hex(other) === hex(colour)));
    return [...(free ?? order[0]), 255];
  }
}

/** "#rrggbb" of [r, g, b, ..]. */
export const hex = (colour) => `#${Array.from(colour.slice(0, 3), (part) => Math.round(part).toString(16).padStart(2, "0")).join("")}`;
