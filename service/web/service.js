/** What the page knows of the service: its model and limits, its indexes, and the index that is chosen. */

import { call, indexPath } from "./api.js";
import { el, find } from "./dom.js";

export const service = { info: null, indexes: [], index: null };

/** Emits `index` when another index is chosen, and `change` when its contents or the service may have changed. */
export const events = new EventTarget();

/** Asks for everything anew. Throws a Failure. */
export async function refresh() {
  const [info, { indexes }] = await Promise.all([call("info"), call("indexes")]);
  const name = service.index?.name ?? sessionStorage.getItem("index") ?? "default";
  service.info = info;
  service.indexes = indexes;
  service.index = indexes.find((index) => index.name === name) ?? indexes[0];
  listIndexes();
  events.dispatchEvent(new Event("change"));
}

/** Asks for the chosen index anew, after items were added or deleted. */
export async function refreshIndex() {
  const now = await call(indexPath(service.index.name));
  service.indexes = service.indexes.map((index) => (index.name === now.name ? now : index));
  if (service.index.name === now.name) service.index = now;
  listIndexes();
  events.dispatchEvent(new Event("change"));
}

export function choose(name) {
  service.index = service.indexes.find((index) => index.name === name);
  sessionStorage.setItem("index", name);
  find("#index").value = name;
  events.dispatchEvent(new Event("change"));
  events.dispatchEvent(new Event("index"));
}

function listIndexes() {
  find("#index").replaceChildren(...service.indexes.map((index) => el("option", { value: index.name }, `${index.name}: ${contents(index)}`)));
  find("#index").value = service.index.name;
}

/** How much an index holds, and the length of its vectors if they are short ones. */
export function contents({ count, dim }) {
  if (count === null) return "cannot be used";
  const items = `${count.toLocaleString("en")} ${count === 1 ? "item" : "items"}`;
  return dim === service.info.dim ? items : `${items} of ${dim} numbers`;
}
