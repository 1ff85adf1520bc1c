/** The most probable classes of an image, as bars. */

import { el } from "./dom.js";

/** `predictions` are [{label, probability}], best first. With `where`, each has a button that calls it with the label. */
export function classBars(predictions, where) {
  const list = el("ol", { className: "classes", ariaLabel: "Most probable classes" });
  for (const { label, probability } of predictions) {
    const bar = el("span", { className: "bar" });
    bar.style.setProperty("--share", probability);
    const percent = probability < 0.0005 ? "<0.1 %" : `${(100 * probability).toFixed(1)} %`;
    const button = where && el("button", { type: "button", className: "quiet", ariaLabel: `Where it lies: ${label}`, onclick: () => where(label) }, "Where it lies");
    list.append(el("li", {}, el("span", {}, label), el("span", {}, percent), bar, button));
  }
  return list;
}
