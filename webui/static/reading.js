// Reading: verdicts from the keyboard, the next scan fetched ahead and swapped in, the soft lock kept while a page is
// open. Without this file the same forms and links work, a page at a time.

import { onKeys, showSwitches } from "./nightread.js";
import { mount, preload } from "./viewer.js";

const HOLD_MILLISECONDS = 45_000;

let viewer = null;
let ahead = null; // the next scan: { key, address, page: promise of its document, or of null }
let isBusy = false;

const part = (id) => document.getElementById(id);
const scan = () => part("scan");
const words = () => JSON.parse(scan().dataset.words);

function say(text) {
  part("said").textContent = text;
}

function complain(text) {
  const problem = part("problem");
  problem.textContent = text;
  problem.hidden = false;
}

function toPicture() {
  part("main").focus({ preventScroll: true });
}

// Fetching and swapping

/** The page of a scan as a document, null where it is not to be had; `from` is the scan that is being read. */
function pageAt(address, from = "") {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("GET", address);
    request.responseType = "document";
    if (from) request.setRequestHeader("X-Nightread-Ahead", from);
    request.onloadend = () => {
      const page = request.status === 200 ? request.response : null;
      for (const unused of page?.querySelectorAll("noscript") ?? []) unused.remove();
      resolve(page?.getElementById("scan") ? page : null);
    };
    request.send();
  });
}

async function fetchAhead() {
  const { key, next, nextKey } = scan().dataset;
  ahead = next ? { key: nextKey, address: next, page: pageAt(next, key) } : null;
  const picture = (await ahead?.page)?.getElementById("viewer");
  if (picture) await preload(picture.dataset.image, picture.dataset.heat);
}

function swap(page, address) {
  viewer?.destroy();
  viewer = null;
  const main = document.importNode(page.getElementById("main"), true);
  part("main").replaceWith(main);
  if (address) history.pushState(null, "", address);
  begin();
  toPicture();
  scrollTo(0, 0);
}

function begin() {
  showSwitches();
  if (part("viewer")) viewer = mount(part("viewer"));
}

/** Swap the scan that was fetched ahead in; the one after it is fetched once the server knows what `told` tells it, and
    nobody waits for that. */
function goAhead(page, told) {
  const { address } = ahead;
  ahead = null;
  swap(page, address);
  tell(scan().dataset.seen);
  const { key } = scan().dataset;
  Promise.resolve(told).then(({ left }) => {
    if (scan().dataset.key !== key) return;
    if (left) part("left").textContent = left;
    fetchAhead();
  });
}

function goTo(address) {
  ahead = null; // leaving must not release what the new page will hold
  location.assign(address);
}

// Verdicts

async function save() {
  const form = part("verdict");
  if (!form) return;
  if (isBusy) {
    say(words().saving);
    return;
  }
  if (!form.querySelector("[name=verdict]:checked")) {
    complain(words().choose);
    return;
  }
  isBusy = true;
  try { await send(form); } finally { isBusy = false; }
}

async function send(form) {
  const body = new URLSearchParams(new FormData(form));
  if (ahead) body.set("ahead", ahead.key);
  const headers = { Accept: "application/json" };
  let answer = null;
  try {
    answer = await fetch(form.getAttribute("action"), { method: "POST", body, headers, redirect: "manual" });
  } catch {
    complain(words().no_answer);
    return;
  }
  const told = await answer.json().catch(() => ({}));
  if (answer.ok) await goOn(told);
  else complain(told.problem || (answer.type === "opaqueredirect" ? words().signed_out : words().not_saved));
}

async function goOn(told) {
  say(told.said);
  if (told.next && told.next === ahead?.key) {
    const page = await ahead.page;
    if (page) return goAhead(page, told);
  } else if (told.next === scan().dataset.key) {
    const page = await pageAt(told.address);
    if (page) return swap(page);
  }
  return goTo(told.address);
}

async function skip(link) {
  if (isBusy) return;
  isBusy = true;
  try {
    const page = await ahead.page;
    if (!page) return goTo(link.href);
    const address = new URL(link.href);
    address.searchParams.set("ahead", ahead.key);
    const told = fetch(address, { headers: { Accept: "application/json" } }).then((answer) => answer.json());
    goAhead(page, told.catch(() => ({})));
  } finally { isBusy = false; }
}

