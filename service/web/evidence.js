/** A dialog that shows where in an image the evidence for a class, or for a match, lies. */

import { call, itemPath, picture } from "./api.js";
import { el, find } from "./dom.js";
import { formOf } from "./images.js";
import { service } from "./service.js";

const PLACES = [["upper left", "top", "upper right"], ["left", "centre", "right"], ["lower left", "bottom", "lower right"]];

/** Whether the model can say where evidence lies. */
export const hasEvidence = () => Boolean(service.info.evidence);

/** Shows where in the image `file` the evidence for the class `label` lies. */
export function showClass(file, label) {
  return show(`Where the evidence for ${label} lies`, (signal) => explained({ target: "class", label }, [file], signal));
}

/** Shows both sides of a match: the image, and the thumbnail of the item where it has one. */
export function showMatch(file, id) {
  const { name, thumbnails } = service.index;
  const asked = { target: "item", index: name, id };
  return show(`Where the match with ${id} lies`, async (signal) => {
    const small = thumbnails && (await picture(`${itemPath(name, id)}/thumbnail`).catch(() => null));
    try {
      return await explained(asked, small ? [file, small] : [file], signal);
    } catch (error) {
      if (!small || error.status !== 422) throw error;
      return explained(asked, [file], signal); // a small picture may be too unlike the one that was added
    }
  });
}

async function explained(asked, images, signal) {
  const query = new URLSearchParams({ ...asked, format: "json", overlay: "true" });
  return (await call(`explain?${query}`, { form: formOf(images), signal })).explanations;
}

async function show(title, ask) {
  const dialog = find("#evidence");
  const maps = find("#evidence-maps");
  const running = new AbortController();
  find("#evidence-title").textContent = title;
  maps.replaceChildren(el("p", { className: "note" }, "Looking …"));
  dialog.addEventListener("close", () => running.abort(), { once: true });
  dialog.showModal();
  try {
    const found = await ask(running.signal);
    if (!running.signal.aborted) maps.replaceChildren(...found.map(figure));
  } catch (error) {
    if (!running.signal.aborted) maps.replaceChildren(el("p", { className: "fault" }, error.message));
  }
}

function figure(one) {
  const bytes = Uint8Array.from(atob(one.overlay), (letter) => letter.charCodeAt(0));
  const address = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
  const words = `${one.side === "item" ? "The item, by its thumbnail" : "Your image"}: most speaks for it at the ${strongest(one.shares)}.`;
  const image = el("img", { alt: words, src: address });
  image.onload = () => URL.revokeObjectURL(address);
  const sum = one.shares.flat().reduce((total, share) => total + share, 0);
  return el("figure", {}, image, el("figcaption", {}, `${words} The picture makes ${sum.toFixed(3)} of the score ${one.score.toFixed(3)}.`));
}

/** The ninth of the picture with the largest sum of shares. */
function strongest(shares) {
  const sums = new Map();
  shares.forEach((row, y) => row.forEach((share, x) => {
    const place = PLACES[Math.floor((3 * y) / shares.length)][Math.floor((3 * x) / row.length)];
    sums.set(place, (sums.get(place) ?? 0) + share);
  }));
  return [...sums].reduce((best, one) => (one[1] > best[1] ? one : best))[0];
}
