/** The running parts: queue, tiers with their breakers, slots, alarms. */
import { ask, post } from "./api.js";
import { button } from "./actions.js";
import { byId, h, keyed, setText } from "./dom.js";
import { showCallout } from "./fields.js";
import { ago, bytes, clock, percent, seconds, words } from "./format.js";

const EVERY_MS = 3000;
const EVERY_HIDDEN_MS = 30_000; // for the counts beside the views' names

let timer;
let onQueue = () => {};

/** `queueSeen(queue)` is told of every reading. */
export function startService(queueSeen) {
  onQueue = queueSeen;
  byId("pause").addEventListener("click", async () => {
    try {
      showQueue(await post(byId("pause").dataset.path));
    } catch (problem) {
      showCallout(byId("service-problem"), problem);
    }
  });
  look();
}

/** Ask at once: the view was opened, or something happened. */
export function look() {
  clearTimeout(timer);
  timer = setTimeout(read, 0);
}

async function read() {
  const shown = !byId("service").hidden;
  try {
    const [queue, alarms, tiers, stats] = await Promise.all(
      ["queue", "alarms", ...(shown ? ["tiers", "stats"] : [])].map((path) => ask(path)));
    showQueue(queue);
    showAlarms(alarms);
    if (tiers) showTiers(tiers.tiers);
    if (stats) showFigures(queue, stats);
    showCallout(byId("service-problem"), null);
  } catch (problem) {
    showCallout(byId("service-problem"), problem);
    onQueue(null);
  }
  clearTimeout(timer);
  timer = setTimeout(read, shown && !document.hidden ? EVERY_MS : EVERY_HIDDEN_MS);
}

function showQueue(queue) {
  onQueue(queue);
  const pause = byId("pause");
  pause.dataset.path = queue.paused ? "queue/resume" : "queue/pause";
  pause.classList.toggle("primary", queue.paused);
  setText(pause, queue.paused ? "Resume the queue" : "Pause the queue");
  keyed(byId("slots"), queue.slots, (slot) => slot.name, slotCard);
}

function showFigures(queue, stats) {
  const hour = stats.windows["1h"].all;
  const of = (status) => queue.by_status[status] ?? 0;
  const figures = [
    ["Running", of("RUNNING")],
    ["Waiting", of("QUEUED") + of("RETRY_WAIT"), queue.oldest_runnable_age_s ? `the oldest for ${seconds(queue.oldest_runnable_age_s)}` : ""],
    ["Success, last hour", percent(hour.service_success_rate), hour.judged ? `of ${hour.judged} attempts` : "no attempts"],
    ["Time per task, last hour", seconds(hour.task_s.p50), hour.task_s.count ? `95 % within ${seconds(hour.task_s.p95)}` : ""],
    ["Wait, last hour", seconds(hour.queue_s.p50), hour.queue_s.count ? `95 % within ${seconds(hour.queue_s.p95)}` : ""],
    ["Free disk", bytes(queue.disk.free_bytes), queue.disk.low ? "low: nothing new is taken in" : ""],
  ];
  keyed(byId("figures"), figures, ([name]) => name, ([name]) => {
    const value = h("dd", {});
    const note = h("dd", { className: "hint" });
    const element = h("div", {}, h("dt", {}, name), value, note);
    element.update = ([, now, more = ""]) => { setText(value, String(now)); setText(note, more); };
    return element;
  });
}

function slotCard() {
  const name = h("h3", {});
  const badge = h("span", { className: "badge" });
  const line = h("p", { className: "hint" });
  const task = h("a", {});
  const element = h("article", { className: "card" }, h("header", {}, name, badge), line, task);
  element.update = (slot) => {
    setText(name, slot.name);
    badge.dataset.status = slot.state;
    setText(badge, words(slot.state));
    setText(line, [slot.device, slot.pid && `process ${slot.pid}`, slot.since && `since ${clock(slot.since)}`].filter(Boolean).join(" · "));
    task.hidden = !slot.task_id;
    if (slot.task_id) { task.href = `#/tasks/${slot.task_id}`; setText(task, slot.attempt > 1 ? `Its task, attempt ${slot.attempt}` : "Its task"); }
  };
  return element;
}

