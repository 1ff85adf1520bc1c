/** The most probable classes of an image, as bars. */

import { el } from "./dom.js";

/** `predictions` are [{label, probability}], best first. */
export function classBars(predictions) {
  const list = el("ol", { className: "classes", ariaLabel: "Most probable classes" });
  for (const { label, probability } of predictions) {
    const bar = el("span", { className: "bar" });
    bar.style.setProperty("--share", probability);
    const percent = probability < 0.0005 ? "<0.1 %" : `${(100 * probability).toFixed(1)} %`;
    list.append(el("li", {}, el("span", {}, label), el("span", {}, percent), bar));
  }
  return list;
}
