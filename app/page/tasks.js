/** The table of all tasks: filters, pages, live rows. */
import { ask } from "./api.js";
import { progressBar, showBadge, showProgress } from "./card.js";
import { byId, h, keyed, setText } from "./dom.js";
import { showCallout } from "./fields.js";
import { ago, between, clock, seconds, situation, STATUSES, statusWord, titleOf } from "./format.js";
import { onChange, onProgress } from "./live.js";

const PAGE = 50;
const CALM_MS = 400; // Many tasks change at once: the list is asked for once.

let shown = [];
let next = null;
let pages = 1;
let timer, asked = 0;

export function startTasks() {
  byId("status-filters").replaceChildren(...STATUSES.map((status) => h("label", { className: "chip" },
    h("input", { type: "checkbox", value: status, name: "status" }), h("span", {}, statusWord(status)))));
  byId("filters").addEventListener("change", () => { pages = 1; reload(); });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("tasks-more").addEventListener("click", older);
  onChange(() => {
    if (!isShown() || timer) return;
    timer = setTimeout(() => { timer = undefined; if (isShown()) reload(); }, CALM_MS);
  });
  onProgress((id, progress) => {
    const place = shown.findIndex((task) => task.id === id);
    if (place < 0 || shown[place].status !== "RUNNING" || !isShown()) return;
    shown[place] = { ...shown[place], progress };
    draw();
  });
}

/** The view was opened. */
export function showTasks() {
  reload();
  loadNames();
}

const isShown = () => !byId("tasks").hidden;

async function loadNames() {
  const select = byId("filter-renderer");
  if (select.options.length > 1) return;
  try {
    const { tiers } = await ask("tiers");
    const names = [...new Set(tiers.flatMap((tier) => [tier.name, tier.renderer]))];
    select.append(...names.map((name) => h("option", { value: name }, name)));
  } catch {
    // The filter stays without names; the next visit asks again.
  }
}

function firstPage() {
  const query = new URLSearchParams();
  for (const box of document.querySelectorAll('#status-filters input:checked')) query.append("status", box.value);
  const renderer = byId("filter-renderer").value;
  if (renderer) query.set("renderer", renderer);
  const since = byId("filter-since").value;
  if (since) query.set("created_after", new Date(Date.now() - since * 1000).toISOString());
  query.set("limit", PAGE);
  return `tasks?${query}`;
}

/** Ask for all pages that are shown. An answer that a later question overtook is dropped. */
async function reload() {
  const question = (asked += 1);
  try {
    const found = [];
    let path = firstPage();
    for (let page = 0; page < pages && path; page += 1) {
      const answer = await ask(path);
      found.push(...answer.tasks);
      path = answer.links.next;
    }
    if (question !== asked) return;
    [shown, next] = [found, path];
    showCallout(byId("tasks-problem"), null);
    draw();
  } catch (problem) {
    if (question === asked) showCallout(byId("tasks-problem"), problem);
  }
}

async function older() {
  pages += 1;
  const last = byId("task-table").tBodies[0].lastElementChild;
  await reload();
  last?.nextElementSibling?.querySelector("a")?.focus();
}

function draw() {
  keyed(byId("task-table").tBodies[0], shown, (task) => task.id, row);
  byId("task-table").hidden = !shown.length;
  byId("tasks-empty").hidden = shown.length > 0;
  byId("tasks-more").hidden = !next;
}

function row(task) {
  const badge = h("span", { className: "badge" });
  const link = h("a", { href: `#/tasks/${task.id}` });
  const line = h("p", { className: "hint" });
  const bar = progressBar();
  const by = h("td", { "data-name": "Served by" });
  const created = h("td", { "data-name": "Created" });
  const took = h("td", { className: "num", "data-name": "Took" });
  const element = h("tr", {}, h("td", {}, badge), h("th", { scope: "row" }, link, line, bar), by, created, took);
  // The whole row is a target for a pointer; for keys and screen readers it is the link.
  element.addEventListener("click", (event) => {
    if (!event.target.closest("a") && !getSelection().toString()) link.click();
  });
  element.update = (now) => {
    showBadge(badge, now.status);
    setText(link, titleOf(now));
    showProgress(bar, now);
    setText(line, now.is_terminal ? (now.status === "FAILED" ? `${now.error.code}: ${now.error.message}` : "") : situation({ ...now, queue_position: null }));
    line.hidden = !line.textContent;
    setText(by, now.served_by ? now.served_by + (now.degraded ? " (stopgap)" : "") : "–");
    setText(created, ago(now.created_at));
    created.title = clock(now.created_at);
    setText(took, seconds(between(now.created_at, now.finished_at)));
  };
  return element;
}
