// The viewer of the scan page (_viewer.html): samples in their own depth through a window, and what lies over them.
// mount(section) brings one to life, destroy() ends it; preload(image, heat) makes the next one ready. No globals.

import { UnreadablePng } from "./png.js";
import { NothingCame, heatAt, pictureAt, preload } from "./viewer_cache.js";
import { Hand } from "./viewer_hand.js";
import { listenToKeys, roam } from "./viewer_keys.js";
import { Overlay } from "./viewer_overlay.js";
import { Painter } from "./viewer_paint.js";
import { listenToPointers } from "./viewer_pointer.js";
import { fill, lengthText, press, setSliders, showValue, showView, showWindow } from "./viewer_show.js";
import { TOOLS, opacityOf, startTools } from "./viewer_tools.js";
import { View } from "./viewer_view.js";
import { between, displayOf, dragged, kept, preset, stretchOf, table } from "./viewer_window.js";

export { preload };

const LENS = 3; // times as large as the picture around it

export function mount(section) {
  return new Viewer(section);
}

class Viewer {
  /** `ready` resolves to whether the picture is shown by the viewer (false: as a plain <img>, or not at all). */
  constructor(section) {
    this.section = section;
    this.parts = Object.fromEntries([...section.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
    this.stage = this.parts.stage;
    this.tools = new Map([...section.querySelectorAll("[data-tool]")].map((button) => [button.dataset.tool, button]));
    this.presets = [...section.querySelectorAll("[data-preset]")];
    this.words = JSON.parse(section.dataset.words);
    this.evidence = JSON.parse(section.dataset.evidence ?? "null");
    this.ending = new AbortController();
    this.hand = new Hand(this);
    this.isReady = this.isGone = false;
    this.stale = new Set();
    section.dataset.state = "loading";
    for (const leftover of section.querySelectorAll("noscript, .viewer-plain")) leftover.remove();
    startTools(this);
    this.listen(this.ending.signal);
    this.ready = this.load();
  }

  destroy() {
    if (this.isGone) return;
    this.isGone = true;
    this.isReady = false;
    this.ending.abort();
    this.watcher.disconnect();
    cancelAnimationFrame(this.frame);
    for (const part of [this.painter, this.overlay, this.lensPainter]) part?.free();
    this.picture = this.heat = this.painter = this.overlay = this.lensPainter = null;
  }

  listen(signal) {
    for (const [name, button] of this.tools) button.addEventListener("click", () => this.act(name), { signal });
    for (const button of this.presets) button.addEventListener("click", () => this.usePreset(button), { signal });
    for (const name of ["level", "width"]) this.parts[name].addEventListener("input", () => this.slide(name), { signal });
    this.parts.opacity?.addEventListener("input", () => this.redraw("overlay"), { signal });
    for (const toolbar of this.section.querySelectorAll("[role=toolbar]")) roam(toolbar, signal);
    listenToKeys(this, signal);
    listenToPointers(this.stage, this.hand, signal);
    this.watcher = new ResizeObserver(([entry]) => this.resize(entry));
    const { picture } = this.parts;
    try { this.watcher.observe(picture, { box: "device-pixel-content-box" }); } catch { this.watcher.observe(picture); }
  }

  async load() {
    const { image, heat } = this.section.dataset;
    const wanted = heat ? heatAt(heat).catch(() => null) : null;
    try {
      const picture = await pictureAt(image);
      if (!this.isGone) this.show(picture);
    } catch (error) {
      if (!this.isGone) this.giveUp(error);
    }
    const bitmap = await wanted;
    if (this.isReady && heat) this.showHeat(bitmap);
    return this.isReady;
  }

  show(picture) {
    const { section, parts } = this;
    this.picture = picture;
    this.display = displayOf(JSON.parse(section.dataset.display ?? "null"), picture);
    this.view = new View(picture.width, picture.height, stretchOf(this.display));
    this.painter = new Painter(parts.picture);
    this.overlay = new Overlay(parts.overlay);
    this.lensPainter = new Painter(parts.lens);
    this.colours = new Uint32Array(picture.most * picture.fine + 1);
    Object.assign(section.dataset, { width: picture.width, height: picture.height, bits: picture.depth });
    parts.picture.ariaLabel = fill(this.words.picture, { ...section.dataset });
    parts.message.textContent = "";
    setSliders(parts, picture, this.display);
    this.isReady = true;
    this.resize();
    this.reset();
    this.draw(); // at once: a picture that was ready is there in the next frame
    section.dataset.state = "ready";
  }

  showHeat(bitmap) {
    this.heat = bitmap;
    if (!bitmap) {
      this.tools.get("heat").disabled = true;
      this.parts.message.textContent = this.words.no_heat;
    }
    this.section.dataset.heatState = bitmap ? "ready" : "failed";
    this.redraw("overlay");
  }

  giveUp(error) {
    const known = error instanceof UnreadablePng || error instanceof NothingCame;
    const why = this.words[known ? error.code : "damaged"];
    const isPlain = error instanceof UnreadablePng;
    this.parts.message.textContent = fill(isPlain ? this.words.plain : this.words.failed, { why });
    for (const control of this.section.querySelectorAll("button, input")) control.disabled = true;
    if (isPlain) this.stage.prepend(plain(this.section.dataset.image, this.parts.picture.ariaLabel));
    this.section.dataset.state = isPlain ? "plain" : "failed";
  }

  resize(entry) {
    this.box = entry?.devicePixelContentBoxSize?.[0] ?? this.box;
    if (!this.isReady) return;
    const { clientWidth, clientHeight } = this.parts.picture;
    const [columns, rows] = [pixels(clientWidth, this.box?.inlineSize), pixels(clientHeight, this.box?.blockSize)];
    if (columns === this.view.columns && rows === this.view.rows) return;
    for (const canvas of [this.parts.picture, this.parts.overlay]) Object.assign(canvas, { width: columns, height: rows });
    this.view.resize(columns, rows);
    this.redraw("view");
    if (entry) this.draw(); // before this frame is painted: no flash of an empty canvas
  }

  /** Everything as at first, but the heat map's and the crop's switches. */
  reset() {
    this.view.reset();
    this.isInverted = false;
    press(this.tools.get("invert"), false);
    this.hand.drop();
    this.usePreset(this.presets[0]);
    this.redraw("view");
  }

  /**
   * Draw in the next frame what changed: "view", "window", "overlay" (what lies over the picture) or "lens";
   * "step": and say aloud what is measured or looked at.
   */
  redraw(what) {
    this.stale.add(what);
    this.frame ??= requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = undefined;
    if (!this.isReady) return;
    const { section, parts, words, view, stale } = this;
    if (stale.has("window")) {
      table(this.window, this.isInverted, this.picture.fine, this.colours);
      showWindow(section, parts, words, this);
    }
    if (stale.has("view") || stale.has("window")) this.painter.draw(this.picture, view, this.colours);
    if (stale.has("view") || stale.has("overlay")) this.drawOver();
    this.drawLens();
    showValue(parts, words, this.picture, this.display, this.hand.probe);
    showView(section, parts, words, view);
    if (stale.has("step")) this.say(parts.length.textContent || parts.value.textContent);
    stale.clear();
  }

  drawOver() {
    const { parts, hand } = this;
    const heat = this.heat && this.isHeatShown ? { bitmap: this.heat, opacity: opacityOf(this) } : null;
    const { text, why } = hand.ruler ? lengthText(this.words, hand.ruler.measure(this.display)) : { why: "" };
    const ruler = hand.ruler && { ...hand.ruler, text };
    parts.length.textContent = why;
    this.overlay.draw(this.view, { heat, evidence: this.isCropShown ? this.evidence : null, ruler }, devicePixelRatio);
  }

  drawLens() {
    const { lens } = this.parts;
    const point = this.isLensOn ? this.hand.probe : null;
    lens.hidden = !point;
    if (!point) return;
    const side = Math.round(lens.clientWidth * devicePixelRatio);
    if (lens.width !== side) lens.width = lens.height = side;
    const [u, v] = this.view.toCanvas(...point);
    lens.style.left = `${u / devicePixelRatio - lens.offsetWidth / 2}px`;
    lens.style.top = `${v / devicePixelRatio - lens.offsetHeight / 2}px`;
    const view = Object.assign(new View(this.picture.width, this.picture.height, this.view.stretch), {
      columns: side, rows: side, turned: this.view.turned, scale: LENS * this.view.scale, middle: point,
    });
    this.lensPainter.draw(this.picture, view, this.colours);
  }

  /** Do what a button or its key stands for; whether there was such a tool. */
  act(name) {
    const button = this.tools.get(name);
    if (!button || button.disabled || !this.isReady) return false;
    TOOLS[name](this);
    const pressed = button.getAttribute("aria-pressed");
    const tool = button.querySelector("span:not([aria-hidden])").textContent;
    if (pressed) this.say(fill(this.words[pressed === "true" ? "on" : "off"], { tool }));
    return true;
  }

  say(text) {
    this.parts.said.textContent = text;
  }

  /** Use the preset of a number key; whether there is one. */
  choose(number) {
    const button = this.presets[number - 1];
    if (!button || !this.isReady) return false;
    this.usePreset(button);
    this.say(`${button.querySelector("bdi").textContent}: ${button.title}`);
    return true;
  }

  usePreset(button) {
    if (this.isReady) this.setWindow(preset(button, this.picture, this.display, kept(this.evidence, this.picture)), button);
  }

  setWindow(window, button) {
    this.window = window;
    this.preset = button?.dataset.preset ?? "";
    for (const one of this.presets) press(one, one === button);
    this.redraw("window");
  }

  changeWindow(wider, higher) {
    this.setWindow(dragged(this.window, wider, higher));
  }

  slide(name) {
    if (!this.isReady) return;
    const { low, high } = this.window;
    const now = { level: (low + high) / 2, width: high - low, [name]: Number(this.parts[name].value) };
    this.setWindow(between(now.level - now.width / 2, now.level + now.width / 2));
  }
}

/** Device pixels along a side: as the browser counts them, unless it counts others (some do when asked to pretend). */
function pixels(side, counted) {
  const expected = side * devicePixelRatio;
  return Math.abs(counted - expected) <= 1 ? counted : Math.round(expected);
}

function plain(address, text) {
  return Object.assign(document.createElement("img"), { src: address, alt: text, className: "viewer-plain" });
}
