// The page of python -m src.serve: takes pictures, asks the server, shows what it says.

import { introduce, offer, tryOne } from "./serve-about.js";
import { ask, explain, latest, parts, predict, Refused } from "./serve-ask.js";
import { Decision } from "./serve-decide.js";
import { byId, problem, put, tell } from "./serve-page.js";
import { Bars, nameNeighbours, showDecision, showMoved, showNeighbours, showWhy } from "./serve-result.js";
import { Stage } from "./serve-stage.js";
import { named, Strip } from "./serve-strip.js";
import { Threshold } from "./serve-threshold.js";
import { waysIn } from "./serve-ways.js";

const NARROW = matchMedia("(max-width: 700px)"); // one column: what it sees lies below the head

const page = { about: null, decision: null, bars: null, threshold: null, items: [], shown: null, early: [],
  lost: false, hidden: null, explaining: null, neighbours: [], complaint: "" };

// What the model is

async function begin() {
  page.lost = false;
  try {
    page.about = await ask("metadata");
  } catch (error) {
    page.lost = true;
    put("name", "Not connected");
    return problem(error.message);
  }
  problem("");
  const { preprocessing, threshold } = page.about;
  page.decision = new Decision(preprocessing.classes, threshold);
  page.bars = new Bars(preprocessing.classes);
  introduce(page.about);
  if (page.early.length) take(page.early.splice(0));
  try {
    const known = await ask("validation");
    page.threshold = new Threshold(page.decision, known, redecide);
    page.threshold.look(page.shown?.shares ?? null);
    offer(known, take);
  } catch (error) {
    problem(error.message);
  }
}

// Pictures that come in

async function take(files) {
  if (!files.length) return;
  if (!page.about) { // begin() comes back to them
    page.early.push(...files);
    return page.lost ? begin() : undefined;
  }
  problem("");
  const { limits } = page.about;
  const most = limits.bytes - 2000; // the form around it counts too
  const items = Array.from(files, (file) => ({
    file, name: file.name || "pasted picture", url: URL.createObjectURL(file), shares: null, explained: new Map(),
    failure: file.size <= most ? null
      : new Refused(`${file.name || "The picture"} has ${(file.size / 1e6).toFixed(1)} MB; ${limits.bytes / 1e6} MB are allowed.`, 413),
  }));
  page.items.push(...items);
  byId("intake").classList.remove("empty");
  byId("clear").hidden = false;
  strip.add(page.items);
  select(items[0]);
  if (NARROW.matches) byId(page.items.length > 1 ? "strip" : "look").scrollIntoView();
  await Promise.all([items[0].failure ? null : judge([items[0]]), judgeAll(items.slice(1), most)]);
}

async function judgeAll(items, most) {
  const sound = items.filter((item) => !item.failure);
  for (const part of parts(sound, page.about.limits.files, most)) await judge(part);
}

async function judge(items) {
  const { classes } = page.decision, start = performance.now();
  const answers = await predict(items.map((item) => item.file)).catch((error) => items.map(() => error));
  items.forEach((item, k) => {
    const answer = answers[k];
    if (answer instanceof Error) item.failure = answer;
    else item.shares = classes.map((name) => answer.probabilities[name]);
    item.milliseconds = performance.now() - start;
    strip.draw(item);
    if (item === page.shown) show(item);
  });
  strip.count(page.items);
}

// The picture that is looked at

const strip = new Strip(page, select);

function select(item) {
  const before = page.shown;
  page.shown = item;
  page.hidden = null; // probabilities under the square
  if (before) strip.draw(before);
  strip.draw(item);
  strip.reveal(item);
  byId("look").hidden = false;
  stage.preview(item.url, page.about.preprocessing.resize === "crop", item.name);
  put("file-name", item.name);
  put("file-time", "");
  show(item);
}

