// Pictures that were fetched and decoded, the last few of them: the next scan's is ready before it is asked for.

import { decode } from "./png.js";
import { Picture } from "./viewer_picture.js";

const MOST = 3;
const pictures = new Map(); // address -> promise of a Picture
const heats = new Map(); // address -> promise of an ImageBitmap

/** Why nothing came: `code` is signed_out, gone or no_answer. */
export class NothingCame extends Error {
  constructor(code) {
    super(`nothing came: ${code}`);
    this.code = code;
  }
}

export function pictureAt(address, ahead = false) {
  return once(pictures, address, async () => {
    const file = await fetched(address, ahead);
    const decoded = await decode(new Uint8Array(await file.arrayBuffer()), ahead);
    return new Picture(decoded);
  });
}

export function heatAt(address, ahead = false) {
  return once(heats, address, async () => createImageBitmap(await (await fetched(address, ahead)).blob()));
}

/** Fetch and decode ahead of need; whether all came. Never rejects: mounting asks again, and says what is wrong. */
export async function preload(imageAddress, heatAddress) {
  const wanted = [pictureAt(imageAddress, true), ...(heatAddress ? [heatAt(heatAddress, true)] : [])];
  const ended = await Promise.allSettled(wanted);
  return ended.every((one) => one.status === "fulfilled");
}

function once(kept, address, make) {
  const known = kept.get(address);
  const promise = known ?? make();
  kept.delete(address);
  kept.set(address, promise); // the newest last
  if (!known) promise.catch(() => { if (kept.get(address) === promise) kept.delete(address); });
  for (const oldest of kept.keys()) if (kept.size > MOST) kept.delete(oldest);
  return promise;
}

async function fetched(address, ahead) {
  const headers = ahead ? { "X-Nightread-Ahead": "1" } : {}; // on record as fetched ahead, not as viewed
  const answer = await fetch(address, { headers, credentials: "same-origin", redirect: "error" }).catch(() => null);
  if (!answer) throw new NothingCame("no_answer");
  if (answer.status === 401) throw new NothingCame("signed_out");
  if (!answer.ok) throw new NothingCame(answer.status === 404 ? "gone" : "no_answer");
  return answer;
}
