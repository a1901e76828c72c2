// Several pictures: a strip of small ones, and what they are named.

import { UNSURE } from "./serve-decide.js";
import { add, byId, percent, put } from "./serve-page.js";

const TOLD = 8; // classes of the tally

/** "bee 97.3 %", or "unsure". */
export function named(decision, shares) {
  const k = decision.of(shares);
  return k === UNSURE ? "unsure" : `${decision.classes[k]} ${percent(shares[k])}`;
}

const suffix = (name) => name.match(/\.(\w{1,4})$/)?.[1].toUpperCase() ?? "file";

export class Strip {
  /**
   * @param page Holds the decision, and the item that is shown.
   * @param select Is called with an item that is chosen.
   */
  constructor(page, select) {
    this.page = page;
    this.select = select;
    this.root = byId("strip");
  }

  /** Take the items that have no small picture yet. */
  add(items) {
    this.root.hidden = items.length < 2;
    for (const item of items.filter((one) => !one.thumb)) {
      const button = add(add(this.root, "li"), "button", { type: "button" });
      const image = add(button, "img", { src: item.url, alt: "" });
      image.addEventListener("error", () => { image.hidden = true; this.see(item, item.seen); });
      item.thumb = { button, image, name: add(button, "b"), share: add(button, "span") };
      button.addEventListener("click", () => this.select(item));
      this.draw(item);
    }
    this.count(items);
  }

  /** Take what the network sees of an item: it is shown where the browser can't show the file. */
  see(item, picture) {
    const { image } = item.thumb;
    item.seen = picture;
    if (!image.hidden || !picture || image.src === picture) return;
    image.src = picture;
    image.hidden = false;
  }

  draw(item) {
    if (!item.thumb) return;
    const { button, name, share } = item.thumb, { decision, shown } = this.page, { failure, shares } = item;
    const k = shares ? decision.of(shares) : UNSURE;
    button.classList.toggle("failed", Boolean(failure));
    name.textContent = failure ? (failure.again ? "no answer" : "refused") : shares ? decision.name(k) : "…";
    name.dataset.mark = failure ? "?" : suffix(item.name); // where there is no picture
    share.textContent = k === UNSURE ? "" : percent(shares[k]);
    button.setAttribute("aria-label", `${item.name}: ${failure?.message ?? (shares ? named(decision, shares) : "waiting")}`);
    button.setAttribute("aria-pressed", String(item === shown));
    button.title = item.name;
  }

  /** Bring an item into sight, sideways alone. */
  reveal({ thumb }) {
    if (!thumb) return;
    const from = this.root.getBoundingClientRect(), at = thumb.button.getBoundingClientRect();
    if (at.left < from.left || at.right > from.right) {
      this.root.scrollLeft += at.left - from.left - (from.width - at.width) / 2;
    }
  }

  /** Say how many pictures are named what. */
  count(items) {
    const { decision } = this.page, told = new Map();
    for (const { shares, failure } of items) {
      const name = failure ? "refused or unanswered" : shares ? decision.name(decision.of(shares)) : "waiting";
      told.set(name, (told.get(name) ?? 0) + 1);
    }
    const parts = [...told].sort((a, b) => b[1] - a[1]).map(([name, n]) => `${n} ${name}`);
    byId("tally").hidden = items.length < 2;
    put("tally", `${items.length} pictures: ${parts.slice(0, TOLD).join(", ")}${parts.length > TOLD ? ", …" : ""}`);
  }

  clear() {
    this.root.replaceChildren();
  }
}
