// The picture as the network sees it: its heat, and the square that hides a part of it.

import { byId } from "./serve-page.js";

const CELLS = 8; // of the heat map, along each side
const FAINT = 0.05; // a fall of probability that is nothing to shine for
const TAP = 5; // pixels of the screen: less is no drag

/** Between a and b, of a curve through p, a, b, q. */
function curve(p, a, b, q, t) {
  return a + 0.5 * t * (b - p + t * (2 * p - 5 * a + 4 * b - q + t * (3 * (a - b) + q - p)));
}

/** Stretch falls [8][8] to values [side * side], 0 to 1, smooth. */
function smooth(falls, side) {
  const top = Math.max(FAINT, ...falls.flat());
  const at = (k) => Math.min(CELLS - 1, Math.max(0, k));
  const steps = Array.from({ length: side }, (_, k) => {
    const x = (k + 0.5) / side * CELLS - 0.5, from = Math.floor(x);
    return [at(from - 1), at(from), at(from + 1), at(from + 2), x - from];
  });
  const wide = falls.map((row) => steps.map(([p, a, b, q, t]) => curve(row[p], row[a], row[b], row[q], t)));
  return steps.flatMap(([p, a, b, q, t]) => steps.map((_, x) =>
    Math.min(1, Math.max(0, curve(wide[p][x], wide[a][x], wide[b][x], wide[q][x], t) / top))));
}

const RAMP = [[0, [92, 30, 120]], [0.35, [196, 44, 72]], [0.7, [244, 130, 36]], [1, [255, 232, 120]]];

function colour(value) {
  const above = RAMP.findIndex(([at]) => at >= value) || 1;
  const [[low, from], [high, to]] = [RAMP[above - 1], RAMP[above]];
  const share = (value - low) / (high - low);
  return from.map((part, k) => part + share * (to[k] - part));
}

export class Stage {
  /** @param changed Is called with the square's picture as a function, or null without a square. */
  constructor(changed) {
    this.changed = changed;
    this.side = 0; // 0 while there is no picture to hide a part of
    this.square = null; // x, y, width, height in pixels of the picture
    this.root = byId("stage");
    this.root.addEventListener("pointerdown", (event) => this.#down(event));
    this.root.addEventListener("keydown", (event) => this.#key(event));
    byId("preview").addEventListener("error", () => { byId("preview").hidden = true; }); // TIFF, say
    byId("uncover").addEventListener("click", () => { this.cover(null); this.root.focus(); });
    byId("hottest").addEventListener("click", () => this.cover(this.#hottest()));
    for (const name of ["heat-on", "heat-strength"]) byId(name).addEventListener("input", () => this.#light());
  }

  /** Show a picture before the network has seen it. */
  preview(address, crop, name) {
    this.#clear();
    this.root.setAttribute("aria-label", `${name}. Arrow keys hide a part of it.`);
    const image = byId("preview");
    image.classList.toggle("crop", crop);
    image.hidden = false;
    image.src = address;
  }

  /** Show what the network sees, how the probability falls, and what part matters: see POST /explain. */
  async show({ picture, falls, part }) {
    const image = new Image();
    image.src = picture;
    await image.decode();
    return () => {
      const canvas = byId("seen");
      this.side = canvas.width = canvas.height = image.naturalWidth;
      const pen = canvas.getContext("2d", { willReadFrequently: true });
      pen.drawImage(image, 0, 0);
      this.mean = meanOf(pen.getImageData(0, 0, this.side, this.side).data);
      this.falls = falls;
      this.part = part;
      canvas.hidden = byId("heat").hidden = false;
      this.root.classList.add("ready");
      this.#drawHeat();
    };
  }

  /** Take away a heat that is of another class. */
  cool() {
    byId("heat").hidden = true;
  }

  #clear() {
    this.side = 0;
    this.square = null;
    this.root.classList.remove("ready");
    for (const name of ["seen", "heat", "cover", "uncover"]) byId(name).hidden = true;
  }

  #drawHeat() {
    const canvas = byId("heat"), pen = canvas.getContext("2d"), side = canvas.width;
    const pixels = pen.createImageData(side, side);
    smooth(this.falls, side).forEach((value, k) => {
      pixels.data.set([...colour(value), 255 * Math.min(1, value * 1.6) ** 1.2], 4 * k);
    });
    pen.putImageData(pixels, 0, 0);
    this.#light();
  }

  #light() {
    const on = byId("heat-on").checked;
    byId("heat").style.opacity = on ? byId("heat-strength").value / 100 : 0;
    byId("heat-strength").disabled = !on;
  }

  /** The part that takes the probability down most when it is hidden. */
  #hottest() {
    const edge = (k) => Math.round(k * this.side / CELLS), { row, column, height, width } = this.part;
    const [x, y] = [edge(column), edge(row)];
    return { x, y, width: edge(column + width) - x, height: edge(row + height) - y };
  }

  /** Hide a square, or nothing for null. */
  cover(square) {
    if (!this.side || (!square && !this.square)) return;
    const element = byId("cover");
    this.square = square && inside(square, this.side);
    element.hidden = byId("uncover").hidden = !square;
    if (square) {
      const share = (pixels) => `${100 * pixels / this.side}%`;
      const { x, y, width, height } = this.square;
      Object.assign(element.style, {
        left: share(x), top: share(y), width: share(width), height: share(height),
        backgroundColor: `rgb(${this.mean.join(" ")})`,
      });
    }
    this.changed(this.square);
  }

  /** The picture with its square hidden, as a PNG. */
  png() {
    const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
    canvas.width = canvas.height = this.side;
    pen.drawImage(byId("seen"), 0, 0);
    pen.fillStyle = `rgb(${this.mean.join(" ")})`;
    const { x, y, width, height } = this.square;
    pen.fillRect(x, y, width, height);
    return new Promise((done) => canvas.toBlob(done, "image/png"));
  }

  #at(event) { // in pixels of the picture
    const area = this.root.getBoundingClientRect();
    return [(event.clientX - area.left) / area.width * this.side, (event.clientY - area.top) / area.height * this.side];
  }

