// What the viewer says in words and numbers: outputs, pressed buttons, sliders, and data attributes (which tests read).

import { orientation } from "./viewer_view.js";

/** A phrase of the page with its {names} filled in. */
export function fill(phrase, values) {
  return phrase.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

/** A sample in the file's real units, with as many places as its slope gives. */
export function inUnits(sample, { slope, intercept, unit }) {
  const value = slope * sample + intercept;
  const places = Number.isInteger(slope) && Number.isInteger(intercept) ? 0 : 2;
  const text = value.toLocaleString("en", { maximumFractionDigits: places });
  return unit ? `${text} ${unit}` : text;
}

export function showWindow(section, parts, words, { window, display, isInverted, preset }) {
  const [low, high] = [window.low, window.high].map((sample) => inUnits(Math.round(sample), display));
  parts.window.textContent = fill(words.window, { low, high });
  Object.assign(section.dataset, { low: window.low, high: window.high, inverted: isInverted, preset });
  const [level, width] = [(window.low + window.high) / 2, window.high - window.low];
  parts.level.value = level;
  parts.width.value = width;
  parts.level.ariaValueText = fill(words.level_text, { value: inUnits(Math.round(level), display) });
  parts.width.ariaValueText = fill(words.width_text, { value: Math.round(width * Math.abs(display.slope)).toLocaleString("en") });
}

export function showView(section, parts, words, view) {
  parts.zoom.textContent = fill(words.zoom, { percent: Math.round(100 * view.scale) });
  const { degrees, isMirrored } = orientation(view.turned);
  const said = [degrees && fill(words.turned, { degrees }), isMirrored && words.mirrored].filter(Boolean);
  parts.turned.textContent = said.join(", ");
  Object.assign(section.dataset, { zoom: view.scale, matrix: view.matrix().join(" ") });
}

export function showValue(parts, words, picture, display, point) {
  if (!point) return void (parts.value.textContent = "");
  const sample = picture.at(...point);
  const [x, y] = point.map(Math.floor);
  return void (parts.value.textContent = sample === null ? words.outside
    : fill(words.value, { x, y, value: inUnits(sample, display) }));
}

/** A measured length for the picture itself, and with what it means. */
export function lengthText(words, { length: measured, kind }) {
  const length = measured.toLocaleString("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
  return { text: fill(words[kind], { length }), why: fill(words[`${kind}_why`], { length }) };
}

/** Sliders over everything that the picture holds or the header names, in about 200 steps. */
export function setSliders(parts, picture, display) {
  const [low, high] = [Math.min(picture.lowest, display.low), Math.max(picture.highest, display.high, picture.lowest + 1)];
  const range = high - low;
  const step = Math.max(range / 200, 0.5);
  Object.assign(parts.level, { min: low, max: high, step });
  Object.assign(parts.width, { min: 1, max: 1.5 * range + 1, step });
}

export function press(button, isOn) {
  button?.setAttribute("aria-pressed", String(isOn));
}
