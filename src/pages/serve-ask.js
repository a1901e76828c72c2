// What is asked of the server, and what went wrong in words.

const SILENT = "The server does not answer. Perhaps it has ended: start it again with " +
  "python -m src.serve.";

/** An answer that is none; `again` says whether asking once more may help. */
export class Refused extends Error {
  constructor(text, status = 0) {
    super(text);
    this.status = status;
    this.again = status === 0 || status >= 500;
  }
}

export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    throw new Refused(SILENT);
  }
  let content = null;
  try {
    content = await answer.json();
  } catch (error) {
    if (answer.ok) throw new Refused("The server's answer broke off.");
  }
  if (answer.ok) return content;
  const detail = content && typeof content.detail === "string" ? content.detail : null;
  throw new Refused(detail ?? `The server answered with error ${answer.status}.`, answer.status);
}

function form(files) {
  const made = new FormData();
  for (const file of files) made.append("files", file, file.name || "picture");
  return { method: "POST", body: made };
}

export const explain = (file, name) => ask(`explain?of=${encodeURIComponent(name)}`, form([file]));

/** Return an answer for each file: a prediction, or a Refused. */
export async function predict(files) {
  try {
    return (await ask("predict", form(files))).predictions.map(
      (found) => found.error ? new Refused(`${found.name}: ${found.error}.`, 422) : found);
  } catch (error) {
    if (error.status !== 422 || files.length === 1) return files.map(() => error);
    const alone = []; // none of them can be read: each has its own reason
    for (const file of files) alone.push(...await predict([file]));
    return alone;
  }
}

/** Cut files into parts that one request may hold. */
export function parts(items, most, bytes) {
  const found = [];
  let room = 0;
  for (const item of items) {
    const size = item.file.size + 1000; // and what the form adds
    if (!found.length || found.at(-1).length >= most || size > room) {
      found.push([]);
      room = bytes;
    }
    found.at(-1).push(item);
    room -= size;
  }
  return found;
}

/** Return a function that does its work one call at a time; of those that wait, the latest. */
export function latest(work) {
  let busy = false, next = null;
  return async function run(...args) {
    if (busy) {
      next = args;
      return;
    }
    busy = true;
    try {
      await work(...args);
    } finally {
      busy = false;
      const waiting = next;
      next = null;
      if (waiting) run(...waiting);
    }
  };
}
