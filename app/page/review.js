/** Videos that wait for a person's word. */
import { ask, post } from "./api.js";
import { button } from "./actions.js";
import { errorCallout, quality } from "./detail.js";
import { byId, h, keyed, setText, toast } from "./dom.js";
import { setError } from "./fields.js";
import { ago, titleOf } from "./format.js";
import { onChange } from "./live.js";
import { player } from "./player.js";

const NAME = "greenroom.reviewer";

export function startReview() {
  const who = byId("who");
  try {
    who.value = localStorage.getItem(NAME) ?? "";
  } catch {
    // A browser that keeps nothing: the name is typed again.
  }
  who.addEventListener("change", () => {
    setError(who.closest(".field"), "");
    try {
      localStorage.setItem(NAME, who.value.trim());
    } catch {
      // As above.
    }
  });
  onChange(() => !byId("review").hidden && showReview());
}

/** Ask which tasks wait, and show them. */
export async function showReview() {
  try {
    const { tasks } = await ask("tasks?status=REVIEW&limit=50");
    keyed(byId("reviews"), tasks, (task) => `${task.id} ${task.started_at}`, reviewCard);
    byId("review-empty").hidden = tasks.length > 0;
  } catch (problem) {
    toast(`${problem.message} ${problem.hint}`);
  }
}

function reviewCard(task) {
  const id = `reason-${task.id}`;
  const reason = h("textarea", { id, rows: 2, maxLength: 2000, "aria-describedby": `${id}-error` });
  const field = h("div", { className: "field" }, h("label", { for: id }, "Reason"), reason, h("p", { className: "error", id: `${id}-error` }));
  const decide = (path, said, needsReason) => async () => {
    const who = byId("who").value.trim();
    if (!who) {
      setError(byId("who").closest(".field"), "Say who decides.");
      byId("who").focus();
      return;
    }
    if (needsReason && !reason.value.trim()) {
      setError(field, "Say why: the caller reads it.");
      reason.focus();
      return;
    }
    setError(field, "");
    await post(path, { who, ...(reason.value.trim() ? { reason: reason.value.trim() } : {}) });
    toast(`${said}: ${titleOf(task)}`);
    await showReview();
    byId("main").focus({ preventScroll: true }); // the button that had it is gone
  };
  const links = task.links.review;
  const element = h("article", { className: "card review", "data-task": task.id },
    h("header", {}, h("h2", {}, titleOf(task)), h("a", { href: `#/tasks/${task.id}` }, "Details")),
    player(task, links.output),
    task.error && errorCallout(task.error),
    h("details", {}, h("summary", {}, "What the quality gate saw"), task.quality ? quality(task.quality) : "Nothing was kept."),
    field,
    h("div", { className: "actions" },
      button("Approve", decide(links.approve, "Approved", false), "primary"),
      button("Make it again", decide(links.rerender, "It is made again", false)),
      button("Reject", decide(links.reject, "Rejected", true), "danger")),
    h("p", { className: "hint" }));
  element.update = (now) => setText(element.lastElementChild, `Made ${ago(now.started_at ?? now.created_at)}`);
  return element;
}
