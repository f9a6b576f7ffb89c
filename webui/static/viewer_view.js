// Where the picture lies on the canvas: turned by quarters, mirrored, scaled, moved. Picture pixel i covers [i, i + 1);
// the canvas counts device pixels. Everything drawn goes through the one matrix, whose origin is a whole device pixel.

const MOST = 40; // device pixels per picture pixel
const LEAST_OF_FIT = 0.5;
const TURNS = {
  right: ([a, b, c, d]) => [-c, -d, a, b],
  left: ([a, b, c, d]) => [c, d, -a, -b],
  mirror: ([a, b, c, d]) => [-a, -b, c, d], // left and right change places
  flip: ([a, b, c, d]) => [a, b, -c, -d], // upside down
};

export class View {
  /** `stretch`: how much higher than wide a pixel is; `scale` is device pixels per pixel's width. */
  constructor(width, height, stretch = 1) {
    Object.assign(this, { width, height, stretch, columns: 1, rows: 1 });
    this.reset();
  }

  reset() {
    this.turned = [1, 0, 0, 1]; // [u from x, u from y, v from x, v from y]
    this.fit();
  }

  /** The canvas has this many device pixels now. */
  resize(columns, rows) {
    Object.assign(this, { columns, rows });
    if (this.isFitted) this.fit();
  }

  /** Device pixels per picture pixel, across and down the picture. */
  get scales() {
    return [this.scale, this.scale * this.stretch];
  }

  fitting() {
    const sides = [this.width, this.height * this.stretch];
    const [wide, high] = this.turned[0] ? sides : sides.reverse();
    return Math.min(this.columns / wide, this.rows / high);
  }

  fit() {
    this.isFitted = true;
    this.scale = this.fitting();
    this.middle = [this.width / 2, this.height / 2]; // the picture's point in the middle of the canvas
  }

  turn(how) {
    this.turned = TURNS[how](this.turned).map((part) => part + 0); // no -0
    if (this.isFitted) this.fit();
  }

  /** Another scale; the picture's point under the canvas point (u, v) stays where it is. */
  zoomTo(scale, u = this.columns / 2, v = this.rows / 2) {
    const off = () => this.unturned(u - this.columns / 2, v - this.rows / 2); // from the middle, before rounding: no drift
    const before = off();
    this.scale = Math.min(Math.max(scale, LEAST_OF_FIT * Math.min(this.fitting(), 1)), MOST);
    const after = off();
    this.lookAt(this.middle[0] + before[0] - after[0], this.middle[1] + before[1] - after[1]);
  }

  /** Move the picture by device pixels. */
  pan(du, dv) {
    const [x, y] = this.unturned(du, dv);
    this.isFitted = false;
    this.lookAt(this.middle[0] - x, this.middle[1] - y);
  }

  /** Bring a point of the picture to the middle of the canvas. */
  lookAt(x, y) {
    this.isFitted = false;
    this.middle = [Math.min(Math.max(x, 0), this.width), Math.min(Math.max(y, 0), this.height)];
  }

  /** [a, b, c, d, e, f] as setTransform takes it: canvas = (a x + c y + e, b x + d y + f). */
  matrix() {
    const { turned, scales: [across, down] } = this;
    const [a, c, b, d] = [turned[0] * across, turned[1] * down, turned[2] * across, turned[3] * down];
    const [x, y] = this.middle;
    return [a, b, c, d, Math.round(this.columns / 2 - a * x - c * y), Math.round(this.rows / 2 - b * x - d * y)];
  }

  toCanvas(x, y) {
    const [a, b, c, d, e, f] = this.matrix();
    return [a * x + c * y + e, b * x + d * y + f];
  }

  fromCanvas(u, v) {
    const [, , , , e, f] = this.matrix();
    return this.unturned(u - e, v - f);
  }

  unturned(du, dv) {
    const { turned: [a, c, b, d], scales: [across, down] } = this;
    return [(a * du + b * dv) / across, (c * du + d * dv) / down];
  }
}

/**
 * The screen pixels of one picture axis that are on the canvas: steps [from, to) and, for step i, the canvas line
 * `start + i * step`. `size` is the axis's length in picture pixels, `sign` its direction, `origin` and `length` the canvas's.
 */
export function visible(size, scale, sign, origin, length) {
  const steps = Math.max(Math.round(size * scale), 1);
  const [from, to] = sign > 0 ? [-origin, length - origin] : [origin - length, origin];
  return {
    from: Math.min(Math.max(from, 0), steps), to: Math.max(Math.min(to, steps), 0),
    start: sign > 0 ? origin : origin - 1, step: sign,
  };
}

/** How a picture is turned (degrees to the right) and whether it is mirrored, which is said as done before the turn. */
export function orientation([a, b, c, d]) {
  const isMirrored = a * d - b * c < 0;
  const [x, y] = isMirrored ? [-a, -c] : [a, c]; // where the picture's rightward direction points
  return { degrees: (Math.round(Math.atan2(y, x) / (Math.PI / 2)) * 90 + 360) % 360, isMirrored };
}
