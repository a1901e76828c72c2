// A picture from the camera.

import { byId } from "./serve-page.js";

const REASONS = {
  NotAllowedError: "The camera is not allowed for this page. Allow it in the browser, then try again.",
  NotFoundError: "There is no camera here.",
  NotReadableError: "The camera is in use by another program.",
};

/** @param taken Is called with the file. */
export function useCamera(taken) {
  if (!navigator.mediaDevices?.getUserMedia) return;
  const box = byId("camera-box"), video = byId("video"), shoot = byId("shoot");
  let stream = null;

  function end() {
    for (const track of stream?.getTracks() ?? []) track.stop();
    stream = video.srcObject = null;
    shoot.disabled = true;
  }

  async function begin() {
    byId("camera-problem").hidden = true;
    video.hidden = false;
    box.showModal();
    try {
      const opened = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      end(); // of one that was asked for before
      stream = opened;
      if (!box.open) return end(); // closed while the question stood
      video.srcObject = stream;
    } catch (error) {
      video.hidden = true;
      byId("camera-problem").hidden = false;
      byId("camera-problem").textContent = REASONS[error.name] ?? `The camera can't be opened: ${error.message}`;
    }
  }

  function take() {
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => {
      box.close();
      taken(new File([blob], "camera.png", { type: "image/png" }));
    }, "image/png");
  }

  byId("camera").hidden = false;
  navigator.mediaDevices.enumerateDevices?.().then((all) => {
    byId("camera").hidden = !all.some((one) => one.kind === "videoinput");
  }).catch(() => {}); // whoever asks to know finds out
  byId("camera").addEventListener("click", begin);
  video.addEventListener("loadeddata", () => { shoot.disabled = false; shoot.focus(); });
  shoot.addEventListener("click", take);
  byId("camera-close").addEventListener("click", () => box.close());
  box.addEventListener("close", end);
}
