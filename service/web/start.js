/** Items of the index to begin with, for a reader who has no image at hand. */

import { call, indexPath } from "./api.js";
import { card } from "./card.js";
import { el, find } from "./dom.js";
import { service } from "./service.js";

const READ = 500;
const SHOWN = 12;

/** Shows items from all over the first 500 of the index; a click calls `search(item)`. */
export async function offerItems(search) {
  const { index } = service;
  const { items } = await call(`${indexPath(index.name)}/items?limit=${READ}`);
  if (index.name !== service.index.name) return;
  const every = Math.max(1, items.length / SHOWN);
  const some = items.filter((_, place) => Math.floor(place / every) !== Math.floor((place - 1) / every)).slice(0, SHOWN);
  const cards = some.map((item) => card(item, index, { open: { label: "Search with this", run: search } }));
  const title = items.length ? `Or click an item of ${index.name} to search with it` : `The index ${index.name} is empty: add images to search in them`;
  find("#start").replaceChildren(el("h2", {}, title), el("div", { className: "cards" }, ...cards));
}

export function withdrawItems() {
  find("#start").replaceChildren();
}
