/** The view that shows what an index holds, page by page, and deletes items; and makes new indexes. */

import { call, indexPath, itemPath } from "./api.js";
import { card } from "./card.js";
import { agreed, el, find, say } from "./dom.js";
import { pairs } from "./duplicates.js";
import { fields } from "./fields.js";
import { attempt } from "./notice.js";
import { choose, events, refresh, refreshIndex, service } from "./service.js";

const view = find("#browse");
const place = find("#items");
const PAGE = 48;
let cursor = null;
let current = 0; // counts what was asked for, so that a late answer to an older request is dropped

export function startBrowse() {
  find("#browsing").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(showFirst);
  });
  find("#more").addEventListener("click", () => attempt(showMore));
  find("#duplicates").addEventListener("click", () => attempt(showPairs));
  find("#creating").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(create);
  });
  events.addEventListener("index", () => view.hidden || attempt(showFirst));
  events.addEventListener("change", drawLengths);
}

/** Shows the index from its first item on. */
export async function showFirst() {
  cursor = null;
  place.className = "cards";
  place.replaceChildren();
  await showMore();
}

async function showMore() {
  const mine = ++current;
  const filter = fields(find("#browsing").elements.filter.value, "Filter");
  const asked = new URLSearchParams({ limit: PAGE, ...(cursor ? { cursor } : {}), ...(filter ? { filter: JSON.stringify(filter) } : {}) });
  const page = await call(`${indexPath(service.index.name)}/items?${asked}`);
  if (mine !== current) return;
  cursor = page.next_cursor;
  find("#more").hidden = cursor === null;
  place.append(...page.items.map((item) => card(item, service.index, { actions: [{ label: "Delete", run: remove }] })));
  if (!place.children.length) place.append(el("p", { className: "note" }, `No items${filter ? " match the filter" : ` in ${service.index.name} yet`}.`));
  say(`${place.children.length} items are shown`);
}

async function remove(item, view) {
  const index = service.index.name;
  if (!(await agreed(`Delete ${item.id} from ${index}? This cannot be undone.`))) return;
  await attempt(async () => {
    await call(itemPath(index, item.id), { method: "DELETE" });
    const next = view.nextElementSibling ?? view.previousElementSibling;
    (view.closest(".pair") ?? view).remove();
    (next?.querySelector("button") ?? find("#main")).focus();
    say(`${item.id} was deleted`);
    await refreshIndex();
  });
}

async function showPairs() {
  const mine = ++current;
  find("#more").hidden = true;
  place.className = "pairs";
  place.replaceChildren();
  const actions = [{ label: "Delete", run: remove }];
  await pairs(() => mine === current, (one, other) => {
    place.append(el("section", { className: "pair", ariaLabel: `${one.id} and ${other.id}` },
      card(one, service.index, { actions }), card(other, service.index, { actions })));
  });
  if (mine === current && !place.children.length) place.append(el("p", { className: "note" }, "No two items are nearly the same."));
}

function drawLengths() {
  const lengths = [service.info.dim, ...(service.info.short?.lengths ?? [])].sort((one, other) => other - one);
  find("#creating").elements.dim.replaceChildren(
    ...lengths.map((length) => el("option", { value: length }, length.toLocaleString("en"))));
}

async function create() {
  const { name, dim } = find("#creating").elements;
  const length = Number(dim.value);
  await call(indexPath(name.value), { method: "PUT", json: length === service.info.dim ? {} : { dim: length } });
  await refresh();
  choose(name.value);
  say(`The index ${name.value} was created`);
}
