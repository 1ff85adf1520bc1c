/** Items of an index that are nearly the same. */

import { call, indexPath } from "./api.js";
import { find, progress } from "./dom.js";
import { service } from "./service.js";

const LEAST = 0.97;
const NEAREST = 5;

/** Calls `found(item, item with score)` for each pair of items whose cosine is at least 0.97, while `goesOn()`. */
export async function pairs(goesOn, found) {
  const path = indexPath(service.index.name);
  const total = service.index.count;
  const bar = find("#progress-browse");
  const seen = new Set();
  let cursor = null;
  let done = 0;
  try {
    do {
      const asked = new URLSearchParams({ limit: service.info.limits.max_images, ...(cursor ? { cursor } : {}) });
      const page = await call(`${path}/items?${asked}`);
      if (!page.items.length || !goesOn()) return;
      const ids = page.items.map(({ id }) => id);
      const answer = await call(`${path}/search`, { json: { ids, exclude_self: true, k: NEAREST, min_score: LEAST } });
      if (!goesOn()) return;
      page.items.forEach((item, place) => {
        for (const hit of answer.results[place].filter(({ id }) => !seen.has(id))) found(item, hit);
        seen.add(item.id);
      });
      done += page.items.length;
      progress(bar, `${done} of ${total} compared`, done, total);
      cursor = page.next_cursor;
    } while (cursor !== null);
  } finally {
    if (goesOn()) progress(bar, "");
  }
}
