/** The line at the foot of the page: which model answers, by what, from which index, and where the time went. */

import { watchTiming } from "./api.js";
import { el, find } from "./dom.js";
import { contents, events, service } from "./service.js";

const PARTS = { decode: "decoding", queue: "waiting", engine: "network", encode: "writing" };
let last = "";

export function watchStatus() {
  events.addEventListener("change", draw);
  watchTiming((parts) => {
    const total = parts.find(([name]) => name === "total");
    const rest = parts.filter(([name, ms]) => name !== "total" && ms >= 1).map(([name, ms]) => `${PARTS[name] ?? name} ${ms.toFixed(0)}`);
    last = total ? `${total[1].toFixed(0)} ms${rest.length ? ` (${rest.join(", ")})` : ""}` : "";
    draw();
  });
}

function draw() {
  const { info, index } = service;
  if (!info) return;
  const lines = {
    Model: `${info.model} ${info.version}`,
    Fingerprint: info.fingerprint.slice(0, 12),
    Engine: `${info.engine} on ${info.provider.replace("ExecutionProvider", "")}`,
    Index: `${index.name}: ${contents(index)}`,
    Vectors: `${(index.dim ?? info.dim).toLocaleString("en")} numbers${index.kind ? `, ${index.kind} search` : ""}`,
    "Last answer": last,
  };
  const rows = Object.entries(lines).filter(([, text]) => text);
  find("#status").replaceChildren(...rows.map(([name, text]) => el("div", {}, el("dt", {}, name), el("dd", {}, text))));
}
