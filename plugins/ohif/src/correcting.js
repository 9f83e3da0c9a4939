// From what the viewer holds to what POST /medsegr/corrections takes. Nothing is sent here and nothing is lost on failure.

import { write } from "./nrrd.js";
import { fetchMask } from "./asking.js";
import { countOf, slot } from "./slices.js";

/** What a reader's work on a turn amounts to.
 *
 * {findings: [{n, label, data: Uint8Array | null}], changed: names of what differs, emptied: labels without a voxel}.
 * `data` null: the finding's own mask, unchanged. Raises `Error` in words when the viewer does not give a mask back.
 */
export async function collect(turn, { segments, server }) {
  const result = { findings: [], changed: [], emptied: [] };
  if (turn.edited !== null && turn.edited !== turn.answer) result.changed.push("the text");
  for (const finding of turn.findings) {
    const label = finding.renamed ?? finding.label;
    const data = await maskOf(turn, finding, { segments, server });
    if (finding.renamed && finding.renamed !== finding.label) result.changed.push(`the name of ${finding.label}`);
    if (data) {
      result.changed.push(label);
      if (!countOf(data)) result.emptied.push(label);
    }
    result.findings.push({ n: finding.added ? null : finding.n, label, data });
  }
  return result;
}

/** The mask as it is now, or null where nobody changed it. */
async function maskOf(turn, finding, { segments, server }) {
  const own = finding.added ? null : await fetchMask(turn, finding.n, server);
  const grid = own ?? (await fetchMask(turn, 0, server));
  if (finding.absent) return new Uint8Array(grid.length);
  const handle = turn.live.handles.get(finding.n);
  if (handle === undefined) return null; // never drawn, so never edited
  const planes = await planesOf(finding, handle, segments);
  const data = assemble(planes, turn.live.stack, grid, own);
  return own && same(data, own, turn.live.stack) ? null : data;
}

/** A segment that was deleted in the viewer says nothing about the image: the finding is marked as lost, and nothing is sent. */
async function planesOf(finding, handle, segments) {
  try {
    const { planes } = await segments.read(handle, finding.n);
    finding.lost = false;
    return planes;
  } catch (error) {
    finding.lost = true;
    throw new Error(
      `${finding.renamed ?? finding.label} cannot be read from the viewer: bring it back, or say that it is not there.`,
      { cause: error },
    );
  }
}

/** One mask in the order of the server's slices, from the viewer's planes. `own`: the mask that was drawn (as `compact` gives it). */
export function assemble(planes, stack, grid, own = null) {
  const data = new Uint8Array(grid.length);
  const area = data.length / stack.instances.length;
  for (const [k, { sop, frame }] of stack.instances.entries()) {
    const plane = planes.get(slot(sop, frame));
    if (!plane && own?.planes.has(k))
      throw new Error(`The viewer did not give slice ${k + 1} of the mask back; nothing was sent.`);
    if (plane && plane.length !== area)
      throw new Error("The viewer's slices are not of the size of the server's; nothing was sent.");
    if (plane) for (let i = 0; i < area; i++) data[k * area + i] = plane[i] ? 1 : 0;
  }
  return data;
}

function same(data, own, stack) {
  const area = data.length / stack.instances.length;
  for (let k = 0; k < stack.instances.length; k++) {
    const plane = own.planes.get(k);
    for (let i = 0; i < area; i++) if (Boolean(data[k * area + i]) !== Boolean(plane?.[i])) return false;
  }
  return true;
}

/** {correction, files} for `server.correct`. `collected` comes from `collect`; null for a rejection. */
export async function form(turn, verdict, { reason = "", collected, client, server }) {
  const files = new Map();
  const findings = [];
  for (const { n, label, data } of collected?.findings ?? []) {
    const mask = data ? `m${files.size + 1}` : null;
    if (data) {
      const { header } = await fetchMask(turn, n ?? 0, server);
      files.set(mask, await write(header, data, { gzip: true }));
    }
    findings.push({ n, label, mask });
  }
  const answer = turn.edited !== null && turn.edited !== turn.answer ? turn.edited : null;
  return { correction: { turn_id: turn.id, verdict, reason, answer, client_id: client, findings }, files };
}
