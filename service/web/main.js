/** The page: its four views, and what they share. */

import { chooseImages, startAdd } from "./add.js";
import { showFirst, startBrowse } from "./browse.js";
import { find, keepTyped } from "./dom.js";
import { watchPaste } from "./images.js";
import { askKey } from "./key.js";
import { showMap, startMap } from "./map.js";
import { attempt } from "./notice.js";
import { searchImages, searchItem, startSearch } from "./search.js";
import { choose, refresh } from "./service.js";
import { watchStatus } from "./status.js";

function show(name) {
  for (const button of document.querySelectorAll("[data-view]")) {
    if (button.dataset.view === name) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
  }
  for (const view of document.querySelectorAll("main > section")) view.hidden = view.id !== name;
  if (name === "browse") attempt(showFirst);
  if (name === "map") attempt(() => showMap(searchWith));
}

function searchWith(item) {
  show("search");
  searchItem(item);
}

keepTyped();
watchStatus();
startSearch();
startAdd();
startBrowse();
startMap(searchWith);
watchPaste((files) => (find("#add").hidden ? (show("search"), searchImages(files)) : chooseImages(files)));
for (const button of document.querySelectorAll("[data-view]")) button.addEventListener("click", () => show(button.dataset.view));
find("#index").addEventListener("change", (event) => choose(event.target.value));
find("#key").addEventListener("click", async () => (await askKey("Another key can be given here.")) && attempt(refresh));
attempt(refresh);