// The soft lock, and what went on record

function token() {
  return new URLSearchParams({ csrf_token: document.querySelector("[name=csrf_token]").value });
}

async function tell(address) {
  try {
    const answer = await fetch(address, { method: "POST", body: token(), redirect: "manual", keepalive: true });
    return answer.ok ? await answer.json() : {};
  } catch { return {}; }
}

async function hold() {
  if (document.hidden || !scan()?.dataset.hold) return;
  const { holder } = await tell(scan().dataset.hold);
  if (holder) say(words().held.replace("{name}", holder));
  if (ahead) tell(scan().dataset.hold.replace(scan().dataset.key, ahead.key));
}

function release() {
  const address = scan()?.dataset.release;
  if (!address) return;
  navigator.sendBeacon(address, token());
  if (ahead) navigator.sendBeacon(address.replace(scan().dataset.key, ahead.key), token());
}

// Keys

function isOpen(form) {
  return form && !form.closest("details:not([open])");
}

function press(form, key) {
  const radio = form.querySelector(`[name=verdict][data-letter="${CSS.escape(key)}"]`);
  if (!radio) return false;
  const isSecond = radio.checked && form.dataset.armed === radio.value;
  radio.checked = true;
  form.dataset.armed = radio.value;
  if (isSecond) save();
  else say(radio.dataset.said);
  return true;
}

/** Whether Enter belongs to the ruler. */
function isMeasuring(target) {
  return target.closest(".viewer-stage") && document.querySelector("[data-tool=ruler][aria-pressed=true]");
}

function focusOn(element) {
  element?.focus();
  element?.scrollIntoView({ block: "nearest" });
  return Boolean(element);
}

function readingKeys(key, event) {
  const form = part("verdict");
  if (key === "?") {
    part("keys").showModal();
    return true;
  }
  if (!isOpen(form)) return false;
  if (event.repeat) return key.length === 1 && Boolean(form.querySelector(`[data-letter="${CSS.escape(key)}"]`));
  if (key === "f") return focusOn(form.querySelector("[name=findings]"));
  if (key === "o") return focusOn(part("note"));
  if (key === "Enter") {
    if (isMeasuring(event.target)) return false;
    save();
    return true;
  }
  return press(form, key);
}

/** Keys that mean something inside the verdict's form and the sheet of keys; seen before everybody else's. */
function formKeys(event) {
  const { key, target } = event;
  const isPlain = !event.ctrlKey && !event.altKey && !event.metaKey;
  const findings = target.closest?.("#findings");
  let isUsed = true;
  if (key === "Enter" && (event.ctrlKey || event.metaKey) && isOpen(part("verdict"))) save();
  else if (key === "?" && part("keys")?.open) part("keys").close();
  else if (key === "Escape" && (findings || target.id === "note")) toPicture();
  else if (findings && isPlain && /^[1-9]$/.test(key)) findings.querySelectorAll("[name=findings]")[key - 1]?.click();
  else isUsed = false;
  if (isUsed) {
    event.preventDefault();
    event.stopPropagation();
  }
}

function onClick(event) {
  const skipping = event.target.closest("a[data-key=n]");
  if (skipping && ahead && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    skip(skipping);
  }
  if (event.target.closest("[data-open=keys]")) part("keys").showModal();
}

document.addEventListener("keydown", formKeys, { capture: true });
document.addEventListener("click", onClick);
document.addEventListener("submit", (event) => {
  if (event.target.id !== "verdict") return;
  event.preventDefault();
  save();
});
document.addEventListener("pointerup", (event) => {
  // A choice that was clicked must not keep the focus: the arrow keys would change the verdict, not move the picture.
  if (event.target.closest(".choice")) setTimeout(toPicture);
});
window.addEventListener("pagehide", release);
window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
window.addEventListener("popstate", () => location.reload());
onKeys(readingKeys);
begin();
hold();
setInterval(hold, HOLD_MILLISECONDS);
fetchAhead();
