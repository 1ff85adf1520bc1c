/** Images that the reader drops, pastes, chooses or photographs. They are sent as they are. */

import { find } from "./dom.js";

/** Calls `take` with the images that come into a view by its drop zone and its buttons. */
export function watchDrops(view, take) {
  const zone = find("[data-drop]", view);
  for (const [button, input] of [["[data-pick]", "[data-files]"], ["[data-photo]", "[data-camera]"]]) {
    const files = find(input, view);
    find(button, view).addEventListener("click", () => files.click());
    files.addEventListener("change", () => {
      give([...files.files], take);
      files.value = ""; // so that the same file can be chosen again
    });
  }
  view.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  view.addEventListener("dragleave", (event) => {
    if (!view.contains(event.relatedTarget)) zone.classList.remove("over");
  });
  view.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    give([...event.dataTransfer.files], take);
  });
}

/** Calls `take` with pasted images; pasted text goes where it is typed. */
export function watchPaste(take) {
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (files.length) event.preventDefault();
    give(files, take);
  });
  for (const kind of ["dragover", "drop"]) {
    document.addEventListener(kind, (event) => event.preventDefault()); // or the browser leaves the page for the file
  }
}

function give(files, take) {
  if (files.length) take(files);
}

/** An <img> of a local file. Where the browser cannot show the format, its name stands there instead. */
export function preview(file) {
  const image = new Image();
  const address = URL.createObjectURL(file);
  image.alt = file.name || "pasted image";
  image.onload = image.onerror = () => URL.revokeObjectURL(address);
  image.src = address;
  return image;
}

/** The files in groups that fit into one request each; few enough for results to appear early. */
export function batches(files, limits, most = 8) {
  const groups = [];
  let size = Infinity;
  for (const file of files) {
    const last = groups.at(-1);
    size += file.size + 500;
    if (!last || last.length >= Math.min(most, limits.max_images) || size > limits.max_request_bytes - 10_000) {
      groups.push([file]);
      size = file.size;
    } else {
      last.push(file);
    }
  }
  return groups;
}

/** A form with these images and fields. */
export function formOf(files, extra = {}) {
  const form = new FormData();
  for (const file of files) form.append("images", file, file.name || "image");
  for (const [name, value] of Object.entries(extra)) if (value != null) form.append(name, value);
  return form;
}
