// The samples of a picture with halved copies of itself, so that a small view of it averages instead of skipping.

const SMALLEST = 64; // pixels: no copy is made of a picture whose longer side is this short

export class Picture {
  /**
   * `samples` row by row, Uint8Array or Uint16Array. Levels hold "fine" units: sample x `fine` (256 for 8 bits,
   * where averages lie between whole values; 1 for 16 bits); level n's pixel covers 2^n x 2^n pixels.
   */
  constructor({ width, height, depth, samples }) {
    Object.assign(this, { width, height, depth, samples });
    this.fine = depth === 8 ? 256 : 1;
    this.most = 2 ** depth - 1;
    [this.lowest, this.highest] = ends(samples);
    this.levels = [{ width, height, values: samples, unit: this.fine }];
    for (let last = this.levels[0]; Math.max(last.width, last.height) > SMALLEST; last = this.levels.at(-1)) {
      this.levels.push(halved(last));
    }
  }

  /** The sample at a point of the picture (pixel i covers [i, i + 1)); null outside. */
  at(x, y) {
    const isInside = x >= 0 && y >= 0 && x < this.width && y < this.height;
    return isInside ? this.samples[Math.floor(y) * this.width + Math.floor(x)] : null;
  }

  /** Samples below which these shares (0-1, increasing) of the box's pixels lie; by default of the whole picture. */
  percentiles(shares, { top = 0, left = 0, height = this.height, width = this.width } = {}) {
    const counts = new Uint32Array(this.most + 1);
    for (let y = top; y < top + height; y += 1) {
      for (let at = y * this.width + left, end = at + width; at < end; at += 1) counts[this.samples[at]] += 1;
    }
    let [value, below] = [0, counts[0]];
    return shares.map((share) => {
      while (below < share * height * width && value < this.most) below += counts[value += 1];
      return value;
    });
  }
}

function ends(samples) {
  let [lowest, highest] = [samples[0], samples[0]];
  for (let at = 1; at < samples.length; at += 1) {
    const value = samples[at];
    if (value < lowest) lowest = value;
    else if (value > highest) highest = value;
  }
  return [lowest, highest];
}

function halved({ width, height, values, unit }) {
  const [half, rows] = [(width + 1) >> 1, (height + 1) >> 1];
  const out = new Uint16Array(half * rows);
  const quarter = unit / 4;
  for (let row = 0, to = 0; row < rows; row += 1) {
    const upper = 2 * row * width;
    const lower = 2 * row + 1 < height ? upper + width : upper; // an odd last row stands for both
    const whole = width >> 1;
    for (let column = 0, at = 0; column < whole; column += 1, at += 2, to += 1) {
      out[to] = (values[upper + at] + values[upper + at + 1] + values[lower + at] + values[lower + at + 1]) * quarter + 0.5;
    }
    if (half > whole) out[to++] = (values[upper + width - 1] + values[lower + width - 1]) * 2 * quarter + 0.5;
  }
  return { width: half, height: rows, values: out, unit: 1 };
}
