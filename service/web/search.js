/** The view that searches: with images, or with items as examples. */

import { call, Failure, indexPath } from "./api.js";
import { card, thumbnail } from "./card.js";
import { classBars } from "./classes.js";
import { el, find, progress, say } from "./dom.js";
import { hasEvidence, showClass, showMatch } from "./evidence.js";
import { fields } from "./fields.js";
import { formOf, preview, watchDrops } from "./images.js";
import { attempt } from "./notice.js";
import { inRounds } from "./rounds.js";
import { events, service } from "./service.js";
import { offerItems, withdrawItems } from "./start.js";

const view = find("#search");
const results = find("#results");
const NO_CLASSES = "This model has no classes; it only searches.";

let files = [];
let examples = { positive: [], negative: [] };
let running = new AbortController();

export function startSearch() {
  watchDrops(view, searchImages);
  find("#options").addEventListener("submit", (event) => {
    event.preventDefault();
    again();
  });
  events.addEventListener("index", () => {
    examples = { positive: [], negative: [] }; // they are of another index
    again();
  });
  events.addEventListener("change", () => isIdle() && again());
}

/** Searches with these images, each a query. */
export function searchImages(chosen) {
  files = chosen;
  examples = { positive: [], negative: [] };
  return again();
}

function searchItems(positive, negative) {
  files = [];
  examples = { positive, negative };
  find("#examples").scrollIntoView({ block: "nearest" });
  return again();
}

function again() {
  running.abort();
  running = new AbortController();
  drawExamples();
  if (isIdle()) {
    results.replaceChildren();
    return attempt(() => offerItems(searchItem));
  }
  withdrawItems();
  if (files.length) return startImages(files, running.signal);
  return attempt(() => byExamples(running.signal));
}

const isIdle = () => !files.length && !examples.positive.length;

function options() {
  const form = find("#options");
  const filter = fields(form.elements.filter.value, "Filter");
  return { k: Number(form.elements.k.value) || 12, ...(filter ? { filter } : {}) };
}

async function byExamples(signal) {
  const { positive, negative } = examples;
  const one = positive.length === 1 && !negative.length;
  const asked = one ? { ids: positive, exclude_self: true } : { positive, negative };
  const path = `${indexPath(service.index.name)}/search`;
  const answer = await call(path, { json: { ...asked, ...options() }, signal });
  results.replaceChildren(neighbours(answer.results[0]));
  say(`${answer.results[0].length} neighbours of ${positive.join(", ")}`);
}

/** A row for each image at once; what is known of it appears as the answers come. */
function startImages(chosen, signal) {
  const rows = new Map(chosen.map((file) => [file, row(file)]));
  results.replaceChildren(...rows.values());
  const left = new Set(chosen);
  return attempt(async () => {
    try {
      await byImages(rows, left, options(), signal);
    } finally {
      if (!signal.aborted) progress(find("#progress-search"), "");
    }
  });
}

async function byImages(rows, left, { k, filter }, signal) {
  const total = rows.size;
  const tell = () => total > 1 && progress(find("#progress-search"), `${total - left.size} of ${total} images`, total - left.size, total);
  tell();
  const asked = { k, filter: filter && JSON.stringify(filter) };
  await inRounds([...left], service.info.limits, {
    send: (group) => Promise.all([
      service.info.classes && call("classify?top_k=5", { form: formOf(group), signal }),
      call(`${indexPath(service.index.name)}/search`, { form: formOf(group, asked), signal }),
    ]),
    done: (group, [classes, found]) => {
      group.forEach((file, place) => {
        fill(rows.get(file), file, classes?.predictions[place], found.results[place]);
        left.delete(file);
      });
      tell();
    },
    refused: (file, reason) => {
      rows.get(file).querySelector(".found").replaceChildren(el("p", { className: "fault" }, `Not an image for this service: ${reason}`));
      left.delete(file);
      tell();
    },
  });
  say(`Results of ${total} ${total === 1 ? "image" : "images"}`);
}

function row(file) {
  const name = file.name || "pasted image";
  return el("section", { className: "row", ariaLabel: name },
    el("div", { className: "query" }, el("div", { className: "frame" }, preview(file)), el("p", { className: "id" }, name)),
    el("div", { className: "found", ariaBusy: "true" }, el("p", { className: "note" }, "Searching …")));
}

function fill(view, file, predictions, hits) {
  const where = hasEvidence() ? (label) => showClass(file, label) : undefined;
  const note = service.info.classes ? classBars(predictions, where) : el("p", { className: "note" }, NO_CLASSES);
  view.querySelector(".query").append(note);
  const found = view.querySelector(".found");
  found.ariaBusy = "false";
  found.replaceChildren(neighbours(hits, file));
}

/** The cards of what was found; `file` is the image that was searched with, if it was one. */
function neighbours(hits, file) {
  if (!hits.length) return el("p", { className: "note" }, emptyWords());
  const list = el("div", { className: "cards" });
  list.append(...hits.map((hit) => card(hit, service.index, { open: { label: "Search with this", run: searchItem }, actions: actions(hit, file) })));
  return list;
}

function emptyWords() {
  if (service.index.count === 0) return `The index ${service.index.name} is empty. Add images to it under “Add”.`;
  return "Nothing matches. Is the filter too narrow?";
}

/** What can be done with a neighbour; an action that shows more on the card gets the card as its second argument. */
function actions(hit, file) {
  const { positive, negative } = examples;
  const more = { label: "More like this", run: ({ id }) => searchItems([...positive.filter((one) => one !== id), id], negative.filter((one) => one !== id)) };
  const less = { label: "Less like this", run: ({ id }) => searchItems(positive, [...negative, id]) };
  const where = file && hasEvidence() ? [{ label: "Where it lies", run: ({ id }) => showMatch(file, id) }] : [];
  return positive.length && !positive.includes(hit.id) ? [more, less] : [more, ...where];
}

/** Searches with an item of the index. */
export const searchItem = ({ id }) => searchItems([id], []);


function drawExamples() {
  const { positive, negative } = examples;
  const place = find("#examples");
  place.replaceChildren();
  if (!positive.length) return;
  const remove = (id) => {
    const rest = positive.filter((one) => one !== id);
    return searchItems(rest, rest.length ? negative.filter((one) => one !== id) : []);
  };
  const chip = (id) => el("button", { type: "button", className: "chip", ariaLabel: `Remove ${id}`, title: `Remove ${id}`, onclick: () => remove(id) },
    thumbnail({ id }, service.index, ""), el("span", {}, id), el("span", { ariaHidden: "true" }, "×"));
  place.append(el("p", {}, el("b", {}, "Like"), ...positive.map(chip)));
  if (negative.length) place.append(el("p", {}, el("b", {}, "Unlike"), ...negative.map(chip)));
}
