/** The view that shows an index as a map: a point for each item, near those that resemble it. */

import { call, indexPath, itemPath } from "./api.js";
import { card } from "./card.js";
import { el, find, say } from "./dom.js";
import { watchGestures } from "./gestures.js";
import { coloured, plain } from "./legend.js";
import { attempt } from "./notice.js";
import { Plane } from "./plane.js";
import { events, service } from "./service.js";

const view = find("#map");
const canvas = find("canvas", view);
const field = find("#colour");
const STEP = 1.5;
const ARROWS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
const FIRST = "label"; // what the page itself calls an item's class
const WAIT = 120; // ms that a point is looked at before its item is asked for

let map = null; // what the service answered
let plane = null;
let colours = [];
let marked = null; // the point that is looked at
let pinned = false; // it was clicked, or reached by keys: hovering does not change it
let asking = new AbortController();
let drawing = 0;

/** Shows the map whenever its view is shown; `search(item)` is called for an item that the reader wants to search with. */
export function startMap(search) {
  for (const [name, run] of [["in", () => zoom(STEP)], ["out", () => zoom(1 / STEP)], ["all", () => zoom(0)]]) {
    find(`[data-zoom=${name}]`, view).addEventListener("click", run);
  }
  field.addEventListener("change", () => attempt(recolour));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(STEP ** (event.deltaY < 0 ? 0.5 : -0.5), { x: event.offsetX, y: event.offsetY });
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => key(event, search));
  watchPointer(search);
  new ResizeObserver(redraw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  events.addEventListener("index", () => view.hidden || attempt(() => showMap(search)));
}

/** Asks for the map of the chosen index and shows it. */
export async function showMap(search) {
  const index = service.index.name;
  map = plane = null;
  mark(null, search);
  find("#map-note").textContent = "";
  find("#drawn").hidden = true;
  try {
    const found = await call(`${indexPath(index)}/map?field=${FIRST}`);
    if (index !== service.index.name) return;
    map = found;
  } catch (error) {
    if (error.status !== 404) throw error;
    find("#map-note").textContent = error.message;
    return;
  }
  find("#drawn").hidden = false;
  plane = new Plane(canvas, map.x, map.y);
  field.replaceChildren(el("option", { value: "" }, "nothing"), ...map.fields.map((name) => el("option", { value: name }, name)));
  field.value = map.fields.includes(FIRST) ? FIRST : map.fields[0] ?? "";
  const shares = map.shares.map((share) => `${(100 * share).toFixed(0)} %`).join(" and ");
  const drawn = map.ids.length < map.count ? `${map.ids.length.toLocaleString("en")} of ${map.count.toLocaleString("en")} items, drawn at random` : `${map.count.toLocaleString("en")} items`;
  const older = map.is_current ? "" : ` The index has changed since: “rankone index map FOLDER ${index}” makes a new map.`;
  find("#map-note").textContent = `${drawn}. The axes hold ${shares} of the differences between the vectors.${older}`;
  if (field.value === FIRST) paint(map.values);
  else await recolour();
}

async function recolour() {
  const [asked, current] = [field.value, map];
  const answer = asked ? await call(`${indexPath(service.index.name)}/map?${new URLSearchParams({ field: asked })}`) : null;
  if (map === current && field.value === asked) paint(answer && answer.values);
}

function paint(values) {
  const made = coloured(values);
  colours = made.colours ?? plain(map.ids.length);
  find("#legend").replaceChildren(...(made.list ? [made.list] : []));
  redraw();
}

function redraw() {
  cancelAnimationFrame(drawing);
  drawing = requestAnimationFrame(() => {
    if (!plane || !canvas.clientWidth) return;
    canvas.classList.toggle("zoomed", plane.zoom > 1); // until then, a finger scrolls the page
    plane.draw(colours, marked, getComputedStyle(canvas).color);
  });
}

function zoom(factor, at) {
  if (!plane) return;
  plane.zoomBy(factor, at);
  redraw();
}

/** Looks at a point: a ring round it, and its item beside the map. */
function mark(point, search) {
  if (point === marked && point !== null) return;
  marked = point;
  asking.abort();
  asking = new AbortController();
  redraw();
  if (point === null) find("#looked-at").replaceChildren();
  else attempt(() => show(map.ids[point], search, asking.signal));
}

async function show(id, search, signal) {
  const index = service.index;
  await new Promise((resolve) => setTimeout(resolve, WAIT));
  if (signal.aborted) return;
  let item;
  try {
    item = await call(itemPath(index.name, id), { signal });
  } catch (error) {
    if (error.status !== 404) throw error;
    find("#looked-at").replaceChildren(el("p", { className: "note" }, `${id} was deleted since the map was made.`));
    return;
  }
  const open = { label: "Search with this", run: search };
  find("#looked-at").replaceChildren(card(item, index, { open, actions: [open] }));
  const label = item.metadata.label;
  if (pinned) say(label === undefined ? id : `${id}, ${label}`);
}

function key(event, search) {
  if (!plane || event.ctrlKey || event.metaKey || event.altKey) return;
  const arrow = ARROWS[event.key];
  if (arrow) {
    pinned = true;
    const [x, y] = arrow;
    const next = marked === null ? plane.best(Math.hypot, { x: canvas.clientWidth / 2, y: canvas.clientHeight / 2 }) : plane.towards(marked, { x, y });
    plane.reveal(next);
    mark(next, search);
  } else if (event.key === "Enter" && marked !== null) search({ id: map.ids[marked] });
  else if (event.key === "Escape") unpin(search);
  else if (event.key === "+") zoom(STEP);
  else if (event.key === "-") zoom(1 / STEP);
  else if (event.key === "0") zoom(0);
  else return;
  event.preventDefault();
}

function unpin(search) {
  pinned = false;
  mark(null, search);
}

/** Hovering looks at a point, a click or a tap stays at it, dragging moves the map, two fingers zoom it. */
function watchPointer(search) {
  watchGestures(canvas, {
    hover(at) {
      const near = pinned ? null : plane?.nearest(at) ?? null;
      if (near !== null) mark(near, search); // beside the points the last one stays, so that its card can be reached
    },
    tap(at) {
      const point = plane?.nearest(at) ?? null;
      pinned = point !== null;
      mark(point, search);
    },
    drag(dx, dy) {
      plane?.move(dx, dy);
      redraw();
    },
    pinch: zoom,
  });
}
