// What lies over the picture, all through the picture's own matrix: heat map, removed border and square, ruler.

const KEPT = "#ffe08a";
const HATCH = "rgb(255 224 138 / .55)";
const SHADE = "rgb(0 0 0 / .55)";
const HATCH_STEP = 9; // CSS pixels between hatching lines

export class Overlay {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
  }

  /** `heat`: {bitmap, opacity} or null; `evidence` where the crop is shown, else null; `ruler`: {ends, active, text} or null. */
  draw(view, { heat, evidence, ruler }, ratio) {
    const { context, canvas } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (heat) this.heat(view, heat);
    context.setTransform(1, 0, 0, 1, 0, 0);
    if (evidence) this.crop(view, evidence, ratio);
    if (ruler) this.ruler(view, ruler, ratio);
  }

  heat(view, { bitmap, opacity }) {
    const { context } = this;
    context.setTransform(...view.matrix());
    context.globalAlpha = opacity;
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, view.width, view.height);
    context.globalAlpha = 1;
  }

  crop(view, evidence, ratio) {
    const { context } = this;
    const { width, height, top, bottom, left, right } = evidence;
    const [y, x, rows, columns] = evidence.crop;
    const [all, square] = [box(view, 0, 0, width, height), box(view, x, y, columns, rows)];
    context.fillStyle = SHADE;
    context.beginPath();
    context.rect(...all);
    context.rect(...square);
    context.fill("evenodd");
    const bands = [[0, 0, width, top], [0, height - bottom, width, bottom],
      [0, top, left, height - top - bottom], [width - right, top, right, height - top - bottom]];
    for (const band of bands) if (band[2] && band[3]) this.hatch(box(view, ...band), ratio);
    for (const [colour, dash] of [["#000", []], [KEPT, [7 * ratio, 5 * ratio]]]) {
      context.strokeStyle = colour;
      context.lineWidth = 2 * ratio;
      context.setLineDash(dash);
      context.strokeRect(...square);
    }
    context.setLineDash([]);
  }

  hatch([left, top, width, height], ratio) {
    const { context, canvas } = this;
    context.save();
    context.beginPath();
    context.rect(left, top, width, height);
    context.clip();
    context.beginPath();
    for (let at = -canvas.height; at < canvas.width; at += HATCH_STEP * ratio) {
      context.moveTo(at, canvas.height);
      context.lineTo(at + canvas.height, 0);
    }
    context.strokeStyle = HATCH;
    context.lineWidth = ratio;
    context.stroke();
    context.restore();
  }

  ruler(view, { ends, active, text }, ratio) {
    const { context } = this;
    const [from, to] = ends.map((end) => view.toCanvas(...end));
    for (const [colour, width] of [["#000", 5], [KEPT, 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = width * ratio;
      context.beginPath();
      context.moveTo(...from);
      context.lineTo(...to);
      [from, to].forEach(([u, v], end) => {
        const size = (end === active ? 7 : 4) * ratio;
        context.moveTo(u - size, v);
        context.lineTo(u + size, v);
        context.moveTo(u, v - size);
        context.lineTo(u, v + size);
      });
      context.stroke();
    }
    this.label(text, (from[0] + to[0]) / 2 + 10 * ratio, (from[1] + to[1]) / 2 - 10 * ratio, ratio);
  }

  label(text, u, v, ratio) {
    const { context, canvas } = this;
    context.font = `${14 * ratio}px system-ui, sans-serif`;
    const width = context.measureText(text).width;
    const left = Math.max(Math.min(u, canvas.width - width - 6 * ratio), 6 * ratio);
    const base = Math.max(Math.min(v, canvas.height - 6 * ratio), 20 * ratio);
    context.fillStyle = "rgb(0 0 0 / .8)";
    context.fillRect(left - 4 * ratio, base - 15 * ratio, width + 8 * ratio, 20 * ratio);
    context.fillStyle = KEPT;
    context.fillText(text, left, base);
  }

  free() {
    this.canvas.width = this.canvas.height = 0;
  }
}

/** A box of picture pixels as [left, top, width, height] on the canvas. */
function box(view, x, y, width, height) {
  const [[u1, v1], [u2, v2]] = [view.toCanvas(x, y), view.toCanvas(x + width, y + height)];
  return [Math.min(u1, u2), Math.min(v1, v2), Math.abs(u2 - u1), Math.abs(v2 - v1)];
}
