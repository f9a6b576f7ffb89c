// What every page shares: letter keys and the switch that turns them off, lists walked by keys, live progress.
// Everything works without it.

const SHORTCUTS = "nightread.shortcuts"; // "off" in localStorage: WCAG 2.1.4 asks for a way to turn letter keys off
const POLL_MILLISECONDS = 2000;
const CONTROLS = "a[href], button, input, select, summary"; // what Space and Enter already mean something to
const ARROWED = "select, input[type=radio], input[type=range]"; // what the arrow keys already mean something to

function lettersAreShortcuts() {
  try { return localStorage.getItem(SHORTCUTS) !== "off"; } catch { return true; }
}

function isTyping(target) {
  return target.matches("textarea, select, input:not([type=radio], [type=checkbox], [type=range])");
}

function isTaken(key, target) {
  if (key === " " || key === "Enter") return target.matches(CONTROLS);
  return key.startsWith("Arrow") && target.matches(ARROWED);
}

/** Call `act(key, event)` for keys pressed outside text fields and dialogs; it returns true when it used the key. */
export function onKeys(act, { signal } = {}) {
  document.addEventListener("keydown", (event) => {
    const isLetter = event.key.length === 1;
    if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey) return;
    if (isTyping(event.target) || isTaken(event.key, event.target) || document.querySelector("dialog[open]")) return;
    if (isLetter && event.key !== " " && !lettersAreShortcuts()) return;
    if (act(isLetter ? event.key.toLowerCase() : event.key, event)) event.preventDefault();
  }, { signal });
}

/** Show in every switch of the page what is chosen. */
export function showSwitches() {
  for (const box of document.querySelectorAll("[data-shortcuts]")) box.checked = lettersAreShortcuts();
}

function switches() {
  document.addEventListener("change", (event) => {
    if (!event.target.matches("[data-shortcuts]")) return;
    try { localStorage.setItem(SHORTCUTS, event.target.checked ? "on" : "off"); } catch { /* private window */ }
    showSwitches();
  });
  showSwitches();
}

function listKeys(table) {
  const rows = [...table.querySelectorAll("a.row")];
  const steps = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 };
  onKeys((key) => {
    if (!(key in steps) || !rows.length) return false;
    const at = rows.indexOf(document.activeElement);
    const to = at < 0 ? 0 : Math.min(Math.max(at + steps[key], 0), rows.length - 1);
    rows[to].focus();
    rows[to].scrollIntoView({ block: "nearest" });
    return true;
  });
}

function linkKeys() {
  onKeys((key, event) => {
    const link = /^[a-z]$/.test(key) && !event.repeat && document.querySelector(`[data-key=${key}]`);
    const field = key === "/" && document.querySelector('[data-focus="/"]');
    if (link) link.click();
    else if (field) field.focus();
    return Boolean(link || field);
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

switches();
linkKeys();
for (const table of document.querySelectorAll("[data-keys=list]")) listKeys(table);
for (const table of document.querySelectorAll("#batches")) liveProgress(table);
