// A picture on a canvas: samples resampled once for a view, then through a table of 65,536 colours for each window.

import { resample } from "./viewer_resample.js";
import { visible } from "./viewer_view.js";

const BLACK = 0xff000000; // opaque; bytes are red, green, blue, alpha on every machine that browsers run on

export class Painter {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.samples = new Uint16Array(0);
    this.drawn = ""; // the view that `samples` belong to
  }

  /** Draw through `table` (fine units -> colour); `view` as in viewer_view.js. */
  draw(picture, view, table) {
    const { width, height } = this.canvas;
    if (!width || !height) return;
    if (this.data?.width !== width || this.data?.height !== height) {
      this.data = new ImageData(width, height);
      this.colours = new Uint32Array(this.data.data.buffer);
      this.drawn = "";
    }
    this.lookUp(this.placed(picture, view), table);
    this.context.putImageData(this.data, 0, 0);
  }

  placed(picture, view) {
    const matrix = view.matrix();
    const key = matrix.join(" ");
    if (key !== this.drawn) {
      this.place = lines(picture, view, matrix, this.canvas);
      this.samples = resample(picture, view.scales, this.place.across, this.place.down, this.samples);
      this.colours.fill(BLACK);
      this.drawn = key;
    }
    return this.place;
  }

  lookUp({ across, down, toNextColumn, toNextRow, first }, table) {
    const columns = across.to - across.from;
    for (let row = 0, from = 0; row < down.to - down.from; row += 1) {
      let to = first + row * toNextRow;
      for (const end = from + columns; from < end; from += 1, to += toNextColumn) {
        this.colours[to] = table[this.samples[from]];
      }
    }
  }

  free() {
    this.canvas.width = this.canvas.height = 0;
    this.samples = new Uint16Array(0);
    this.data = this.colours = this.place = null;
  }
}

/** Which lines of the canvas the picture's columns and rows go to. */
function lines(picture, view, [, , , , e, f], canvas) {
  const [a, c, b, d] = view.turned;
  const isUpright = a !== 0;
  const [horizontal, vertical] = [{ origin: e, length: canvas.width }, { origin: f, length: canvas.height }];
  const place = (size, scale, sign, axis) => visible(size, scale, sign, axis.origin, axis.length);
  const across = place(picture.width, view.scales[0], isUpright ? a : b, isUpright ? horizontal : vertical);
  const down = place(picture.height, view.scales[1], isUpright ? d : c, isUpright ? vertical : horizontal);
  for (const axis of [across, down]) axis.to = Math.max(axis.to, axis.from);
  const [strideX, strideY] = isUpright ? [1, canvas.width] : [canvas.width, 1];
  const line = (axis) => axis.start + axis.from * axis.step;
  return {
    across, down,
    toNextColumn: across.step * strideX, toNextRow: down.step * strideY,
    first: line(across) * strideX + line(down) * strideY,
  };
}
