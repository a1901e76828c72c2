// Small things that every part of the page uses.

/** What the pictures that the bundle holds were for: validation, unless the run had none. */
export const kept = { kind: "validation", learned: false };

export const byId = (id) => document.getElementById(id);

export function put(id, text) { // changes nothing that is the same, lest a reader be told again
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

/** Append an element; texts are texts, whatever they hold. */
export function add(parent, name, attributes = {}, text = "") {
  const vector = parent instanceof SVGElement;
  const element = vector
    ? document.createElementNS("http://www.w3.org/2000/svg", name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  parent.append(element);
  return element;
}

/** 0.98765 -> "98.8 %"; never 0 or 100 for what is not. */
export function percent(share) {
  if (share > 0 && share < 0.0005) return "<\u00a00.1\u00a0%";
  if (share < 1 && share >= 0.9995) return ">\u00a099.9\u00a0%";
  return `${(100 * share).toFixed(1)}\u00a0%`;
}

/** A name of `most` letters at most, cut in its middle: names differ at both ends. */
export function short(name, most) {
  if (name.length <= most) return name;
  const end = Math.floor((most - 1) / 2);
  return `${name.slice(0, most - 1 - end)}…${name.slice(-end)}`;
}

export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

export const count = (number, one) => `${number.toLocaleString("en")} ${one}${number === 1 ? "" : "s"}`;

/** ["a", "b", "c"] -> "a, b and c". */
export const listed = (names) => names.length < 2
  ? names.join("")
  : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;

/** A name as it stands in a list: in double quotes if it holds a comma. */
export const quoted = (name) => name.includes(",") ? `"${name}"` : name;

export function problem(text) {
  byId("problem").hidden = !text;
  put("problem", text);
}

let telling = 0;

/** Tell a screen reader, once things have come to rest. */
export function tell(text) {
  clearTimeout(telling);
  telling = setTimeout(() => put("told", text), 350);
}
