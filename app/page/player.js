/** The player of a finished video. */
import { address } from "./api.js";
import { h } from "./dom.js";
import { titleOf } from "./format.js";

/** A player for the output of `task`, or for another address of the service. */
export function player(task, path = task.output.url) {
  const said = h("p", { className: "hint", hidden: true });
  const video = h("video", { controls: true, playsInline: true, preload: "metadata", "aria-label": `Video: ${titleOf(task)}` });
  if (task.output?.width) [video.width, video.height] = [task.output.width, task.output.height];
  video.onerror = async () => {
    // Expired, removed, or a browser without this codec: the service knows which.
    const answer = await fetch(address(path), { method: "GET", headers: { Range: "bytes=0-0" } }).catch(() => null);
    const problem = answer && !answer.ok ? await answer.json().catch(() => ({})) : {};
    said.textContent = [problem.detail ?? problem.title ?? "This browser cannot play the video; download it instead.", problem.hint].filter(Boolean).join(" ");
    said.hidden = false;
    video.hidden = true;
  };
  video.src = `${address(path)}#t=0.01`; // phones show no first picture otherwise
  return h("div", { className: "player" }, video, said);
}
