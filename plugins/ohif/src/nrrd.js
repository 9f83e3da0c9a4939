// NRRD masks of one byte per voxel, as the server writes them: raw or gzip, x fastest. Written back under the header that
// came with them, so that the grid (sizes, directions, origin) stays the server's own.

const BYTE_TYPES = ["uint8", "uint8_t", "unsigned char", "uchar"];

/** {sizes: [numbers, fastest axis first], header: text without its blank line, data: Uint8Array}; `Error` in words. */
export async function parse(buffer) {
  const bytes = new Uint8Array(buffer);
  const { header, start } = splitHeader(bytes);
  const fields = fieldsOf(header);
  if (!header.startsWith("NRRD") || !fields.has("sizes")) throw new Error("The mask is not an NRRD file.");
  if (!BYTE_TYPES.includes(fields.get("type"))) throw new Error(`The mask holds ${fields.get("type")}; one byte per voxel was expected.`);
  const sizes = fields.get("sizes").trim().split(/\s+/).map(Number);
  const data = await decode(bytes.subarray(start), fields.get("encoding"));
  const expected = sizes.reduce((product, size) => product * size, 1);
  if (data.length !== expected) throw new Error(`The mask holds ${data.length} voxels; its header says ${expected}.`);
  return { sizes, header, data };
}

/** A file with the grid of `header` (from `parse`) and the voxels of `data`. */
export async function write(header, data, { gzip = true } = {}) {
  const kept = header.split(/\r?\n/).filter((line) => !/^(type|encoding|endian|byte ?skip|line ?skip|data ?file):/i.test(line));
  const expected = fieldsOf(header).get("sizes").trim().split(/\s+/).reduce((product, size) => product * Number(size), 1);
  if (data.length !== expected) throw new Error(`The mask holds ${data.length} voxels; its grid has ${expected}.`);
  const [magic, ...rest] = kept;
  const text = [magic, "type: uint8", `encoding: ${gzip ? "gzip" : "raw"}`, ...rest].join("\n");
  const body = gzip ? await through(data, new CompressionStream("gzip")) : data;
  return new Blob([`${text}\n\n`, body], { type: "application/octet-stream" });
}

function splitHeader(bytes) {
  for (let i = 0; i + 1 < bytes.length; i++) {
    if (bytes[i] !== 10) continue;
    const blank = bytes[i + 1] === 10 ? 1 : bytes[i + 1] === 13 && bytes[i + 2] === 10 ? 2 : 0;
    if (blank) return { header: new TextDecoder().decode(bytes.subarray(0, i)).replace(/\r$/, ""), start: i + 1 + blank };
  }
  throw new Error("The mask is not an NRRD file.");
}

function fieldsOf(header) {
  const found = header.split(/\r?\n/).map((line) => /^([^#:]+): ?(.*)$/.exec(line));
  return new Map(found.filter(Boolean).map(([, name, value]) => [name.trim().toLowerCase(), value.trim()]));
}

async function decode(body, encoding) {
  if (encoding === "raw") return body.slice(); // begins on a word, which makes it quick to look through
  if (encoding === "gzip" || encoding === "gz") return through(body, new DecompressionStream("gzip"));
  throw new Error(`The mask is encoded as ${encoding}; raw or gzip was expected.`);
}

async function through(bytes, stream) {
  const piped = new Blob([bytes]).stream().pipeThrough(stream);
  return new Uint8Array(await new Response(piped).arrayBuffer());
}
