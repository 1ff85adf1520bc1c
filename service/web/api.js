/** Requests to the service, at addresses relative to the page. */

import { askKey, key } from "./key.js";

const UNREACHABLE = "The service cannot be reached. It may be down, or this device may be offline.";
const STATUSES = {
  429: "The service is busy.",
  503: "The service is not ready.",
  504: "The service took too long.",
};

/** What went wrong, in words for the reader. `inputs` are the images at fault: {index, reason}. */
export class Failure extends Error {
  constructor(detail, { status = 0, inputs = [], waitSeconds = null } = {}) {
    super(detail);
    Object.assign(this, { status, inputs, waitSeconds });
  }

  /** Whether the same request may succeed later. */
  get passes() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

let onTiming = () => {};

/** Calls `listener` with the Server-Timing of each answer to a query, as [part, milliseconds] pairs. */
export function watchTiming(listener) {
  onTiming = listener;
}

/** The JSON that the service answers. `json` is sent as JSON, `form` as it is. Throws a Failure. */
export async function call(path, { method, json, form, signal } = {}) {
  const headers = json === undefined ? {} : { "Content-Type": "application/json" };
  const body = json === undefined ? form : JSON.stringify(json);
  const answer = await send(path, { method: method ?? (body ? "POST" : "GET"), headers, body, signal });
  if (body) onTiming(timing(answer));
  return answer.json();
}

/** The picture at this address as a Blob. */
export async function picture(path) {
  return (await send(path, {})).blob();
}

async function send(path, options) {
  const used = key();
  const headers = { ...options.headers, ...(used ? { Authorization: `Bearer ${used}` } : {}) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(UNREACHABLE);
  }
  if (answer.ok) return answer;
  const failure = await failureOf(answer);
  const isReplaced = key() !== used; // by another request that was refused at the same time
  if (answer.status === 401 && (isReplaced || (await askKey(sentence(failure.message))))) return send(path, options);
  throw failure;
}

async function failureOf(answer) {
  const problem = await answer.json().catch(() => ({}));
  const detail = sentence(problem.detail ?? `The service answered ${answer.status} ${answer.statusText}`);
  const wait = Number(answer.headers.get("Retry-After")) || null;
  const words = [STATUSES[answer.status], detail, wait && `Wait ${wait} s.`].filter(Boolean).join(" ");
  return new Failure(words, { status: answer.status, inputs: problem.errors ?? [], waitSeconds: wait });
}

function sentence(text) {
  const ended = /[.!?]$/.test(text) ? text : `${text}.`;
  return ended[0].toUpperCase() + ended.slice(1);
}

function timing(answer) {
  const parts = (answer.headers.get("Server-Timing") ?? "").split(", ");
  return parts.map((part) => part.split(";dur=")).map(([name, value]) => [name, Number(value)]);
}

export const indexPath = (index) => `indexes/${encodeURIComponent(index)}`;
export const itemPath = (index, id) => `${indexPath(index)}/items/${encodeURIComponent(id)}`;
