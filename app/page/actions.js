/** What can be done about a task: watch the details, download, cancel, try again. */
import { address, newKey, post } from "./api.js";
import { h, toast } from "./dom.js";
import { refresh } from "./live.js";

/** Buttons for `task` as it is now. `onRetried(id)` is told of the new task of a retry; `details: false` leaves that out. */
export function actionButtons(task, { onRetried = () => {}, details = true } = {}) {
  const buttons = [];
  if (task.links.output) {
    buttons.push(h("a", { className: "button primary", href: address(task.links.output), download: "" }, "Download"));
  }
  if (task.links.retry) {
    const key = newKey(); // one click or three: one new task
    buttons.push(button("Try again", async () => {
      const made = await post(task.links.retry, undefined, { "Idempotency-Key": key });
      toast("Trying again, as a new task.");
      onRetried(made.id);
    }, "primary"));
  }
  if (task.links.cancel) {
    const asked = task.wait_reason === "cancelling";
    const cancel = button(asked ? "Cancelling" : "Cancel", async () => {
      const { outcome } = await post(task.links.cancel);
      toast({ cancelled: "Cancelled.", requested: "It is being stopped.", already_terminal: "It had ended already." }[outcome] ?? outcome);
      refresh(task.id);
    });
    cancel.disabled = asked;
    buttons.push(cancel);
  }
  if (details) buttons.push(h("a", { className: "button", href: `#/tasks/${task.id}` }, "Details"));
  return buttons;
}

/** A button that says so where its work is refused, and takes no second click meanwhile. */
export function button(label, work, className = "") {
  const made = h("button", { type: "button", className }, label);
  made.onclick = async () => {
    if (made.getAttribute("aria-disabled")) return;
    made.setAttribute("aria-disabled", "true");
    try {
      await work();
    } catch (problem) {
      toast(`${problem.message} ${problem.hint ?? ""}`);
    } finally {
      made.removeAttribute("aria-disabled");
    }
  };
  return made;
}