function show(item) {
  const { shares, failure } = item;
  byId("look").classList.toggle("waiting", !shares && !failure);
  byId("look").classList.toggle("failed", Boolean(failure));
  byId("failure").hidden = !failure;
  for (const name of ["why", "alike"]) byId(name).hidden = true;
  Object.assign(page, { explaining: null, neighbours: [] });
  byId("neighbours").replaceChildren();
  for (const name of ["bars", "tools", "hint"]) byId(name).hidden = Boolean(failure);
  page.threshold?.look(shares);
  if (failure) return fail(failure);
  byId("again").hidden = true;
  if (!shares) return wait();
  page.bars.take(shares);
  redecide();
  put("file-time", `answered in ${Math.round(item.milliseconds)} ms`);
  tell(`${item.name}: ${named(page.decision, shares)}`);
  fill(item);
}

function wait() {
  byId("decision").replaceChildren("Looking …");
  for (const name of ["reason", "moved"]) put(name, "");
  byId("bars").replaceChildren();
  byId("more").hidden = true;
}

function fail(failure) {
  byId("decision").replaceChildren(failure.again ? "No answer" : "It can't look at this");
  byId("more").hidden = true;
  for (const name of ["reason", "moved"]) put(name, "");
  put("failure-text", failure.message);
  byId("again").hidden = !failure.again;
  tell(failure.message);
}

async function fill(item) { // what drove the decision for the class that is named
  const k = page.decision.likely(item.shares), { explained } = item;
  page.explaining = k;
  try {
    if (!explained.has(k)) explained.set(k, explain(item.file, page.decision.classes[k]));
    const found = await explained.get(k), show = await stage.show(found);
    strip.see(item, found.picture);
    if (item !== page.shown || k !== page.explaining) return;
    show();
    if (byId("problem").textContent === page.complaint) problem("");
    showWhy(found, page.decision.classes, item.shares);
    showNeighbours(found.neighbours, (id, label) => tryOne(id, label, take));
    page.neighbours = found.neighbours;
    renameNeighbours();
  } catch (error) {
    explained.delete(k);
    if (item !== page.shown || k !== page.explaining) return;
    byId("why").hidden = true;
    stage.cool();
    page.complaint = error instanceof Refused ? error.message : `This can't be shown: ${error.message}`;
    problem(page.complaint);
  }
}

function renameNeighbours() {
  const { threshold, neighbours } = page;
  nameNeighbours(neighbours, neighbours.map(({ id, predicted_class: own }) => threshold?.named(id) ?? own));
}

function redecide() {
  const { decision, shown } = page;
  for (const item of page.items) strip.draw(item);
  strip.count(page.items);
  if (!shown?.shares) return;
  const shares = page.hidden ?? shown.shares;
  page.bars.draw(shares, showDecision(decision, shares), page.hidden && shown.shares);
  showMoved(decision, shown.shares, page.hidden);
  page.threshold?.look(shares);
  renameNeighbours();
  if (page.explaining !== null && decision.likely(shown.shares) !== page.explaining) fill(shown);
}

const askHidden = latest(async (item) => {
  if (item !== page.shown || !stage.square) return;
  const [answer] = await predict([new File([await stage.png()], item.name)]).catch((error) => [error]);
  if (item !== page.shown || !stage.square) return;
  if (answer instanceof Error) return problem(answer.message);
  problem("");
  page.hidden = page.decision.classes.map((name) => answer.probabilities[name]);
  redecide();
  tell(byId("moved").textContent);
});

const stage = new Stage((square) => {
  if (square) return askHidden(page.shown);
  page.hidden = null;
  redecide();
  tell("The square is removed.");
});

// Ways in

function clear() {
  for (const item of page.items) URL.revokeObjectURL(item.url);
  Object.assign(page, { items: [], shown: null, hidden: null });
  strip.clear();
  for (const name of ["strip", "tally", "look", "clear"]) byId(name).hidden = true;
  byId("intake").classList.add("empty");
  page.threshold?.look(null);
  problem("");
  byId("files").focus();
}

waysIn(take);
byId("clear").addEventListener("click", clear);
byId("again").addEventListener("click", () => {
  const item = page.shown;
  item.failure = null;
  show(item);
  judge([item]);
});
begin();
