// From a picture to the pixels of the screen: what is visible, at the screen's resolution, still as samples, so that
// another window needs no second look at the picture. Small views average every pixel (area), enlarged ones blend
// up to SHOWS_PIXELS and show the picture's own pixels from there on; at 1:1 a sample goes through untouched.

export const SHOWS_PIXELS = 4; // device pixels per picture pixel

/**
 * Samples in fine units of the screen pixels [from, to) of each axis; along an axis screen pixel i covers
 * [i / scale, (i + 1) / scale) of the picture; scales across and down. Returns `into` (a Uint16Array, enlarged where
 * needed), row by row.
 */
export function resample(picture, [acrossScale, downScale], across, down, into) {
  const number = levelFor(Math.max(acrossScale, downScale), picture.levels.length);
  const level = picture.levels[number];
  const [columns, rows] = [across.to - across.from, down.to - down.from];
  const out = into.length >= columns * rows ? into : new Uint16Array(columns * rows);
  const factor = 2 ** number;
  const wide = taps(across, acrossScale * factor, level.width, picture.width / factor);
  const high = taps(down, downScale * factor, level.height, picture.height / factor);
  if (wide.count === 1 && high.count === 1) pick(level, wide, high, out);
  else blend(level, wide, high, out);
  return out;
}

/** The most halved copy that still has at least one pixel per screen pixel. */
function levelFor(scale, count) {
  return Math.min(Math.max(Math.floor(-Math.log2(scale) + 1e-9), 0), count - 1);
}

/**
 * Which of a level's pixels (`size`, of which the last may stand for less: `full`) make each screen pixel, and by what
 * weight; `onLevel` is screen pixels per pixel of the level.
 */
function taps({ from, to }, onLevel, size, full) {
  const length = to - from;
  const count = onLevel === 1 || onLevel >= SHOWS_PIXELS ? 1 : onLevel > 1 ? 2 : Math.ceil(1 / onLevel - 1e-6) + 1;
  const [index, weight] = [new Int32Array(count * length), new Float32Array(count * length).fill(1)];
  for (let at = 0; at < length; at += 1) {
    const place = (from + at) / onLevel;
    if (count === 1) index[at] = Math.min(Math.floor((from + at + 0.5) / onLevel), size - 1);
    else if (onLevel > 1) between(index, weight, at, (from + at + 0.5) / onLevel - 0.5, size);
    else cover(index, weight, at * count, count, place, Math.min(place + 1 / onLevel, full), size);
  }
  return { count, length, index, weight };
}

function between(index, weight, at, place, size) {
  const first = Math.floor(place);
  index[2 * at] = Math.min(Math.max(first, 0), size - 1);
  index[2 * at + 1] = Math.min(Math.max(first + 1, 0), size - 1);
  weight[2 * at + 1] = place - first;
  weight[2 * at] = 1 - weight[2 * at + 1];
}

function cover(index, weight, start, count, from, to, size) {
  const first = Math.min(Math.floor(from), size - 1);
  const total = Math.max(to - from, 1e-6);
  for (let tap = 0; tap < count; tap += 1) {
    index[start + tap] = Math.min(first + tap, size - 1);
    weight[start + tap] = Math.max(Math.min(to, first + tap + 1) - Math.max(from, first + tap), 0) / total;
  }
}

function pick({ width, values, unit }, wide, high, out) {
  const columns = wide.length;
  for (let row = 0, to = 0; row < high.length; row += 1) {
    const start = high.index[row] * width;
    for (let column = 0; column < columns; column += 1, to += 1) out[to] = values[start + wide.index[column]] * unit;
  }
}

/** Blend along rows first; a blended row serves every screen row that needs it. */
function blend(level, wide, high, out) {
  const columns = wide.length;
  const ready = Array.from({ length: high.count + 1 }, () => ({ row: -1, line: new Float32Array(columns) }));
  const line = (row) => {
    const slot = ready[row % ready.length];
    if (slot.row !== row) blendRow(level, (slot.row = row) * level.width, wide, slot.line);
    return slot.line;
  };
  for (let row = 0; row < high.length; row += 1) {
    const start = row * high.count;
    const target = out.subarray(row * columns, (row + 1) * columns);
    const sum = high.count <= 3 ? weighted : weightedMany;
    sum(Array.from({ length: high.count }, (_, tap) => [line(high.index[start + tap]), high.weight[start + tap]]), target);
  }
}

function weighted(lines, target) {
  const [[first, a], [second, b] = [first, 0], [third, c] = [first, 0]] = lines;
  for (let at = 0; at < target.length; at += 1) target[at] = a * first[at] + b * second[at] + c * third[at] + 0.5;
}

function weightedMany(lines, target) { // of the smallest copy, in a view smaller still
  for (let at = 0; at < target.length; at += 1) target[at] = lines.reduce((sum, [line, share]) => sum + share * line[at], 0.5);
}

function blendRow({ values, unit }, start, { count, index, weight }, line) {
  if (count === 3) return blendThree(values, unit, start, index, weight, line);
  for (let at = 0, tap = 0; at < line.length; at += 1) {
    let sum = 0;
    for (const end = tap + count; tap < end; tap += 1) sum += weight[tap] * values[start + index[tap]];
    line[at] = sum * unit;
  }
  return undefined;
}

/** The usual case of a view smaller than the picture, written out: it is most of the work of drawing one. */
function blendThree(values, unit, start, index, weight, line) {
  for (let at = 0, tap = 0; at < line.length; at += 1, tap += 3) {
    line[at] = unit * (weight[tap] * values[start + index[tap]]
      + weight[tap + 1] * values[start + index[tap + 1]] + weight[tap + 2] * values[start + index[tap + 2]]);
  }
}
