/** The key of the service: asked for when it is needed, kept in this tab, never part of an address. */

import { find } from "./dom.js";

const NAME = "rankone-key";
let asking = null;

export const key = () => sessionStorage.getItem(NAME);

/** Asks for a key. True if one was given, false if the reader gave up. All that ask meanwhile wait for the same answer. */
export function askKey(why) {
  asking ??= ask(why).finally(() => (asking = null));
  return asking;
}

function ask(why) {
  const dialog = find("#ask-key");
  const input = find("input", dialog);
  find("#ask-key-why").textContent = why;
  dialog.returnValue = "cancel";
  dialog.showModal();
  input.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const given = input.value.trim();
      if (dialog.returnValue !== "use") return resolve(false);
      input.value = "";
      if (given) sessionStorage.setItem(NAME, given);
      else sessionStorage.removeItem(NAME);
      resolve(given !== "");
    }, { once: true });
  });
}
