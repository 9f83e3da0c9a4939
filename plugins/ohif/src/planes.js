// Planes of masks as bytes: which hold something, which meet, and which findings can share a label map, where a voxel has
// one value only. Nothing here knows a viewer.

/** Whether every byte is 0. */
export function isEmpty(bytes) {
  const words = wordsOf(bytes);
  for (let i = 0; i < words.length; i++) if (words[i]) return false;
  for (let i = words.length * 4; i < bytes.length; i++) if (bytes[i]) return false;
  return true;
}

/** Whether two planes of one length hold the same bytes. */
export function same(a, b) {
  const [x, y] = [wordsOf(a), wordsOf(b)];
  if (!x.length || !y.length) return a.every((value, i) => value === b[i]);
  for (let i = 0; i < x.length; i++) if (x[i] !== y[i]) return false;
  for (let i = x.length * 4; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** The planes of a mask [.., slices] that hold something: Map of slice index to its bytes, not copied. */
export function filled(data, slices) {
  const area = data.length / slices;
  const found = new Map();
  for (let k = 0; k < slices; k++) {
    const plane = data.subarray(k * area, (k + 1) * area);
    if (!isEmpty(plane)) found.set(k, plane);
  }
  return found;
}

/** Put findings into as few layers as their order allows, so that none of a layer meet: [[finding, ..], ..].
 *
 * `findings`: [{planes: Map of `filled`, ..}]; every finding goes to the first layer that has room, at most 255 in one.
 */
export function layersOf(findings) {
  const layers = [];
  for (const finding of findings) {
    const room = layers.find((layer) => layer.length < 255 && !layer.some((other) => meet(other.planes, finding.planes)));
    if (room) room.push(finding);
    else layers.push([finding]);
  }
  return layers;
}

function meet(one, other) {
  for (const [k, plane] of one) {
    const opposite = other.get(k);
    if (opposite) for (let i = 0; i < plane.length; i++) if (plane[i] && opposite[i]) return true;
  }
  return false;
}

/** Where a label map has `value`, as a mask of 0 and 1. */
export function maskOf(labels, value) {
  const mask = new Uint8Array(labels.length);
  if (labels.indexOf(value) < 0) return mask;
  for (let i = 0; i < labels.length; i++) if (labels[i] === value) mask[i] = 1;
  return mask;
}

/** Write `value` into a label map wherever a mask is not 0. */
export function fill(labels, mask, value) {
  for (let i = 0; i < mask.length; i++) if (mask[i]) labels[i] = value;
}

/** The values that two label maps give to voxels in which they differ; 0 left out. */
export function differing(before, after) {
  const values = new Set();
  for (let i = 0; i < after.length; i++) {
    const old = before ? before[i] : 0;
    if (old !== after[i]) values.add(old).add(after[i]);
  }
  values.delete(0);
  return values;
}

/** The bytes four at a time, as far as they go; none where they do not begin on a word. */
function wordsOf(bytes) {
  if (bytes.byteOffset % 4) return new Uint32Array(0);
  return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
}
