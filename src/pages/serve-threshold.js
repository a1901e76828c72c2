// The threshold: what the validation pictures come to while it moves.

import { UNSURE } from "./serve-decide.js";
import { add, byId, capital, count, kept, percent, put, short } from "./serve-page.js";

const MATRIX = 12; // classes; of more, the worst confusions are listed
const SMALL = 4; // classes; of more, the matrix is as wide as the page and its heads are upright
const WIDE = 40; // letters of all names together: of more, too
const NARROW = matchMedia("(max-width: 700px)");
const WORST = 10;
const BINS = 40, WIDTH = 400, HALF = 44; // of the crowd, in units of its drawing

export class Threshold {
  /**
   * @param decision Is moved.
   * @param known What GET /validation says.
   * @param changed Is called when it moves.
   */
  constructor(decision, known, changed) {
    this.decision = decision;
    this.known = known;
    this.mark = null;
    const slider = byId("threshold");
    slider.addEventListener("input", () => { decision.moved = Number(slider.value); this.draw(); changed(); });
    byId("threshold-back").addEventListener("click", () => {
      decision.moved = null;
      slider.focus();
      this.draw();
      changed();
    });
    this.#words();
    this.draw();
  }

  #words() {
    const { two, classes } = this.decision, n = this.known.labels.length;
    byId("validation").hidden = false;
    byId("validation-body").hidden = !n;
    if (!n) return put("validation-about", "This bundle holds no labelled pictures, so there is nothing to move it over.");
    const held = `${count(n, `${kept.kind} picture`)}.${kept.learned ? " It has learned from them, so this flatters it." : ""}`;
    put("validation-about", two
      ? `A picture is named ${classes[1]} from this probability on, else ${classes[0]}. See what that makes of the ${held}`
      : `A picture whose best class has less than this probability is left unsure. See what that makes of the ${held}`);
    put("threshold-word", two ? `Named ${classes[1]} from` : "A class is named from");
    put("crowd-key", two
      ? `Each bar is a share of the ${kept.kind} pictures: ${classes[1]} above the line, ${classes[0]} below it; wrongly named ones in red.`
      : `Each bar is a share of the ${kept.kind} pictures: rightly named ones above the line, wrongly named ones below it, unsure ones pale.`);
  }

  /** Mark where the picture that is looked at stands; null for none. */
  look(shares) {
    this.mark = shares && (this.decision.two ? shares[1] : Math.max(...shares));
    byId("crowd-dot").hidden = !shares;
    if (this.known.labels.length) this.#drawMark();
  }

  /** What a kept picture, as GET /validation/{id} shows it, is named. */
  named(id) {
    const row = this.known.shown[id], { decision, known } = this;
    return decision.name(decision.named(known.tops[row], known.probabilities[row]));
  }

  draw() {
    const { decision, known } = this;
    if (!known.labels.length) return;
    const value = decision.value, back = byId("threshold-back");
    byId("threshold").value = value;
    byId("threshold").setAttribute("aria-valuetext", value.toFixed(3));
    put("threshold-value", value.toFixed(3));
    back.hidden = decision.moved === null;
    const own = decision.own ?? (decision.two ? 0.5 : 0);
    back.textContent = `Back to ${own ? own.toFixed(3) : "0"}`;
    const matrix = decision.confusion(known);
    this.#drawCrowd();
    this.#drawCounts(matrix);
    if (decision.classes.length <= MATRIX) this.#drawMatrix(matrix);
    else this.#drawWorst(matrix);
  }

  #drawCounts(matrix) {
    const { classes, two } = this.decision, C = classes.length, box = byId("counts");
    const total = this.known.labels.length, unsure = sum(matrix.map((row) => row[C]));
    const right = sum(matrix.map((row, k) => row[k])), named = total - unsure;
    box.replaceChildren();
    const tell = (name, value, more) => {
      const row = add(box, "div");
      add(row, "dt", {}, name);
      add(row, "dd", {}, value);
      add(row, "dd", { class: "soft" }, more);
    };
    const share = (part, whole) => whole ? percent(part / whole) : "–";
    tell(two ? "Accuracy" : "Accuracy of the named", share(right, named), `${right} of ${named}`);
    if (!two) tell("Named", share(named, total), `${named} of ${total}`);
    if (two) classes.forEach((name, k) => {
      const all = sum(matrix[k]);
      tell(`Found of ${name}`, share(matrix[k][k], all), `${matrix[k][k]} of ${all}`);
    });
    put("threshold-told", `Threshold ${this.decision.value.toFixed(3)}: accuracy ${share(right, named)}, ${right} of ${named} named pictures.`);
  }

  #drawMatrix(matrix) {
    const { classes } = this.decision, C = classes.length, most = NARROW.matches ? 14 : 28;
    const many = C > SMALL || classes.join("").length > WIDE;
    const ends = matrix.some((row) => row[C]) ? [...classes.keys(), C] : [...classes.keys()];
    const table = document.createElement("table");
    table.className = many ? "confusion many" : "confusion";
    add(add(table, "caption", { class: "hint" }), "span", {}, many
      ? "Confusion matrix: rows are what they are, columns what they are named"
      : "Confusion matrix: rows are what they are");
    const head = add(add(table, "thead"), "tr");
    add(head, "td");
    for (const k of ends) {
      const name = k === C ? "unsure" : classes[k];
      add(add(head, "th", { scope: "col", title: name }), "span", {},
        many ? short(name, 22) : k === C ? name : `named ${name}`);
    }
    const body = add(table, "tbody");
    matrix.forEach((counts, k) => {
      const row = add(body, "tr"), all = sum(counts);
      add(row, "th", { scope: "row", title: classes[k] }, many ? short(classes[k], most) : classes[k]);
      for (const named of ends) this.#drawCell(row, counts[named], all, named === k ? "hit" : named === C ? "none" : "miss");
    });
    byId("confusion").replaceChildren(table);
  }

  #drawCell(row, n, all, kind) {
    const cell = add(row, "td", { class: `cell ${kind}${n ? "" : " zero"}` }, String(n));
    cell.style.setProperty("--share", all ? n / all : 0);
    add(cell, "small", {}, all ? percent(n / all) : "–");
  }

  #drawWorst(matrix) {
    const { classes } = this.decision, box = byId("confusion"), found = [];
    matrix.forEach((counts, k) => counts.slice(0, classes.length).forEach((n, named) => {
      if (n && named !== k) found.push([n, k, named, sum(counts)]);
    }));
    found.sort((a, b) => b[0] - a[0]);
    box.replaceChildren();
    add(box, "h3", {}, found.length ? "Worst confusions" : "Nothing is confused");
    const list = add(box, "ol", { class: "worst" });
    for (const [n, k, named, all] of found.slice(0, WORST)) {
      add(list, "li", {}, `${classes[k]} named ${classes[named]}: ${n} of ${all}`);
    }
  }

  #drawCrowd() { // a mirrored histogram that stands on the slider
    const { decision, known } = this, svg = byId("crowd");
    const bins = [0, 1].map(() => Array.from({ length: BINS }, () => ({ right: 0, wrong: 0, unsure: 0 })));
    const sizes = [0, 0];
    known.labels.forEach((label, row) => {
      const share = known.probabilities[row], top = known.tops[row], named = decision.named(top, share);
      const up = label === (decision.two ? 1 : top);
      const at = Math.min(BINS - 1, Math.floor(share * BINS));
      const kind = named === UNSURE ? "unsure" : named === label ? "right" : "wrong";
      bins[up ? 0 : 1][at][kind] += 1;
      sizes[decision.two && !up ? 1 : 0] += 1;
    });
    const parts = decision.two ? sizes : [sizes[0], sizes[0]];
    const most = Math.max(...bins.flatMap((side, k) => side.map((bin) => Math.sqrt(total(bin) / (parts[k] || 1)))), 1e-9);
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${2 * HALF + 2}`);
    svg.setAttribute("aria-label", `${capital(kept.kind)} pictures by their probability; the confusion matrix holds the numbers`);
    svg.replaceChildren();
    bins.forEach((side, k) => side.forEach((bin, at) => {
      const all = total(bin);
      if (!all) return;
      const height = Math.max(3, Math.sqrt(all / (parts[k] || 1)) / most * HALF);
      let from = 0;
      for (const kind of ["right", "unsure", "wrong"]) {
        const part = bin[kind] / all * height;
        if (part) add(svg, "rect", {
          class: kind, x: at * WIDTH / BINS + 1, width: WIDTH / BINS - 2, height: part,
          y: k ? HALF + 1 + from : HALF + 1 - from - part,
        });
        from += part;
      }
    }));
    add(svg, "line", { class: "base", x1: 0, x2: WIDTH, y1: HALF + 1, y2: HALF + 1 });
    const x = decision.value * WIDTH;
    add(svg, "line", { class: "cut", x1: x, x2: x, y1: 0, y2: 2 * HALF + 2 });
    this.#drawMark();
  }

  #drawMark() {
    const svg = byId("crowd");
    svg.querySelector(".mark")?.remove();
    if (this.mark === null) return;
    const mark = add(svg, "circle", { class: "mark", cx: this.mark * WIDTH, cy: HALF + 1, r: 5 });
    add(mark, "title", {}, "your picture");
  }
}

const sum = (values) => values.reduce((all, v) => all + v, 0);
const total = (bin) => bin.right + bin.wrong + bin.unsure;
