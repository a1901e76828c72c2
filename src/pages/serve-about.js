// What the model is, and validation pictures to begin with.

import { Refused } from "./serve-ask.js";
import { add, byId, capital, count, kept, listed, percent, problem, put, quoted } from "./serve-page.js";

const TRIES = 8;
const KINDS = { val: "validation", test: "test", train: "training" };

/** Say what the model is, and how good. */
export function introduce({ run, network, parameters, preprocessing, scores, parity }) {
  const { classes, image_size: side } = preprocessing;
  put("name", run ?? "A model");
  document.title = `${run ?? "A model"} · Waggle`;
  const tells = classes.length <= 6 ? `tells ${listed(classes.map(quoted))} apart` : `tells ${classes.length} classes apart`;
  const size = parameters ? `, ${(parameters / 1e6).toFixed(1)} million parameters` : "";
  put("about", `${network ?? "It"}${size}, ${tells}, looking at ${side} × ${side} pixels.`);
  byId("unproved").hidden = parity != null;
  kept.kind = KINDS[parity?.split] ?? KINDS.val;
  kept.learned = parity?.split === "train";
  for (const element of document.querySelectorAll(".kind")) element.textContent = kept.kind;
  for (const split of kept.learned ? ["train", "test"] : ["val", "test"]) {
    const found = scores?.[split];
    if (!found) continue;
    const box = add(byId("scores"), "div");
    add(box, "dt", {}, `${capital(KINDS[split])} accuracy`);
    add(box, "dd", {}, percent(found.accuracy));
    const [low, high] = Array.isArray(found.accuracy_interval) ? found.accuracy_interval : [];
    const range = low == null ? "" : `${(100 * low).toFixed(1)} to ${percent(high)}, `;
    add(box, "dd", { class: "soft" }, `${range}${count(found.n, "picture")}`);
    if (found.baseline_accuracy == null) continue;
    add(box, "dd", { class: "soft" }, `${percent(found.baseline_accuracy)} by always naming one class`);
  }
}

/** Offer validation pictures to begin with: some of each class, in turn. */
export function offer({ labels, classes, shown }, take) {
  const lines = classes.map((_, k) => [...shown.keys()].filter((id) => labels[shown[id]] === k));
  const ids = [];
  for (let k = 0; ids.length < TRIES && lines.some((line) => k < line.length); k++) {
    ids.push(...lines.filter((line) => k < line.length).map((line) => line[k]));
  }
  byId("tries").hidden = !ids.length;
  for (const id of ids.slice(0, TRIES)) {
    const label = classes[labels[shown[id]]];
    const button = add(byId("try-row"), "button", { type: "button", class: "picture", "aria-label": `Try this ${label}` });
    add(button, "img", { src: `validation/${id}`, alt: "" });
    button.addEventListener("click", () => tryOne(id, label, take));
  }
}

/** Take the small copy of a validation picture as if it had been chosen. */
export async function tryOne(id, label, take) {
  try {
    const answer = await fetch(`validation/${id}`);
    if (!answer.ok) throw new Refused("This picture is gone.");
    take([new File([await answer.blob()], `${label}, ${kept.kind} picture ${id + 1}`, { type: "image/jpeg" })]);
  } catch (error) {
    problem(error instanceof Refused ? error.message : "The server does not answer.");
  }
}
