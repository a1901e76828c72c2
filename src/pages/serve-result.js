// What the model says of a picture: the class, bars, words, and the nearest validation pictures.

import { UNSURE } from "./serve-decide.js";
import { add, byId, percent, put } from "./serve-page.js";

const MOST = 8; // bars

/** Probabilities as bars; a mark on each keeps the value without the square. */
export class Bars {
  constructor(classes) {
    this.classes = classes;
    this.rows = new Map();
  }

  /** Take the classes of a new picture: all in their order, or the most probable ones first. */
  take(shares) {
    const order = [...this.classes.keys()];
    if (order.length > 3) order.sort((a, b) => shares[b] - shares[a]);
    const chosen = order.slice(0, MOST);
    this.rows.clear();
    byId("bars").replaceChildren();
    for (const k of chosen) this.rows.set(k, this.#row(this.classes[k]));
    const left = order.length - chosen.length;
    byId("more").hidden = !left;
    put("more", left ? `and ${left} more` : "");
  }

  #row(name) {
    const row = add(byId("bars"), "li");
    add(row, "span", { class: "class" }, name);
    const text = add(row, "span", { class: "share" });
    const track = add(row, "span", { class: "track", "aria-hidden": "true" });
    return { row, text, fill: add(track, "span", { class: "fill" }), ghost: add(track, "span", { class: "ghost" }) };
  }

  /** @param before Probabilities without the square; null where there is none. */
  draw(shares, named, before = null) {
    for (const [k, { row, text, fill, ghost }] of this.rows) {
      row.classList.toggle("named", k === named);
      text.textContent = percent(shares[k]);
      fill.style.width = `${100 * shares[k]}%`;
      ghost.hidden = !before;
      if (before) ghost.style.left = `${100 * before[k]}%`;
    }
  }
}

/** Fill the words about a prediction. */
export function showDecision(decision, shares) {
  const named = decision.of(shares), heading = byId("decision");
  const top = decision.likely(shares);
  const text = named === UNSURE ? `perhaps ${decision.classes[top]}, ${percent(shares[top])}` : percent(shares[named]);
  heading.replaceChildren(document.createTextNode(`${decision.name(named)} `));
  heading.classList.toggle("unsure", named === UNSURE);
  add(heading, "span", {}, text);
  put("reason", decision.reason(shares));
  return named;
}

/** Say how far the class of the whole picture has moved under the square. */
export function showMoved(decision, before, after) {
  if (!after) return put("moved", "");
  const told = decision.of(before), k = decision.likely(before);
  const now = decision.of(after);
  const turned = now === told ? "" : ` It is now ${now === UNSURE ? "unsure" : `named ${decision.classes[now]}`}.`;
  const same = percent(after[k]) === percent(before[k]);
  put("moved", same
    ? `With the square ${decision.classes[k]} stays at ${percent(before[k])}.${turned}`
    : `With the square ${decision.classes[k]} ${after[k] < before[k] ? "falls" : "rises"} from ${percent(before[k])} to ${percent(after[k])}.${turned}`);
}

/** Say what drove the decision, or that no part did alone. */
export function showWhy(found, classes, probabilities) {
  const name = found.explained_class, share = probabilities[classes.indexOf(name)];
  const little = share - found.lowest < 0.01;
  put("lowest", little
    ? `No part matters alone: whichever is hidden, ${name} stays at ${percent(found.lowest)} or more.`
    : `Hiding the part that matters most takes ${name} from ${percent(share)} to ${percent(found.lowest)}.`);
  byId("hottest").hidden = little;
  byId("why").hidden = false;
}

/** @param look Is called with the number and the class of one that is looked at. */
export function showNeighbours(found, look) {
  const box = byId("neighbours");
  box.replaceChildren();
  byId("alike").hidden = !found.length;
  for (const one of found) {
    const figure = add(box, "figure");
    const button = add(figure, "button", { type: "button", class: "picture", "aria-label": `Look at this ${one.label}` });
    add(button, "img", { src: `validation/${one.id}`, alt: "" });
    button.addEventListener("click", () => look(one.id, one.label));
    const caption = add(figure, "figcaption");
    add(caption, "b", {}, one.label);
    add(caption, "span", { class: "wrong" });
  }
}

/** Say under each neighbour what it is named, where that is wrong: `names` in their order. */
export function nameNeighbours(found, names) {
  [...byId("neighbours").children].forEach((figure, k) => {
    const told = names[k] === found[k].label ? "" : `named ${names[k]}`;
    figure.title = told ? `${found[k].label}, ${told}` : found[k].label;
    figure.querySelector(".wrong").textContent = told;
  });
}
