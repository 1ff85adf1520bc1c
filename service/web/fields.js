/** Metadata as people type it: `year=1969 label="red rose"`, or JSON. */

import { Failure } from "./api.js";

const PAIR = /\s*([^\s=<>]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,]+)\s*,?/y;

/** The fields of a text, null if it is empty. Numbers, true, false and null are values of their types. Throws a Failure. */
export function fields(text, what) {
  const typed = text.trim();
  if (!typed) return null;
  if (typed.startsWith("{")) return parsed(typed, what);
  const found = {};
  PAIR.lastIndex = 0;
  while (PAIR.lastIndex < typed.length) {
    const at = PAIR.lastIndex;
    const pair = PAIR.exec(typed);
    if (!pair) throw new Failure(`${what}: “${typed.slice(at).trim()}” is not understood. Write field=value, or JSON.`, { status: 422 });
    found[pair[1]] = value(pair[2]);
  }
  return found;
}

function parsed(text, what) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Failure(`${what}: this is not JSON: ${error.message}`, { status: 422 });
  }
}

function value(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** A value as a reader sees it. */
export const shown = (given) => (typeof given === "string" ? given : JSON.stringify(given));
