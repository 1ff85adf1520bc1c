/** The card of an item: its thumbnail, score, id and metadata, and what can be done with it. */

import { itemPath, picture } from "./api.js";
import { el } from "./dom.js";
import { shown } from "./fields.js";
import { key } from "./key.js";

/**
 * A card for `item` ({id, score?, metadata}) of `index` ({name, thumbnails}).
 *
 * `open` ({label, run}) is what a click on the picture does. `actions` ([{label, run, className?, disabled?}]) become buttons
 * under it; `run` gets the item and the card.
 */
export function card(item, index, { open, actions = [] } = {}) {
  const view = el("article", { className: "card", ariaLabel: item.id });
  const image = thumbnail(item, index);
  const label = `${open?.label}: ${item.id}`;
  const top = open ? el("button", { type: "button", className: "picture", title: label, ariaLabel: label }, image) : image;
  if (open) top.addEventListener("click", () => open.run(item, view));
  const buttons = actions.map(({ label: text, run, ...rest }) =>
    el("button", { type: "button", className: "quiet", onclick: () => run(item, view), ariaLabel: `${text}: ${item.id}`, ...rest }, text));
  view.append(
    el("div", { className: "frame" }, top),
    ...(item.score === undefined ? [] : [score(item.score)]),
    el("p", { className: "id", title: item.id }, item.id),
    metadata(item.metadata),
    el("p", { className: "actions" }, ...buttons),
  );
  return view;
}

/** A cosine as a number and a bar. */
function score(value) {
  const bar = el("span", { className: "bar" });
  bar.style.setProperty("--share", Math.max(0, value));
  return el("p", { className: "score", title: "Cosine similarity" }, el("span", {}, value.toFixed(3)), bar);
}

function metadata(given) {
  const list = el("dl", { className: "metadata" });
  for (const [name, value] of Object.entries(given ?? {})) list.append(el("div", {}, el("dt", {}, name), el("dd", {}, shown(value))));
  return list;
}

/** The thumbnail of an item, or its id in a box where it has none. `alt` is empty where the id stands beside it. */
export function thumbnail(item, index, alt = item.id) {
  const image = el("img", { alt, loading: "lazy", decoding: "async" });
  if (!index.thumbnails) return missing(item);
  image.onerror = () => image.replaceWith(missing(item));
  const address = `${itemPath(index.name, item.id)}/thumbnail`;
  if (key()) withKey(image, address);
  else image.src = address;
  return image;
}

const missing = (item) => el("span", { className: "missing" }, item.id);

/** An <img> sends no key, so the picture is fetched when it comes near the screen. */
function withKey(image, address) {
  const watcher = new IntersectionObserver(async (entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watcher.disconnect();
    try {
      const local = URL.createObjectURL(await picture(address));
      image.addEventListener("load", () => URL.revokeObjectURL(local), { once: true });
      image.src = local;
    } catch {
      image.onerror();
    }
  }, { rootMargin: "300px" });
  watcher.observe(image);
}
