/** Says what went wrong, and offers to try again what may succeed later. */

import { Failure } from "./api.js";
import { el, find } from "./dom.js";

/** Runs `action`. If it fails, the reader sees why, and a button that runs it again if that may help. */
export async function attempt(action) {
  clear();
  try {
    return await action();
  } catch (error) {
    if (error.name === "AbortError") return undefined; // replaced by a newer request
    show(error, action);
    if (!(error instanceof Failure)) throw error;
    return undefined;
  }
}

export function clear() {
  find("#notice").replaceChildren();
}

function show(error, action) {
  const text = error instanceof Failure ? error.message : `The page has a fault: ${error.message}`;
  const again = el("button", { type: "button", onclick: () => attempt(action) }, "Try again");
  const close = el("button", { type: "button", className: "quiet", onclick: clear }, "Dismiss");
  const offers = error.passes || error.status === 401 ? [again, close] : [close];
  find("#notice").replaceChildren(el("p", {}, text), el("p", { className: "buttons" }, ...offers));
}
