// What each button of the toolbar does; the keys press the same buttons.

import { press } from "./viewer_show.js";

const STEP = 1.25; // one press of + or -

// How this reader looks at heat maps: kept from scan to scan while the page is open, and no longer.
const habits = { isHeatShown: true, opacity: null };

export const TOOLS = {
  heat: (viewer) => {
    toggle(viewer, "heat", "isHeatShown", "overlay");
    habits.isHeatShown = viewer.isHeatShown;
  },
  crop: (viewer) => {
    toggle(viewer, "crop", "isCropShown", "overlay");
    showInset(viewer);
  },
  invert: (viewer) => toggle(viewer, "invert", "isInverted", "window"),
  lens: (viewer) => {
    toggle(viewer, "lens", "isLensOn", "lens");
    viewer.hand.probe ??= viewer.view.middle;
  },
  ruler: (viewer) => {
    const { hand } = viewer;
    if (hand.ruler) hand.ruler = null;
    else hand.startRuler();
    press(viewer.tools.get("ruler"), Boolean(hand.ruler));
    viewer.redraw("overlay");
  },
  left: (viewer) => turn(viewer, "left"),
  right: (viewer) => turn(viewer, "right"),
  mirror: (viewer) => turn(viewer, "mirror"),
  flip: (viewer) => turn(viewer, "flip"),
  in: (viewer) => viewer.hand.zoomBy(STEP),
  out: (viewer) => viewer.hand.zoomBy(1 / STEP),
  fit: (viewer) => {
    viewer.view.fit();
    viewer.redraw("view");
  },
  one: (viewer) => {
    viewer.view.zoomTo(1);
    viewer.redraw("view");
  },
  reset: (viewer) => viewer.reset(),
};

/** Switches as they are for a new scan, whatever an earlier viewer left on this section. */
export function startTools(viewer) {
  Object.assign(viewer, { isHeatShown: habits.isHeatShown, isCropShown: false, isInverted: false, isLensOn: false });
  for (const name of ["crop", "invert", "lens", "ruler"]) press(viewer.tools.get(name), false);
  press(viewer.tools.get("heat"), habits.isHeatShown);
  if (viewer.parts.opacity && habits.opacity !== null) viewer.parts.opacity.value = habits.opacity;
  for (const control of viewer.section.querySelectorAll("button, input")) control.disabled = false;
  showInset(viewer);
}

/** The heat map's opacity, 0 to 1, as its slider stands. */
export function opacityOf({ parts }) {
  habits.opacity = parts.opacity.value;
  return habits.opacity / 100;
}

function toggle(viewer, name, field, what) {
  viewer[field] = !viewer[field];
  press(viewer.tools.get(name), viewer[field]);
  viewer.redraw(what);
}

function turn(viewer, how) {
  viewer.view.turn(how);
  viewer.redraw("view");
}

function showInset({ parts, section, isCropShown }) {
  if (!parts.inset) return;
  parts.inset.hidden = !isCropShown;
  if (isCropShown && parts.input && !parts.input.src) parts.input.src = section.dataset.input; // asked for when wanted
}
