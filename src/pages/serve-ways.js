// The ways in: choosing, dropping, pasting, the camera.

import { useCamera } from "./serve-camera.js";
import { byId, listed, problem } from "./serve-page.js";

function dropped(data, take) {
  const folders = Array.from(data.items ?? [], (one) => one.webkitGetAsEntry?.()).filter((one) => one?.isDirectory);
  const names = new Set(folders.map((one) => one.name));
  const files = Array.from(data.files).filter((file) => !names.has(file.name));
  take(files);
  if (names.size) problem(`${listed([...names])} is a folder. Drop the pictures that are in it.`);
  else if (!files.length) problem("There was no picture in that. Drop files.");
}

/** @param take Is called with files. */
export function waysIn(take) {
  const input = byId("files"), drop = byId("drop");
  input.addEventListener("change", () => {
    take([...input.files]);
    input.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (files.length) take(files);
    else problem("There is no picture in what was pasted.");
  });
  const holds = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!holds(event)) return;
    event.preventDefault();
    drop.hidden = false;
  });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.hidden = true; });
  document.addEventListener("drop", (event) => {
    drop.hidden = true;
    if (!event.dataTransfer) return;
    event.preventDefault();
    dropped(event.dataTransfer, take);
  });
  useCamera((file) => take([file]));
}
