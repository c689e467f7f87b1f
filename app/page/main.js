/** The page: its views by the address's fragment, and the state of the service at the top. */
import { startCreate } from "./create.js";
import { closeDetail, openDetail, startDetail } from "./detail.js";
import { byId, setText } from "./dom.js";
import { onChange, start } from "./live.js";
import { showReview, startReview } from "./review.js";
import { look, startService } from "./service.js";
import { showTasks, startTasks } from "./tasks.js";

const VIEWS = ["create", "tasks", "review", "service"];
const OPENED = { tasks: showTasks, review: showReview, service: look };

let view = null;
let live = false;
let queue = null;

function route() {
  const [name, id] = location.hash.replace(/^#\//, "").split("/");
  if (name === "tasks" && id) {
    if (!view) open("tasks");
    openDetail(decodeURIComponent(id));
    return;
  }
  const wanted = VIEWS.includes(name) ? name : "create";
  if (wanted !== view) open(wanted);
  closeDetail();
}

function open(name) {
  const first = view === null;
  view = name;
  for (const other of VIEWS) byId(other).hidden = other !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = name === "create" ? "Greenroom" : `${name[0].toUpperCase()}${name.slice(1)} – Greenroom`;
  OPENED[name]?.();
  if (!first) {
    byId("main").focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

function showPulse() {
  const [state, words] = !queue ? ["bad", "No answer"]
    : queue.draining ? ["warn", "Stopping"]
    : queue.paused ? ["warn", "Paused"]
    : queue.disk.low ? ["bad", "Disk is full"]
    : live ? ["good", "Live"] : ["good", "Connected"];
  byId("pulse").dataset.state = state;
  setText(byId("pulse-text"), words);
}

function queueSeen(now) {
  queue = now;
  const reviews = now?.by_status.REVIEW ?? 0;
  document.querySelector('nav a[data-view="review"]').hidden = !reviews && view !== "review";
  setText(byId("review-count"), reviews ? String(reviews) : "");
  showPulse();
}

startDetail(() => {
  if (/^#\/tasks\/./.test(location.hash)) history.pushState(null, "", `#/${view}`);
});
startCreate();
startTasks();
startReview();
addEventListener("hashchange", route);
route();
startService(queueSeen);
let lookTimer;
onChange(() => {
  lookTimer ??= setTimeout(() => { lookTimer = undefined; look(); }, 300);
});
start((now) => {
  live = now;
  if (queue) showPulse();
});
