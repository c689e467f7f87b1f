/** One task as a card: where it stands, its video, and what can be done about it. */
import { h, setText } from "./dom.js";
import { actionButtons } from "./actions.js";
import { situation, statusWord, titleOf } from "./format.js";
import { watch } from "./live.js";
import { player } from "./player.js";

export class TaskCard {
  /** `onRetried(id)` is told of the new task of a retry, `onForget(id)` that the card is not wanted any more. */
  constructor(id, { onRetried, onForget }) {
    this.id = id;
    this.forget = () => onForget(id);
    this.onRetried = onRetried;
    this.title = h("h3", {}, "…");
    this.badge = h("span", { className: "badge" });
    this.line = h("p", { className: "line" });
    this.bar = progressBar();
    this.video = h("div", { className: "video", hidden: true });
    this.actions = h("div", { className: "actions" });
    this.element = h("article", { className: "card", "data-task": id },
      h("header", {}, this.title, this.badge), this.bar, this.line, this.video, this.actions);
    this.element.update = () => {}; // it keeps itself up to date
    watch(id, (task) => this.#show(task));
  }

  #show(task) {
    if (!task) {
      this.forget();
      return;
    }
    setText(this.title, titleOf(task));
    showBadge(this.badge, task.status);
    showProgress(this.bar, task);
    showLine(this.line, task);
    if (task.status === "SUCCEEDED" && !this.video.firstChild) this.video.append(player(task));
    this.video.hidden = !this.video.firstChild;
    const state = `${task.status} ${task.wait_reason === "cancelling"}`;
    if (this.state === state) return;
    this.state = state;
    const remove = task.is_terminal && h("button", { type: "button", className: "quiet", onclick: this.forget }, "Remove from this list");
    this.actions.replaceChildren(...actionButtons(task, { onRetried: this.onRetried }), remove || "");
  }
}

/** A bar for `showProgress`. */
export const progressBar = () => h("progress", { max: 1, "aria-label": "Progress" });

/** Show how far a task is; a wait, or work that cannot be counted, has a bar without a value. */
export function showProgress(bar, task) {
  const fraction = overall(task.progress);
  bar.hidden = task.is_terminal || task.status === "REVIEW" || task.status === "QUEUED" || task.status === "RETRY_WAIT";
  if (fraction === null) bar.removeAttribute("value");
  else bar.value = fraction;
}

/** Where each phase begins and ends in the whole, so that the bar never goes back; most of the time is rendering. */
const PHASES = { load: [0, 0.03], fetch: [0.03, 0.06], analyse: [0.06, 0.2], render: [0.2, 0.9], encode: [0.9, 0.99] };

function overall({ phase, fraction }) {
  if (fraction === null || fraction === undefined) return PHASES[phase]?.[0] || null;
  const [from, to] = PHASES[phase] ?? [0, 0.99];
  return from + (to - from) * fraction;
}

export function showBadge(badge, status) {
  badge.dataset.status = status;
  setText(badge, statusWord(status));
}

/** What a task does, or why it failed. */
export function showLine(line, task) {
  line.classList.toggle("bad", task.status === "FAILED");
  if (task.status === "FAILED") setText(line, `${task.error.message} ${task.error.hint}`);
  else if (task.status === "CANCELLED") setText(line, "Cancelled before it was done.");
  else if (task.status === "SUCCEEDED") {
    setText(line, task.degraded ? `Served by ${task.served_by}, a stopgap: the lips need not move.` : `Made by ${task.served_by}.`);
  } else setText(line, situation(task));
}
