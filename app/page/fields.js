/** Errors of a form: each at its field, the rest above the button. */
import { h } from "./dom.js";

/** Take back all errors that stand in `form`. */
export function clearErrors(form) {
  for (const field of form.querySelectorAll("[data-field]")) setError(field, "");
}

/** Show an error at a field; "" takes it back. */
export function setError(field, message, hint = "") {
  const place = field.querySelector(".error");
  const text = [message, hint].filter(Boolean).join(" ");
  if (place.textContent !== text) place.textContent = text;
  field.classList.toggle("wrong", Boolean(text));
  const input = field.querySelector("input, select, textarea");
  if (text) input?.setAttribute("aria-invalid", "true");
  else input?.removeAttribute("aria-invalid");
}

/**
 * Show a problem: its errors at the fields of `form` that they name (`options.strength` also at `options`), whatever
 * has no field there in `callout`. Focus goes to the first wrong field.
 */
export function showProblem(problem, form, callout) {
  const rest = [];
  let first = null;
  const entries = problem.errors.length ? problem.errors
    : [{ field: problem.field, detail: problem.message, hint: problem.hint }];
  for (const entry of entries) {
    const field = fieldOf(form, entry.field);
    if (!field) rest.push(entry.field ? { ...entry, detail: `${entry.field}: ${entry.detail}` } : entry);
    else {
      setError(field, entry.detail, entry.hint);
      first ??= field;
    }
  }
  callout.hidden = !rest.length;
  callout.replaceChildren(...rest.map((entry) =>
    h("p", {}, h("strong", {}, entry.detail), entry.hint ? ` ${entry.hint}` : "")));
  if (rest.length && problem.requestId && problem.status >= 500) {
    callout.append(h("p", { className: "hint" }, `Request ${problem.requestId}`));
  }
  if (!first) return;
  const hidden = first.closest("details:not([open])");
  if (hidden) hidden.open = true;
  first.querySelector("input, select, textarea")?.focus();
}

function fieldOf(form, name) {
  for (let path = name ?? ""; path; path = path.slice(0, Math.max(path.lastIndexOf("."), 0))) {
    const found = [...form.querySelectorAll("[data-field]")].find((field) => field.dataset.field === path && !field.hidden);
    if (found && !found.closest("[hidden]")) return found;
  }
  return null;
}

/** A problem in one callout, for what has no form. */
export function showCallout(callout, problem) {
  callout.hidden = !problem;
  if (problem) callout.replaceChildren(h("p", {}, h("strong", {}, problem.message), problem.hint ? ` ${problem.hint}` : ""));
}
