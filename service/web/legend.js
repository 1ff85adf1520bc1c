/** Colours for the values of a metadata field, and the list that says which is which. */

import { el } from "./dom.js";
import { shown } from "./fields.js";

// mid-tones that both themes show
const COLOURS = ["#3b7dd8", "#d9622b", "#2a9d6f", "#c2569b", "#b8860b", "#7a62d3", "#cf4446", "#3596a8", "#7f8c2d", "#a0673f"];
const OTHER = "#8a9494";
const [COLD, WARM] = [[59, 125, 216], [217, 98, 43]];

/** A colour for each of these values, and the list. Numbers of which there are many get a scale, everything else a colour each. */
export function coloured(values) {
  if (!values) return { colours: null, list: null };
  const given = values.filter((value) => value !== null);
  const kinds = new Set(given);
  return kinds.size > COLOURS.length && given.every((value) => typeof value === "number") ? byScale(values, given) : byKind(values, kinds);
}

/** The colour of every point where no field is chosen. */
export const plain = (count) => Array(count).fill(COLOURS[0]);

function byScale(values, given) {
  const [low, high] = given.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], [Infinity, -Infinity]);
  const colour = (value) => {
    const share = (value - low) / (high - low || 1);
    return `rgb(${COLD.map((part, place) => Math.round(part + share * (WARM[place] - part))).join(" ")})`;
  };
  const rows = [low, (low + high) / 2, high].map((value) => entry(colour(value), String(Number(value.toPrecision(4)))));
  if (given.length < values.length) rows.push(entry(OTHER, `none: ${values.length - given.length}`));
  return { colours: values.map((value) => (value === null ? OTHER : colour(value))), list: list(rows) };
}

function byKind(values, kinds) {
  const counts = new Map([...kinds].map((kind) => [kind, 0]));
  for (const value of values) if (value !== null) counts.set(value, counts.get(value) + 1);
  const first = [...counts].sort((one, other) => other[1] - one[1]).slice(0, COLOURS.length);
  const colours = new Map(first.map(([value], place) => [value, COLOURS[place]]));
  const rows = first.map(([value, count]) => entry(colours.get(value), `${shown(value)}: ${count.toLocaleString("en")}`));
  const left = values.length - first.reduce((sum, [, count]) => sum + count, 0);
  if (left) rows.push(entry(OTHER, `others and none: ${left.toLocaleString("en")}`));
  return { colours: values.map((value) => colours.get(value) ?? OTHER), list: list(rows) };
}

function entry(colour, text) {
  const swatch = el("span", { className: "swatch" });
  swatch.style.setProperty("--swatch", colour);
  return el("li", {}, swatch, text);
}

const list = (rows) => el("ul", { className: "legend", ariaLabel: "Colours" }, ...rows);
