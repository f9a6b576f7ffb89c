// What pointers and keys do to the picture: move and zoom it, look at one pixel, measure. Points are picture pixels.

import { Ruler } from "./viewer_ruler.js";
import { press } from "./viewer_show.js";

const PAN = 60; // CSS pixels that an arrow key moves the picture
const WALK = 8; // CSS pixels that it moves the magnifier or an end of the ruler; 1 with Shift

export class Hand {
  constructor(viewer) {
    this.viewer = viewer;
    this.ruler = null;
    this.probe = null; // the point looked at
    this.space = ""; // "", held, used
  }

  get isReady() {
    return this.viewer.isReady;
  }

  /** Let go of ruler and magnifier. */
  drop() {
    const { viewer } = this;
    this.ruler = null;
    viewer.isLensOn = false;
    for (const name of ["ruler", "lens"]) press(viewer.tools.get(name), false);
    viewer.redraw("overlay");
  }

  leave() {
    const holdsSomething = Boolean(this.ruler || this.viewer.isLensOn);
    if (holdsSomething) this.drop();
    return holdsSomething;
  }

  /** An event's place on the canvas, in device pixels. */
  place({ clientX, clientY }) {
    const { canvas } = this.viewer.painter;
    const box = canvas.getBoundingClientRect();
    return [(clientX - box.left) * (canvas.width / box.width), (clientY - box.top) * (canvas.height / box.height)];
  }

  point(event) {
    return this.viewer.view.fromCanvas(...this.place(event));
  }

  hover(event) {
    if (!this.isReady) return;
    this.probe = event && this.point(event);
    if (this.ruler?.isOpen && event) this.ruler.to(this.probe);
    this.viewer.redraw(this.ruler?.isOpen ? "overlay" : "lens");
  }

  panBy(right, below) {
    this.viewer.view.pan(right * devicePixelRatio, below * devicePixelRatio);
    this.viewer.redraw("view");
  }

  zoomBy(factor, event) {
    if (!this.isReady) return;
    const { view } = this.viewer;
    view.zoomTo(view.scale * factor, ...(event ? this.place(event) : []));
    if (event) this.probe = this.point(event);
    this.viewer.redraw("view");
  }

  centre(event) {
    if (!this.isReady) return;
    this.viewer.view.lookAt(...this.point(event));
    this.viewer.redraw("view");
  }

  changeWindow(wider, higher) {
    this.viewer.changeWindow(wider, higher);
  }

  startRuler() {
    this.ruler = new Ruler(this.viewer.view);
    this.viewer.redraw("overlay");
  }

  rulerDown(event) {
    this.ruler.down(this.point(event));
    this.viewer.redraw("overlay");
  }

  rulerTo(event) {
    this.probe = this.point(event);
    this.ruler.to(this.probe);
    this.viewer.redraw("overlay");
  }

  rulerUp(wasDrag) {
    this.ruler?.up(wasDrag);
  }

  changeEnds() {
    if (!this.ruler) return false;
    this.ruler.active = 1 - this.ruler.active;
    this.viewer.redraw("overlay");
    return true;
  }

  /** Whether arrow keys mean the picture, wherever on the page the focus is. */
  get wantsArrows() {
    const { viewer } = this;
    return viewer.isReady && Boolean(this.ruler || viewer.isLensOn || viewer.view.scale > viewer.view.fitting() * 1.001);
  }

  /** One arrow key: move the ruler's end, else the magnifier, else the view (the picture goes the other way). */
  step(right, below, isFine) {
    const { viewer } = this;
    if (!viewer.isReady) return false;
    if (!this.ruler && !viewer.isLensOn) {
      this.panBy(-right * PAN / (isFine ? 6 : 1), -below * PAN / (isFine ? 6 : 1));
      return true;
    }
    const { view } = viewer;
    const from = this.ruler ? this.ruler.ends[this.ruler.active] : this.probe ?? view.middle;
    const [u, v] = view.toCanvas(...from);
    const far = (isFine ? 1 : WALK) * devicePixelRatio;
    this.probe = view.fromCanvas(u + right * far, v + below * far);
    this.ruler?.to(this.probe);
    viewer.redraw("overlay");
    viewer.redraw("step");
    return true;
  }

  // Space: pressed and let go it resets; held while dragging it moves the picture.
  holdSpace() {
    this.space ||= "held";
    return true;
  }

  useSpace() {
    if (this.space) this.space = "used";
    return Boolean(this.space);
  }

  forgetSpace() {
    this.space = "";
  }

  releaseSpace() {
    if (this.space === "held") this.viewer.act("reset");
    this.space = "";
  }
}
