/** The view that adds images to the chosen index. */

import { call, indexPath } from "./api.js";
import { el, find, progress, say } from "./dom.js";
import { fields } from "./fields.js";
import { formOf, preview, watchDrops } from "./images.js";
import { attempt } from "./notice.js";
import { inRounds } from "./rounds.js";
import { events, refreshIndex, service } from "./service.js";

const view = find("#add");
const form = find("#adding");
const button = find("button.strong", form);
const chosen = new Map(); // from each file to its place in the list
let isAdding = false;

export function startAdd() {
  watchDrops(view, chooseImages);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!isAdding) attempt(add);
  });
  events.addEventListener("change", draw);
}

/** Puts images on the list of those to add. */
export function chooseImages(files) {
  for (const file of files) {
    const name = file.name || "pasted image";
    const remove = el("button", { type: "button", className: "quiet", ariaLabel: `Do not add ${name}`, onclick: () => drop(file) }, "×");
    const place = el("li", {}, preview(file), el("span", {}, name), remove);
    chosen.set(file, place);
    find("#chosen").append(place);
  }
  find("#added").textContent = "";
  draw();
}

function drop(file) {
  chosen.get(file).remove();
  chosen.delete(file);
  draw();
}

function draw() {
  const name = service.index?.name ?? "";
  find("[data-index-name]", view).textContent = name;
  button.disabled = !chosen.size || isAdding;
  button.textContent = chosen.size ? `Add ${chosen.size} ${chosen.size === 1 ? "image" : "images"} to ${name}` : "Add";
}

async function add() {
  const { label, metadata, names } = form.elements;
  const common = { ...(label.value.trim() ? { label: label.value.trim() } : {}), ...fields(metadata.value, "Metadata") };
  const target = service.index.name;
  const files = [...chosen.keys()].filter((file) => !chosen.get(file).classList.contains("refused"));
  const bar = find("#progress-add");
  let added = 0;
  isAdding = true;
  draw();
  try {
    progress(bar, `0 of ${files.length} added`, 0, files.length);
    await inRounds(files, service.info.limits, {
      send: (group) => call(`${indexPath(target)}/items`, { form: formOf(group, { items: JSON.stringify(group.map((file) => entry(file, common, names.checked))) }) }),
      done: (group) => {
        group.forEach(drop);
        added += group.length;
        progress(bar, `${added} of ${files.length} added`, added, files.length);
      },
      refused: (file, reason) => {
        chosen.get(file).classList.add("refused");
        chosen.get(file).append(el("span", { className: "fault" }, reason));
      },
    });
  } finally {
    isAdding = false;
    progress(bar, "");
    find("#added").textContent = `${added} of ${files.length} images are in ${target}.`;
    say(find("#added").textContent);
    draw();
  }
  await refreshIndex();
}

function entry(file, common, byName) {
  const metadata = file.name ? { ...common, file: file.name } : common;
  return byName && file.name ? { id: file.name, metadata } : { metadata };
}
