// Which samples are black and which white. A window [low, high] in sample units shows a sample as the grey
// round(255 (sample - low) / (high - low)), kept within 0 to 255; inverted, as 255 less that.

const NARROWEST = 1; // sample units

export function table(window, isInverted, fine, into) {
  const { low, high } = window;
  const slope = 255 / (high - low);
  for (let index = 0; index < into.length; index += 1) {
    const grey = Math.min(Math.max(Math.floor((index / fine - low) * slope + 0.5), 0), 255);
    into[index] = 0xff000000 | ((isInverted ? 255 - grey : grey) * 0x010101);
  }
  return into;
}

/** A window that is one: low below high. */
export function between(low, high) {
  return high - low >= NARROWEST ? { low, high } : { low: (low + high - NARROWEST) / 2, high: (low + high + NARROWEST) / 2 };
}

/** Dragged by shares of its own width: `wider` multiplies the width by its power of e, `higher` moves the level. */
export function dragged({ low, high }, wider, higher) {
  const [level, width] = [(low + high) / 2 + higher * (high - low), (high - low) * Math.exp(wider)];
  return between(level - width / 2, level + width / 2);
}

/** What the header says, with what it leaves out: without `display` (rows of before), all that the picture holds. */
export function displayOf(stated, picture) {
  return {
    low: picture.lowest, high: picture.highest, windows: [], slope: 1, intercept: 0, unit: "", spacing: null, spacing_kind: null,
    ...stated,
  };
}

/** How much higher than wide a pixel is, by the file's spacing; 1 where it says nothing, or nothing to be believed. */
export function stretchOf({ spacing }) {
  const stretch = spacing ? spacing[0] / spacing[1] : 1;
  return stretch > 0.1 && stretch < 10 && Math.abs(stretch - 1) > 0.001 ? stretch : 1;
}

/** The window of a preset button: by its name, or by the numbers that it carries. */
export function preset(button, picture, display, box) {
  const { low, high, preset: name } = button.dataset;
  if (name === "default") return between(display.low, display.high);
  if (name === "full") return between(picture.lowest, picture.highest);
  if (name === "header") return between(Number(low), Number(high));
  if (name === "unit") { // in real units, as Hounsfield's
    const samples = [low, high].map((value) => (Number(value) - display.intercept) / display.slope);
    return between(Math.min(...samples), Math.max(...samples));
  }
  const [first, last] = picture.percentiles([0.01, 0.99], box);
  const half = (first + last) / 2;
  return between(name === "bright" ? half : first, name === "dark" ? half : last);
}

/** The box that the percentiles are taken of: inside the border that preprocessing removed. */
export function kept(evidence, picture) {
  if (!evidence || evidence.width !== picture.width || evidence.height !== picture.height) return {};
  const { top, left, bottom, right, width, height } = evidence;
  return { top, left, height: height - top - bottom, width: width - left - right };
}
