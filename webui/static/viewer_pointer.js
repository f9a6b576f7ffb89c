// Pointers on the stage. Left: window, or the ruler's ends where it is on; Space + left, middle and right: move the
// picture; two fingers: move and zoom; wheel: zoom around the pointer; double click: bring that point to the middle.

const WHEEL = 0.0015; // powers of e per CSS pixel scrolled
const LINE = 16; // CSS pixels that a wheel's "line" counts as
const PER_WIDTH = 300; // CSS pixels of a drag that move the level by one width, or multiply the width by e
const STILL = 3; // CSS pixels: less is a click

export function listenToPointers(stage, hand, signal) {
  const down = new Map(); // pointer id -> last place, CSS pixels
  let how = "";
  const on = (name, act, options) => stage.addEventListener(name, act, { signal, ...options });

  on("pointerdown", (event) => {
    if (!hand.isReady || (event.button && how)) return;
    stage.setPointerCapture(event.pointerId);
    down.set(event.pointerId, { x: event.clientX, y: event.clientY, far: 0 });
    how = down.size > 1 ? "pinch" : purpose(hand, event);
    if (how === "ruler") hand.rulerDown(event);
    stage.dataset.drag = how;
  });
  on("pointermove", (event) => {
    const last = down.get(event.pointerId);
    if (!last) return hand.hover(event);
    const [right, below] = [event.clientX - last.x, event.clientY - last.y];
    const before = spread(down);
    down.set(event.pointerId, { x: event.clientX, y: event.clientY, far: last.far + Math.hypot(right, below) });
    if (how === "pinch") pinch(hand, down, before);
    else if (how === "pan") hand.panBy(right, below);
    else if (how === "ruler") hand.rulerTo(event);
    else if (how === "window") hand.changeWindow(right / PER_WIDTH, below / PER_WIDTH);
    return undefined;
  });
  const end = (event) => {
    const last = down.get(event.pointerId);
    if (!last) return;
    down.delete(event.pointerId);
    if (how === "ruler") hand.rulerUp(last.far > STILL);
    how = "";
    delete stage.dataset.drag;
  };
  on("pointerup", end);
  on("pointercancel", end);
  on("pointerleave", () => { if (!down.size) hand.hover(null); });
  on("mousedown", (event) => { if (event.button === 1) event.preventDefault(); }); // no scrolling by the middle button
  on("contextmenu", (event) => event.preventDefault());
  on("dblclick", (event) => { if (!hand.ruler) hand.centre(event); });
  on("wheel", (event) => {
    event.preventDefault();
    const pixels = event.deltaY * [1, LINE, stage.clientHeight][event.deltaMode];
    hand.zoomBy(Math.exp(-WHEEL * Math.min(Math.max(pixels, -400), 400)), event);
  }, { passive: false });
}

function purpose(hand, event) {
  if (event.button || hand.useSpace()) return "pan";
  return hand.ruler ? "ruler" : "window";
}

function spread(down) {
  const [first, second = first] = down.values();
  return { x: (first.x + second.x) / 2, y: (first.y + second.y) / 2, apart: Math.hypot(first.x - second.x, first.y - second.y) };
}

function pinch(hand, down, before) {
  const now = spread(down);
  hand.panBy(now.x - before.x, now.y - before.y);
  if (before.apart && now.apart) {
    hand.zoomBy(now.apart / before.apart, { clientX: now.x, clientY: now.y });
  }
}
