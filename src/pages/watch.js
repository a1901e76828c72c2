// Asks for the state of the run every other second, and draws it. No library, no other host.
"use strict";

const EVERY_MS = 2000;
const SVG = "http://www.w3.org/2000/svg";
const WORDS = { waiting: "Waiting", running: "Running", quiet: "No news", finished: "Finished" };
const NO_MISTAKES = "The worst mistakes and the confusion matrix stand here where callbacks draw " +
  "them. Name callbacks.WorstMistakes and callbacks.ConfusionMatrix in the config, or add " +
  "--config configs/callbacks/pictures.yaml to fit.";

const byId = (id) => document.getElementById(id);
const percent = (v, digits = 2) => v == null ? "–" : `${(100 * v).toFixed(digits)} %`;
const fixed = (v) => v == null ? "–" : v.toFixed(4);
const rate = (v) => v == null ? "–" : v && Math.abs(v) < 1e-3 ? v.toExponential(2) : Number(v.toPrecision(3)).toString();

const CHARTS = [
  { id: "chart-loss", title: "Loss", show: fixed, from: 0,
    lines: [["train/loss", "training", ""], ["val/loss", "validation", "second"]] },
  { id: "chart-accuracy", title: "Accuracy", show: percent, to: 1,
    tick: (v) => `${Number((100 * v).toPrecision(4))} %`,
    lines: [["train/accuracy", "training", ""], ["val/accuracy", "validation", "second"]] },
  { id: "chart-lr", title: "Learning rate", show: rate, from: 0, tick: rate, height: 130,
    lines: [["lr", "rate of the latest step", "second"]] },
];

let shown = null; // the state that is on the page
let drawn = ""; // the curves that are, as text

