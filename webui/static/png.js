// A grey PNG (8 or 16 bits a sample, not interlaced: the review copy) to its own samples. The browser's decoder would
// keep 8 bits of 16. Source: ISO/IEC 15948 (PNG), clauses 5 (chunks), 9 (filters), 10 (deflate).

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const MOST_PIXELS = 64_000_000; // as workers.images.Limits
const PIECE = 1 << 16; // compressed bytes inflated in one go
const PATIENCE = 8; // milliseconds of work after which the page gets a turn

/** Why a file was refused: `code` is not_png, damaged, cut_short, kind, interlaced, large or old_browser. */
export class UnreadablePng extends Error {
  constructor(code) {
    super(`PNG refused: ${code}`);
    this.code = code;
  }
}

/**
 * Decode the bytes of a file: {width, height, depth: 8 or 16, samples: Uint8Array or Uint16Array, row by row}.
 * Gives the page a turn every few milliseconds; where it `isAhead` of need, whatever else there is to do comes first.
 * Rejects with UnreadablePng.
 */
export async function decode(bytes, isAhead = false) {
  if (!globalThis.DecompressionStream) throw new UnreadablePng("old_browser");
  const { header, parts } = chunks(bytes);
  const rows = new Rows(header);
  await inflate(parts, (piece) => rows.take(piece), turns(isAhead));
  return rows.finish();
}

function chunks(bytes) {
  if (SIGNATURE.some((byte, at) => bytes[at] !== byte)) throw new UnreadablePng("not_png");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const parts = [];
  let header = null;
  for (let at = SIGNATURE.length; at + 12 <= bytes.length;) {
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const body = bytes.subarray(at + 8, at + 8 + length);
    if (body.length < length || at + 12 + length > bytes.length) break;
    if (!header && kind !== "IHDR") throw new UnreadablePng("damaged");
    if (kind === "IHDR") header = readHeader(bytes.subarray(at + 4, at + 8 + length), view.getUint32(at + 8 + length));
    else if (kind === "IDAT") parts.push(body);
    else if (kind === "IEND") return { header, parts };
    else if (kind === "tRNS" || kind[0] < "a") throw new UnreadablePng("kind"); // transparent, or a chunk that changes meaning
    at += 12 + length;
  }
  throw new UnreadablePng("cut_short");
}

function readHeader(kindAndBody, sum) {
  if (kindAndBody.length !== 17 || crc32(kindAndBody) !== sum) throw new UnreadablePng("damaged");
  const view = new DataView(kindAndBody.buffer, kindAndBody.byteOffset + 4, 13);
  const [width, height, depth, colour] = [view.getUint32(0), view.getUint32(4), view.getUint8(8), view.getUint8(9)];
  if (!width || !height || view.getUint8(10) || view.getUint8(11)) throw new UnreadablePng("damaged");
  if (colour !== 0 || (depth !== 8 && depth !== 16)) throw new UnreadablePng("kind");
  if (view.getUint8(12)) throw new UnreadablePng("interlaced");
  if (width * height > MOST_PIXELS) throw new UnreadablePng("large");
  return { width, height, depth };
}

function crc32(bytes) {
  let sum = ~0;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit += 1) sum = sum & 1 ? (sum >>> 1) ^ 0xedb88320 : sum >>> 1;
  }
  return ~sum >>> 0;
}

/** Inflate (the stream checks its Adler-32) and hand over piece by piece. */
async function inflate(parts, take, turn) {
  const stream = new DecompressionStream("deflate");
  const reader = stream.readable.getReader();
  const fed = feed(stream.writable.getWriter(), parts).catch(() => null); // the reading side tells why
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      take(next.value);
      await turn();
    }
  } catch (error) {
    await reader.cancel().catch(() => null);
    throw error instanceof UnreadablePng ? error : new UnreadablePng("damaged");
  } finally {
    await fed;
  }
}

async function feed(writer, parts) {
  for (const part of parts) {
    for (let at = 0; at < part.length; at += PIECE) await writer.write(part.subarray(at, at + PIECE));
  }
  await writer.close();
}

/** A function to await inside long work: it lets the page breathe when enough time has gone by. */
function turns(isAhead) {
  const later = () => new Promise((done) => { setTimeout(done); }); // after input and frames; yield comes before frames
  let since = performance.now();
  return async () => {
    if (document.hidden || performance.now() - since < PATIENCE) return;
    await (isAhead ? later() : globalThis.scheduler?.yield?.() ?? later());
    since = performance.now();
  };
}

class Rows {
  constructor({ width, height, depth }) {
    Object.assign(this, { width, height, depth });
    this.step = depth / 8; // bytes of a sample: how far "the pixel to the left" is
    this.samples = depth === 8 ? new Uint8Array(width * height) : new Uint16Array(width * height);
    this.lines = [0, 1].map(() => new Uint8Array(1 + width * this.step)); // filter, then the row
    this.row = 0;
    this.filled = 0;
  }

  take(piece) {
    for (let at = 0; at < piece.length;) {
      if (this.row === this.height) throw new UnreadablePng("damaged"); // more rows than the header says
      const line = this.lines[this.row % 2];
      const some = piece.subarray(at, at + line.length - this.filled);
      line.set(some, this.filled);
      this.filled += some.length;
      at += some.length;
      if (this.filled === line.length) this.endRow(line);
    }
  }

  endRow(line) {
    const unfilter = FILTERS[line[0]];
    if (!unfilter) throw new UnreadablePng("damaged");
    const bytes = line.subarray(1);
    unfilter(bytes, this.lines[(this.row + 1) % 2].subarray(1), this.step); // before the first row: zeros
    if (this.depth === 8) this.samples.set(bytes, this.row * this.width);
    else join(bytes, this.samples, this.row * this.width);
    this.row += 1;
    this.filled = 0;
  }

  finish() {
    if (this.row < this.height) throw new UnreadablePng("cut_short");
    const { width, height, depth, samples } = this;
    return { width, height, depth, samples };
  }
}

function join(bytes, samples, start) {
  for (let at = 0, to = start; at < bytes.length; at += 2, to += 1) samples[to] = (bytes[at] << 8) | bytes[at + 1];
}

// Filter types 0 to 4 undone in place (9.2); `step` bytes back is the pixel to the left, `above` the row before.
const FILTERS = [
  () => {},
  function sub(line, above, step) {
    for (let at = step; at < line.length; at += 1) line[at] += line[at - step];
  },
  function up(line, above) {
    for (let at = 0; at < line.length; at += 1) line[at] += above[at];
  },
  function average(line, above, step) {
    for (let at = 0; at < step; at += 1) line[at] += above[at] >> 1;
    for (let at = step; at < line.length; at += 1) line[at] += (line[at - step] + above[at]) >> 1;
  },
  function paeth(line, above, step) {
    for (let at = 0; at < step; at += 1) line[at] += above[at];
    for (let at = step; at < line.length; at += 1) {
      const [left, upper, corner] = [line[at - step], above[at], above[at - step]];
      const [toLeft, toUpper] = [Math.abs(upper - corner), Math.abs(left - corner)];
      const toCorner = Math.abs(left + upper - 2 * corner);
      line[at] += toLeft <= toUpper && toLeft <= toCorner ? left : toUpper <= toCorner ? upper : corner;
    }
  },
];
