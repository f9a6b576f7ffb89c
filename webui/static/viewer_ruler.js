// A length on the picture: two points in picture pixels, measured in mm where the file says how large a pixel is.

export class Ruler {
  constructor(view) {
    const [[x1, y1], [x2, y2]] = [0.3, 0.7].map((share) => view.fromCanvas(share * view.columns, view.rows / 2));
    this.ends = [[x1, y1], [x2, y2]]; // there from the start, so that keys have something to move
    this.active = 1;
    this.isOpen = false; // after a click that set the first end alone
  }

  down(point) {
    if (!this.isOpen) this.ends[0] = point;
    this.ends[1] = point;
    this.active = 1;
  }

  to(point) {
    this.ends[this.active] = point;
  }

  /** A drag sets both ends; of two clicks each sets one. */
  up(wasDrag) {
    this.isOpen = !wasDrag && !this.isOpen;
  }

  /** In mm by `spacing` [between rows, between columns], else in pixels: {length, kind: calibrated, detector or pixels}. */
  measure({ spacing, spacing_kind: kind }) {
    const [[x1, y1], [x2, y2]] = this.ends;
    if (!spacing) return { length: Math.hypot(x2 - x1, y2 - y1), kind: "pixels" };
    const length = Math.hypot((x2 - x1) * spacing[1], (y2 - y1) * spacing[0]);
    return { length, kind: kind === "calibrated" ? "calibrated" : "detector" };
  }
}