function put(id, text) { // changes nothing that is the same, lest a reader be told again
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

function add(parent, element, attributes = {}, text = "") {
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  parent.append(element);
  return element;
}

const html = (parent, name, ...more) => add(parent, document.createElement(name), ...more);
const vector = (parent, name, ...more) => add(parent, document.createElementNS(SVG, name), ...more);

function duration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor(whole % 3600 / 60)} min`;
}

// Curves

function stepOf(low, high, about) { // 1, 2 or 5 times a power of ten
  const rough = (high - low) / about, power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough * (1 - 1e-9));
}

function ticks(low, high, about) {
  const step = stepOf(low, high, about), found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) {
    found.push(Number((n * step).toPrecision(12)));
  }
  return found;
}

function range(values, chart, about) {
  let low = chart.from ?? Math.min(...values), high = chart.to ?? Math.max(...values);
  if (chart.to != null) low -= (high - low) * 0.05;
  if (!(high > low)) [low, high] = chart.from != null ? [0, high || 1] : [high - 0.1, high];
  if (chart.to == null) { // up to the next line
    const step = stepOf(low, high, about);
    high = Math.ceil(high / step - 1e-9) * step;
  }
  return [low, high];
}

function drawChart(chart, curves, epochs) {
  const box = byId(chart.id);
  box.replaceChildren();
  const caption = html(box, "figcaption");
  html(caption, "h2", {}, chart.title);
  const at = html(caption, "span", { class: "key at" });
  const keys = chart.lines.map(([, name, style]) => {
    const key = html(caption, "span", { class: `key ${style}` }, name);
    return html(key, "b");
  });
  const xs = curves.epoch, last = xs.length - 1;
  const read = (point) => {
    at.textContent = point === last ? "" : `epoch ${Number(xs[point].toFixed(2))}`;
    keys.forEach((key, i) => { key.textContent = chart.show(curves[chart.lines[i][0]][point]); });
  };
  read(last);
  drawLines(box, chart, curves, Math.max(epochs || 0, xs[last]), read);
}

function drawLines(box, chart, curves, end, read) {
  const style = getComputedStyle(box);
  const width = Math.max(240, box.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight));
  const height = chart.height || 230, left = 54, right = 10, top = 8, bottom = 24;
  const values = chart.lines.flatMap(([name]) => curves[name]).filter((v) => v != null);
  const about = chart.height ? 2 : 4;
  const [low, high] = values.length ? range(values, chart, about) : [0, 1];
  const x = (v) => left + v / end * (width - left - right);
  const y = (v) => height - bottom - (v - low) / (high - low) * (height - top - bottom);
  const svg = vector(box, "svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  svg.setAttribute("aria-label", described(chart, curves));
  for (const v of ticks(low, high, about)) {
    vector(svg, "line", { class: "grid", x1: left, x2: width - right, y1: y(v), y2: y(v) });
    const text = chart.tick ? chart.tick(v) : rate(v);
    vector(svg, "text", { x: left - 10, y: y(v) + 4, "text-anchor": "end" }, text);
  }
  vector(svg, "line", { class: "base", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom });
  vector(svg, "text", { x: left - 10, y: height - 6, "text-anchor": "end" }, "epoch");
  for (const v of ticks(0, end, Math.min(end, width / 70)).filter(Number.isInteger)) {
    vector(svg, "text", { x: x(v), y: height - 6, "text-anchor": "middle" }, v);
  }
  for (const [name, , style] of chart.lines) drawLine(svg, curves, name, style, x, y);
  follow(svg, width, curves.epoch, x, top, height - bottom, read);
}

function drawLine(svg, curves, name, style, x, y) {
  let path = "", pen = false, latest = null;
  curves[name].forEach((v, i) => {
    if (v == null) { pen = false; return; }
    latest = [x(curves.epoch[i]), y(v)];
    path += `${pen ? "L" : "M"}${latest[0].toFixed(1)} ${latest[1].toFixed(1)}`;
    pen = true;
  });
  vector(svg, "path", { class: `line ${style}`, d: path });
  if (latest) vector(svg, "circle", { class: `dot ${style}`, cx: latest[0], cy: latest[1], r: 3.5 });
}

function follow(svg, width, xs, x, top, bottom, read) { // the pointer reads the nearest point
  const cursor = vector(svg, "line", { class: "cursor", y1: top, y2: bottom, visibility: "hidden" });
  svg.addEventListener("pointermove", (event) => {
    const area = svg.getBoundingClientRect();
    const at = (event.clientX - area.left) / area.width * width;
    let nearest = 0;
    xs.forEach((v, i) => { if (Math.abs(x(v) - at) < Math.abs(x(xs[nearest]) - at)) nearest = i; });
    cursor.setAttribute("x1", x(xs[nearest]));
    cursor.setAttribute("x2", x(xs[nearest]));
    cursor.setAttribute("visibility", "visible");
    read(nearest);
  });
  svg.addEventListener("pointerleave", () => {
    cursor.setAttribute("visibility", "hidden");
    read(xs.length - 1);
  });
}

function described(chart, curves) {
  const parts = chart.lines.map(([name, word]) => {
    const values = curves[name].filter((v) => v != null);
    return values.length ? `${word} from ${chart.show(values[0])} to ${chart.show(values.at(-1))}` : "";
  });
  return `${chart.title} over ${curves.epoch.length} validations: ${parts.filter(Boolean).join(", ")}`;
}

function drawCurves(state, anew) {
  const text = JSON.stringify([state.curves, state.epochs]);
  byId("curves").hidden = !state.latest;
  if (!state.latest || (text === drawn && !anew)) return;
  drawn = text;
  for (const chart of CHARTS) drawChart(chart, state.curves, state.epochs);
}

// Words and pictures

function showProgress(state) {
  const share = state.share ?? (state.status === "running" ? null : 0);
  byId("progress").hidden = state.status === "waiting";
  if (share == null) byId("bar").removeAttribute("value");
  else byId("bar").value = share;
  const epochs = state.epochs ? ` of ${state.epochs}` : "";
  put("epochs", `Epoch ${state.epoch}${epochs}`);
  const times = [`${duration(state.elapsed_seconds)} passed`];
  if (state.status === "running" && state.left_seconds != null) {
    times.push(state.left_seconds < 1 ? "nearly done" : `about ${duration(state.left_seconds)} left`);
  }
  put("time", times.join(" · "));
}

function showScores(state) {
  const latest = state.latest, best = state.best;
  byId("scores").hidden = !latest;
  if (!latest) return;
  put("accuracy", percent(latest["val/accuracy"]));
  put("trained", `training ${percent(latest["train/accuracy"])}`);
  put("loss", fixed(latest["val/loss"]));
  put("train-loss", `training ${fixed(latest["train/loss"])}`);
  put("speed", latest.images_per_second == null ? "–" : Math.round(latest.images_per_second).toLocaleString("en"));
  const share = best && !best.name.endsWith("loss");
  put("best", !best ? "–" : share ? percent(best.value) : fixed(best.value));
  put("best-epoch", best ? `${best.name}, epoch ${best.epoch}` : "");
}

function showPicture(id, picture, alt) {
  const image = byId(id);
  if (!picture) return;
  const address = `pictures/${picture.name}?${picture.version}`;
  if (image.getAttribute("src") === address) return;
  image.src = address;
  image.alt = alt;
  byId(`${id}-link`).href = address;
}

function showMistakes(state) {
  const found = state.mistakes, { worst, confusion, train } = state.pictures;
  byId("mistakes").hidden = !state.latest;
  byId("pictures").hidden = !confusion && !train;
  byId("confusion-box").hidden = !confusion;
  byId("train-box").hidden = !train;
  const epoch = (picture) => picture ? picture.name.match(/\d+/)[0] : "";
  showPicture("confusion", confusion, `Confusion matrix of epoch ${epoch(confusion)}: rows are true classes, columns the named ones`);
  showPicture("train", train, `Training pictures of epoch ${epoch(train)} as the network saw them, with their classes`);
  byId("mistakes-found").hidden = !found || !found.worst.length;
  if (!found) return put("mistakes-about", NO_MISTAKES);
  put("mistakes-about", `Epoch ${found.epoch}: ${found.mistakes} of ${found.pictures} validation pictures named wrongly.`);
  byId("worst-link").hidden = !found.sheet;
  if (worst && worst.name === found.sheet) {
    showPicture("worst", worst, `The ${found.worst.length} worst mistakes of epoch ${found.epoch}; the table lists them`);
  }
  if (shown && JSON.stringify(shown.mistakes) === JSON.stringify(found)) return;
  const rows = byId("worst-rows");
  rows.replaceChildren();
  for (const one of found.worst) {
    const row = html(rows, "tr");
    for (const text of [one.path, one.label, one.predicted]) html(row, "td", {}, text);
    html(row, "td", { class: "n" }, percent(one.probability, 1));
  }
}

function show(state) {
  put("name", state.name);
  put("about", state.about);
  put("status", WORDS[state.status]);
  byId("status").className = `status ${state.status}`;
  document.title = `${WORDS[state.status]} · ${state.name}`;
  byId("message").hidden = Boolean(state.latest) && state.status !== "quiet";
  put("message", state.message);
  showProgress(state);
  showScores(state);
  drawCurves(state, false);
  showMistakes(state);
  put("asked", "This page reads the run folder every two seconds; the run knows nothing of it.");
  shown = state;
}

async function ask() {
  try {
    const answer = await fetch("state.json", { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.statusText);
    show(await answer.json());
  } catch (error) {
    put("status", "Not connected");
    byId("status").className = "status";
    put("asked", "python -m src.watch does not answer: it has ended, or the run folder can't be read. The page asks again.");
  }
  setTimeout(ask, EVERY_MS);
}

let width = window.innerWidth;
window.addEventListener("resize", () => {
  if (shown && window.innerWidth !== width) drawCurves(shown, true);
  width = window.innerWidth;
});
ask();
