// Everything works without this file except zoom, the overlay's controls, shortcuts and live progress.
"use strict";

const SHORTCUTS = "nightread.shortcuts"; // "off" in localStorage: WCAG 2.1.4 asks for a way to turn letter keys off
const POLL_MILLISECONDS = 2000;

function lettersAreShortcuts() {
  try { return localStorage.getItem(SHORTCUTS) !== "off"; } catch { return true; }
}

function isTyping(target) {
  return target.matches("textarea, select, input:not([type=radio], [type=checkbox], [type=range])");
}

/** Call `act(key, event)` for keys pressed outside text fields; it returns true when it used the key. */
function onKeys(act) {
  document.addEventListener("keydown", (event) => {
    const isLetter = event.key.length === 1;
    if (event.ctrlKey || event.altKey || event.metaKey || isTyping(event.target)) return;
    if (isLetter && !lettersAreShortcuts()) return;
    if (act(isLetter ? event.key.toLowerCase() : event.key, event)) event.preventDefault();
  });
}

function shortcutSwitches() {
  for (const box of document.querySelectorAll("[data-shortcuts]")) {
    box.checked = lettersAreShortcuts();
    box.addEventListener("change", () => {
      try { localStorage.setItem(SHORTCUTS, box.checked ? "on" : "off"); } catch { /* private window: for this page only */ }
    });
  }
}

function listKeys(table) {
  const rows = [...table.querySelectorAll("a.row")];
  const steps = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 };
  onKeys((key, event) => {
    if (!(key in steps) || event.target.matches("input")) return false;
    const at = rows.indexOf(document.activeElement);
    const to = at < 0 ? 0 : Math.min(Math.max(at + steps[key], 0), rows.length - 1);
    rows[to].focus();
    rows[to].scrollIntoView({ block: "nearest" });
    return true;
  });
}

function linkKeys() {
  const links = new Map([...document.querySelectorAll("[data-key]")].map((link) => [link.dataset.key, link]));
  onKeys((key) => {
    links.get(key)?.click();
    return links.has(key);
  });
}

function verdictKeys(form) {
  const choices = new Map([...form.querySelectorAll("[name=verdict]")].map((radio) => [radio.value[0], radio]));
  onKeys((key) => {
    const radio = choices.get(key);
    if (!radio) return false;
    radio.checked = true;
    radio.focus(); // so that Enter saves, too
    return true;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      form.requestSubmit();
    } else if (event.key === "Escape" && event.target.id === "note") {
      event.target.blur();
    }
  });
  form.addEventListener("submit", () => {
    // A second press while the answer is on its way must not save twice; not `disabled`, which a reload would keep.
    form.addEventListener("submit", (event) => event.preventDefault());
  }, { once: true });
  window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
}

function viewer(stage) {
  const picture = document.getElementById("picture");
  const image = document.getElementById("image");
  const heat = document.getElementById("heat");
  const crop = document.getElementById("crop");
  const opacity = document.getElementById("opacity");
  const buttons = new Map([...document.querySelectorAll("[data-tool]")].map((button) => [button.dataset.tool, button]));
  let zoom = 1;

  function layOut() {
    const [width, height] = [image.naturalWidth, image.naturalHeight];
    if (!width) return;
    const fit = Math.min(stage.clientWidth / width, (stage.clientHeight - 1) / height);
    picture.style.width = `${width * fit * zoom}px`;
    picture.style.height = `${height * fit * zoom}px`;
    picture.classList.add("sized");
    stage.classList.toggle("large", zoom > 1);
    document.getElementById("zoom").textContent = `${Math.round(100 * fit * zoom)} %`;
  }

  function zoomTo(wanted) {
    const before = zoom;
    const middle = [stage.scrollLeft + stage.clientWidth / 2, stage.scrollTop + stage.clientHeight / 2];
    zoom = Math.min(Math.max(wanted, 1), 16);
    layOut();
    stage.scrollLeft = (middle[0] * zoom) / before - stage.clientWidth / 2;
    stage.scrollTop = (middle[1] * zoom) / before - stage.clientHeight / 2;
  }

  function toggle(tool) {
    const button = buttons.get(tool);
    const isOn = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(isOn));
    return isOn;
  }

  const tools = {
    heat: () => { heat.hidden = !toggle("heat"); },
    invert: () => picture.classList.toggle("inverted", toggle("invert")),
    crop: () => crop.toggleAttribute("hidden", !toggle("crop")),
    in: () => zoomTo(zoom * 1.25),
    out: () => zoomTo(zoom / 1.25),
    fit: () => zoomTo(1),
  };
  for (const [tool, button] of buttons) button.addEventListener("click", tools[tool]);

  const keys = { m: "heat", i: "invert", x: "crop", "+": "in", "-": "out", "=": "fit" };
  onKeys((key) => {
    const button = buttons.get(keys[key]);
    button?.click();
    return Boolean(button);
  });

  if (heat && opacity) {
    const show = () => { heat.style.opacity = opacity.value / 100; };
    opacity.addEventListener("input", show);
    show(); // a reload may have kept another value in the slider
  }
  if (image.complete) layOut();
  image.addEventListener("load", layOut);
  new ResizeObserver(layOut).observe(stage);

  stage.addEventListener("pointerdown", (event) => {
    if (zoom === 1 || event.button !== 0 || event.offsetX > stage.clientWidth + stage.scrollLeft) return;
    stage.setPointerCapture(event.pointerId);
    const move = (moved) => stage.scrollBy(-moved.movementX, -moved.movementY);
    stage.addEventListener("pointermove", move);
    stage.addEventListener("lostpointercapture", () => stage.removeEventListener("pointermove", move), { once: true });
  });
}

function liveProgress(table) {
  const live = document.getElementById("live");
  const running = () => [...table.querySelectorAll("[data-done=no]")];

  function show(row, batch) {
    for (const field of row.querySelectorAll("[data-field]")) {
      const value = batch[field.dataset.field];
      if (typeof value === "number") field.textContent = value.toLocaleString("en");
      else if (value) field.textContent = value;
    }
    const bar = row.querySelector("progress");
    bar.max = Math.max(batch.found, 1);
    bar.value = batch.found - batch.waiting;
  }

  async function poll() {
    const address = new URL(table.dataset.progress, location.href);
    for (const row of running()) address.searchParams.append("batch", row.dataset.batch);
    const answer = await fetch(address, { headers: { Accept: "application/json" }, redirect: "error" });
    if (answer.status === 401) {
      live.textContent = "Your session has ended: sign in again to see progress.";
      return false;
    }
    if (!answer.ok) throw new Error(`${answer.status}`);
    const { newest, batches } = await answer.json();
    for (const batch of batches) show(table.querySelector(`[data-batch="${batch.batch}"]`), batch);
    if (newest > Number(table.dataset.newest) || batches.some((batch) => batch.done)) location.reload();
    live.textContent = running().length ? "Live" : "";
    return true;
  }

  async function again() {
    let goOn = true;
    try { goOn = document.hidden || await poll(); } catch { live.textContent = "No answer from the server; trying again."; }
    if (goOn) setTimeout(again, POLL_MILLISECONDS);
  }
  setTimeout(again, POLL_MILLISECONDS);
}

shortcutSwitches();
linkKeys();
for (const table of document.querySelectorAll("[data-keys=list]")) listKeys(table);
for (const form of document.querySelectorAll("#verdict")) verdictKeys(form);
for (const stage of document.querySelectorAll("#stage")) viewer(stage);
for (const table of document.querySelectorAll("#batches")) liveProgress(table);