  #down(event) {
    if (!this.side || event.button) return;
    const [fromX, fromY] = this.#at(event), start = this.square;
    const resizes = event.target.classList.contains("grip");
    const moves = !resizes && start && has(start, fromX, fromY);
    const pulls = resizes ? [start.x, start.y] : [fromX, fromY];
    let dragged = false;
    this.root.setPointerCapture(event.pointerId);
    const move = (now) => {
      if (Math.hypot(now.clientX - event.clientX, now.clientY - event.clientY) > TAP) dragged = true;
      if (!dragged) return;
      const [x, y] = this.#at(now);
      this.cover(moves
        ? { ...start, x: start.x + x - fromX, y: start.y + y - fromY }
        : between(pulls, [x, y], this.side));
    };
    const end = (last) => {
      for (const [name, heard] of Object.entries(heards)) this.root.removeEventListener(name, heard);
      if (dragged || resizes || moves || last.type !== "pointerup") return;
      const width = start?.width ?? this.side / 4, height = start?.height ?? this.side / 4;
      this.cover({ x: fromX - width / 2, y: fromY - height / 2, width, height });
    };
    const heards = { pointermove: move, pointerup: end, pointercancel: end };
    for (const [name, heard] of Object.entries(heards)) this.root.addEventListener(name, heard);
  }

  #key(event) {
    if (!this.side || event.altKey || event.ctrlKey || event.metaKey) return;
    const step = Math.max(1, Math.round(this.side / (event.shiftKey ? 64 : 16)));
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const grows = { "+": 1, "=": 1, "-": -1, "_": -1 }[event.key], way = moves[event.key];
    if (event.key === "Escape") this.cover(null);
    else if (!way && !grows && event.key !== "Enter" && event.key !== " ") return;
    else if (!this.square) this.cover(this.#hottest());
    else if (way) this.cover({ ...this.square, x: this.square.x + way[0] * step, y: this.square.y + way[1] * step });
    else if (grows) this.cover(grown(this.square, grows * step));
    event.preventDefault();
  }
}

const has = ({ x, y, width, height }, atX, atY) =>
  atX >= x && atX < x + width && atY >= y && atY < y + height;

function between([x0, y0], [x1, y1], side) {
  const [left, right, top, bottom] = [x0, x1, y0, y1].map((v) => Math.min(side, Math.max(0, v)));
  return {
    x: Math.min(left, right), y: Math.min(top, bottom),
    width: Math.abs(left - right), height: Math.abs(top - bottom),
  };
}

function grown({ x, y, width, height }, by) { // about its middle
  return { x: x - by / 2, y: y - by / 2, width: Math.max(by < 0 ? -by : 1, width + by), height: Math.max(by < 0 ? -by : 1, height + by) };
}

function inside(square, side) { // whole pixels, within the picture
  const [width, height] = [square.width, square.height].map((v) => Math.min(side, Math.max(1, Math.round(v))));
  const [x, y] = [[square.x, width], [square.y, height]].map(([v, length]) => Math.min(side - length, Math.max(0, Math.round(v))));
  return { x, y, width, height };
}

function meanOf(data) {
  const sums = [0, 0, 0];
  for (let k = 0; k < data.length; k += 4) for (let c = 0; c < 3; c++) sums[c] += data[k + c];
  return sums.map((sum) => Math.round(sum / (data.length / 4)));
}
