/** Everything about one task, in a dialog. */
import { actionButtons } from "./actions.js";
import { address } from "./api.js";
import { attempt } from "./attempts.js";
import { progressBar, showBadge, showProgress } from "./card.js";
import { remember } from "./create.js";
import { byId, h, setText, toast } from "./dom.js";
import { between, bytes, clock, percent, seconds, situation, titleOf, words } from "./format.js";
import { watch } from "./live.js";
import { player } from "./player.js";

let unwatch = null;
let onClosed = () => {};

/** `closed()` is called when the dialog was closed by whoever reads it. */
export function startDetail(closed) {
  onClosed = closed;
  const dialog = byId("detail");
  dialog.addEventListener("close", () => {
    unwatch?.();
    unwatch = null;
    dialog.querySelector(".sheet").replaceChildren(); // a playing video stops
    onClosed();
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
}

/** Show a task. */
export function openDetail(id) {
  const dialog = byId("detail");
  unwatch?.();
  const view = new Detail();
  dialog.querySelector(".sheet").replaceChildren(view.element);
  if (!dialog.open) dialog.showModal();
  unwatch = watch(id, (task) => view.show(task, id));
}

export function closeDetail() {
  if (byId("detail").open) byId("detail").close();
}

class Detail {
  constructor() {
    this.title = h("h2", { id: "detail-title" }, "Task");
    this.badge = h("span", { className: "badge" });
    this.name = h("code", {});
    this.copy = h("button", { type: "button", className: "quiet", onclick: () => this.#copy() }, "Copy id");
    const close = h("button", { type: "button", className: "close", "aria-label": "Close", autofocus: true, onclick: closeDetail }, "×");
    this.bar = progressBar();
    this.line = h("p", { className: "line", "aria-live": "polite" });
    this.video = h("div", {});
    this.actions = h("div", { className: "actions" });
    this.parts = Object.fromEntries(["error", "facts", "attempts", "quality", "metadata"].map((name) => [name, h("section", {})]));
    this.seen = {};
    this.element = h("article", {}, h("header", {}, h("div", {}, this.title, h("p", { className: "row tight" }, this.badge, this.name, this.copy)), close),
      this.bar, this.line, this.video, this.actions, ...Object.values(this.parts));
  }

  show(task, id) {
    if (!task) {
      setText(this.title, "There is no such task");
      setText(this.line, `${id} was never there, or its time is up.`);
      this.bar.hidden = this.badge.hidden = this.copy.hidden = true;
      return;
    }
    this.id = task.id;
    setText(this.title, titleOf(task));
    setText(this.name, task.id);
    showBadge(this.badge, task.status);
    showProgress(this.bar, task);
    setText(this.line, task.is_terminal ? "" : situation(task));
    if (task.status === "SUCCEEDED" && !this.video.firstChild) this.video.append(player(task));
    this.#part("actions", [task.status, task.wait_reason === "cancelling"], () =>
      actionButtons(task, { details: false, onRetried: (made) => { remember(made); location.hash = `#/tasks/${made}`; } }), this.actions);
    this.#part("error", task.error, () => errorCallout(task.error));
    this.#part("facts", factsOf(task), facts);
    this.#part("attempts", task.attempts, attempts);
    this.#part("quality", task.quality, quality);
    const { title: _, ...more } = task.metadata;
    this.#part("metadata", Object.keys(more).length ? more : null, (value) => [h("h3", {}, "Metadata"), json(value)]);
  }

  /** Make a part anew only where it changed, so that what was opened in it stays open. */
  #part(name, value, make, place = this.parts[name]) {
    const said = JSON.stringify(value);
    if (this.seen[name] === said) return;
    this.seen[name] = said;
    place.replaceChildren(...(value === null || value === undefined ? [] : [make(value)].flat()));
  }

  async #copy() {
    try {
      await navigator.clipboard.writeText(this.id);
      toast("Copied.");
    } catch {
      getSelection().selectAllChildren(this.name); // no clipboard without HTTPS: selected, to be copied by hand
    }
  }
}

/** Code, message and hint of an error. */
export function errorCallout(error) {
  return h("div", { className: "callout bad" },
    h("p", {}, h("strong", {}, error.message)), h("p", {}, error.hint),
    h("p", { className: "hint" }, h("code", {}, error.code), error.retryable ? " · may pass when tried again" : ""));
}

/** A value as indented text. */
export const json = (value) => h("pre", { tabIndex: 0 }, JSON.stringify(value, null, 2));

function factsOf(task) {
  const out = task.output;
  return [
    ["Created", clock(task.created_at)],
    ["Started", task.started_at && clock(task.started_at)],
    ["Ended", task.finished_at && clock(task.finished_at)],
    ["Took", task.finished_at && seconds(between(task.created_at, task.finished_at))],
    ["Served by", task.served_by && task.served_by + (task.degraded ? " (a stopgap)" : "")],
    ["Video", out && `${seconds(out.duration_s)}, ${out.width} × ${out.height}, ${Math.round(out.fps * 100) / 100} pictures a second, ${bytes(out.bytes)}`],
    ["Tries again", task.retry_of && { tasks: [task.retry_of] }],
    ["Made from", task.derived_from && { tasks: [task.derived_from] }],
    ["Comes after", task.after.length > 0 && { tasks: task.after }],
    ["Waits for", task.waits_for.length > 0 && { tasks: task.waits_for }],
    ["Notices", task.links.deliveries && { path: task.links.deliveries }],
    ["As JSON", { path: task.links.self }],
  ].filter(([, value]) => value);
}

function facts(list) {
  return h("dl", { className: "facts" }, list.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {},
    value.tasks ? value.tasks.map((id) => h("p", {}, h("a", { href: `#/tasks/${id}` }, id)))
      : value.path ? h("a", { href: address(value.path), target: "_blank", rel: "noopener" }, "Open") : value))));
}

const attempts = (list) => (list.length ? [h("h3", {}, "Attempts"), h("ol", { className: "attempts" }, list.map(attempt))] : []);

/** Confidence and scores of the quality gate. */
export function quality(found) {
  const rows = Object.entries(found.scores ?? {});
  const rest = Object.fromEntries(Object.entries(found).filter(([name]) => !["scores", "confidence"].includes(name)));
  if (!rows.length && found.confidence === undefined && !Object.keys(rest.checks ?? {}).length) return [];
  return [
    h("h3", {}, "Quality"),
    found.confidence !== undefined && h("p", {}, `Confidence ${percent(found.confidence)}`),
    rows.length > 0 && h("dl", { className: "facts" }, rows.map(([name, score]) => h("div", {}, h("dt", {}, words(name)), h("dd", {}, percent(score))))),
    h("details", {}, h("summary", {}, "What was measured"), json(rest)),
  ].filter(Boolean);
}
