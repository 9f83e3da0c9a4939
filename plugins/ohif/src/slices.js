// Where a mask is: which slices it touches, and how the viewer numbers them. Slices are paired by instance and frame,
// never by their order.

export const slot = (sop, frame) => `${sop}|${frame ?? 1}`;

/** The stack `n` of a /medsegr/series reply (the first where the server names none). */
export function stackOf(series, n) {
  return series.stacks.find((stack) => stack.n === n) ?? series.stacks[0];
}

/** The stack that holds an instance, with the index of its slice: {stack, k} or null. */
export function locate(series, sop, frame) {
  for (const stack of series.stacks) {
    const k = stack.instances.findIndex((one) => slot(one.sop, one.frame) === slot(sop, frame));
    if (k >= 0) return { stack, k };
  }
  return null;
}

/** A parsed mask without its empty slices, which are nearly all of it: {sizes, header, length, planes: Map of the server's
 * index to Uint8Array, touched: [{k, sop, frame, count}]}. */
export function compact({ sizes, header, data }, stack) {
  const area = data.length / stack.instances.length;
  const planes = new Map();
  const touched = [];
  for (const [k, { sop, frame }] of stack.instances.entries()) {
    const plane = data.subarray(k * area, (k + 1) * area);
    const count = countOf(plane);
    if (!count) continue;
    planes.set(k, plane.slice());
    touched.push({ k, sop, frame, count });
  }
  return { sizes, header, length: data.length, planes, touched };
}

/** The inverse of `compact`. */
export function whole({ sizes, header, length, planes }, stack) {
  const data = new Uint8Array(length);
  for (const [k, plane] of planes) data.set(plane, (k * length) / stack.instances.length);
  return { sizes, header, data };
}

/** How many voxels of a mask are set. */
export function countOf(plane) {
  let count = 0;
  for (const value of plane) if (value) count++;
  return count;
}

export const largest = (slices) =>
  slices.reduce((best, slice) => (best && best.count >= slice.count ? best : slice), null);

/** How the viewer numbers the slices of a stack: Map of slot to a number from 1. */
export function numbers(viewer, stack) {
  const shown = viewer.images?.() ?? [];
  const own = new Map(shown.map((image, i) => [slot(image.sopUid, image.frame), i + 1]));
  const all = stack.instances.every((one) => own.has(slot(one.sop, one.frame)));
  return all ? own : new Map(stack.instances.map((one, k) => [slot(one.sop, one.frame), k + 1]));
}

/** The next slice before (-1) or after (+1) number `from` in the viewer's numbering, around the end. */
export function neighbour(slices, numbering, from, step) {
  const ordered = slices
    .map((slice) => ({ ...slice, number: numbering.get(slot(slice.sop, slice.frame)) }))
    .sort((a, b) => a.number - b.number);
  const beyond = step > 0 ? ordered.find((s) => s.number > from) : ordered.findLast((s) => s.number < from);
  return beyond ?? (step > 0 ? ordered[0] : ordered.at(-1)) ?? null;
}

/** The numbers of a mask's slices in words: "slice 12", "slices 10–20", "slices 10–20 (9 of them)". */
export function slicesInWords(slices, numbering) {
  const found = slices.map((s) => numbering.get(slot(s.sop, s.frame))).sort((a, b) => a - b);
  if (!found.length) return "no slice";
  const [first, last] = [found[0], found.at(-1)];
  if (first === last) return `slice ${first}`;
  const gaps = last - first + 1 !== found.length ? ` (${found.length} of them)` : "";
  return `slices ${first}–${last}${gaps}`;
}
