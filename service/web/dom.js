/** Makes elements. */

/** An element with these properties and children; strings become text, so nothing from the service is read as HTML. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

export const find = (selector, root = document) => root.querySelector(selector);

/** Tells a screen reader what has changed. */
export function say(text) {
  find("#live").textContent = text;
}

/** Shows how far something is, or hides the bar if nothing is said. */
export function progress(place, text, done, total) {
  place.hidden = !text;
  place.replaceChildren();
  if (text) place.append(el("progress", { value: done, max: total, ariaLabel: text }), el("span", {}, text));
}

/** Whether the reader agrees to what the question says. */
export function agreed(question) {
  const dialog = find("#confirm");
  find("#confirm-text").textContent = question;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

/** Text that somebody typed survives a reload of this tab. */
export function keepTyped() {
  for (const input of document.querySelectorAll("[data-keep]")) {
    const name = `typed:${input.form.id}:${input.name}`;
    input.value = sessionStorage.getItem(name) ?? input.value;
    input.addEventListener("input", () => sessionStorage.setItem(name, input.value));
  }
}
