// Keys of the viewer. They work on the whole page as the verdict's do, under the page's own rules for keys (onKeys).

import { onKeys } from "./nightread.js";

const TOOLS = {
  m: "heat", x: "crop", i: "invert", g: "lens", t: "ruler", l: "left", r: "right", h: "mirror", v: "flip",
  "-": "out", "+": "in", "=": "fit", 0: "one",
};
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const MAY_REPEAT = new Set(["-", "+"]);
const CONTROLS = "a, button, input, select, textarea, summary, [role=toolbar]"; // there arrows are the page's

export function listenToKeys(viewer, signal) {
  onKeys((key, event) => press(viewer, key, event), { signal });
  document.addEventListener("keyup", (event) => { if (event.key === " ") viewer.hand.releaseSpace(); }, { signal });
  window.addEventListener("blur", () => viewer.hand.forgetSpace(), { signal });
}

function press(viewer, key, event) {
  if (key in ARROWS) return arrow(viewer, event, ARROWS[key]);
  if (key === "Enter") return event.target === viewer.stage && viewer.hand.changeEnds();
  if (key === "Escape") return viewer.hand.leave();
  if (key === " ") return viewer.hand.holdSpace();
  if (event.repeat && !MAY_REPEAT.has(key)) return key in TOOLS;
  if (key >= "1" && key <= "9") return viewer.choose(Number(key));
  return key in TOOLS && viewer.act(TOOLS[key]);
}

/** Arrows belong to the page and its controls, unless the stage has the focus or the picture is larger than its stage. */
function arrow(viewer, event, [right, down]) {
  if (event.target.closest(CONTROLS)) return false;
  if (event.target !== viewer.stage && !viewer.hand.wantsArrows) return false;
  return viewer.hand.step(right, down, event.shiftKey);
}

/** One tab stop a toolbar; arrows, Home and End move along it (ARIA Authoring Practices, toolbar). */
export function roam(toolbar, signal) {
  const buttons = [...toolbar.querySelectorAll("button")];
  const stop = (chosen) => { for (const button of buttons) button.tabIndex = button === chosen ? 0 : -1; };
  stop(buttons[0]);
  toolbar.addEventListener("focusin", (event) => stop(event.target.closest("button")), { signal });
  toolbar.addEventListener("keydown", (event) => {
    const at = buttons.indexOf(document.activeElement);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (at < 0 || to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    buttons[(to + buttons.length) % buttons.length].focus();
  }, { signal });
}