function showTiers(tiers) {
  keyed(byId("tiers"), tiers, (tier) => tier.name, tierCard);
}

function tierCard({ name }) {
  const toggle = button("", async () => {
    const state = toggle.getAttribute("aria-checked") === "true" ? "open" : "closed";
    await ask(`tiers/${encodeURIComponent(name)}/breaker`, { method: "PUT", json: { state } });
    look();
  }, "switch");
  toggle.setAttribute("role", "switch");
  toggle.setAttribute("aria-label", `${name} takes tasks`);
  const state = h("p", { className: "line", "aria-live": "polite" });
  const line = h("p", { className: "hint" });
  const measured = h("p", { className: "hint" });
  const element = h("article", { className: "card", "data-tier": name }, h("header", {}, h("h3", {}, name), toggle), state, line, measured);
  element.update = (tier) => {
    const { breaker, measured: last } = tier;
    toggle.setAttribute("aria-checked", String(breaker.state !== "open"));
    state.classList.toggle("bad", Boolean(tier.down) || breaker.state !== "closed");
    setText(state, tier.enabled ? tier.down ? `Takes no task: ${tier.down}` : breakerLine(breaker) : "Not enabled by the configuration");
    setText(line, [tier.renderer, `${tier.free} of ${tier.slots} slots free`, tier.running && `${tier.running} running`, tier.degraded && "a stopgap",
      tier.only_by_name && "only by name"].filter(Boolean).join(" · "));
    setText(measured, last.attempts ? measuredLine(last) : "No attempts yet");
  };
  return element;
}

function measuredLine({ attempts, success, latency_s: latency }) {
  const median = latency === null ? "" : `, ${seconds(latency)} each (median)`;
  return `${attempts === 1 ? "The last attempt" : `The last ${attempts} attempts`}: ${percent(success)} served${median}`;
}

function breakerLine({ state, until, openings }) {
  if (state === "closed") return "Takes tasks (breaker closed)";
  if (state === "half_open") return "One task tries whether it is well again (breaker half open)";
  return until ? `Left alone after failures until ${clock(until)} (breaker open, ${openings} in a row)` : "Switched off by hand (breaker open)";
}

function showAlarms({ active, recent, scale_out: scale }) {
  const count = byId("alarm-count");
  count.hidden = !active.length;
  setText(count, active.length ? String(active.length) : "");
  count.setAttribute("aria-label", `${active.length} alarms`);
  const key = (alarm) => `${alarm.name} ${alarm.subject} ${alarm.since}`;
  const wanted = scale.wanted ? [{ name: "scale_out", severity: "warning", subject: "", since: null, message: "Another service on the same database would help.", hint: `Because of: ${scale.reasons.join(", ")}.` }] : [];
  keyed(byId("alarms"), [...active, ...wanted], key, alarmCard);
  byId("recent-alarms").hidden = !recent.length;
  keyed(byId("recent-alarms").querySelector(".alarms"), recent, (alarm) => `${key(alarm)} ${alarm.resolved_at}`, alarmCard);
}

function alarmCard(alarm) {
  const times = alarm.resolved_at ? `${clock(alarm.since)} to ${clock(alarm.resolved_at)}` : alarm.since ? `since ${ago(alarm.since)}` : "";
  const element = h("div", { className: `callout ${alarm.resolved_at ? "" : alarm.severity === "critical" ? "bad" : "warn"}` },
    h("p", {}, h("strong", {}, words(alarm.name), alarm.subject ? `: ${alarm.subject}` : ""), ` ${alarm.message}`),
    h("p", { className: "hint" }, alarm.hint, times ? ` (${times})` : ""));
  element.update = () => {};
  return element;
}
