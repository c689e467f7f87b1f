/** Attempts of a task: where each ran and why, how it ended, and what was decided then. */
import { h } from "./dom.js";
import { between, clock, seconds, words } from "./format.js";

/** One attempt as an item of a list. */
export function attempt(one) {
  const took = between(one.started_at, one.ended_at);
  const when = took === null ? `since ${clock(one.started_at)}` : `${clock(one.started_at)}, ${seconds(took)}`;
  return h("li", { "data-outcome": one.outcome ?? "running" },
    h("p", {}, h("strong", {}, `${one.n}. ${one.tier}`), ` on ${one.slot}, ${when}`, h("span", { className: "outcome" }, words(one.outcome ?? "running"))),
    one.why && h("p", { className: "hint" }, "Why here: ", one.why.reason),
    one.error && h("div", {}, h("p", {}, h("code", {}, one.error.code), ` ${one.error.message}`), h("p", { className: "hint" }, one.error.hint)),
    one.followed_by && h("p", {}, "Then: ", one.followed_by, one.backoff_ms ? ` (after ${seconds(one.backoff_ms / 1000)})` : ""),
    considered(one.why),
    more("What the error records", one.error?.detail),
    more("Postmortem", one.postmortem));
}

/** How each tier stood when the place was chosen. */
function considered(why) {
  const tiers = why?.considered ?? [];
  if (!tiers.length) return null;
  const names = [...new Set(tiers.flatMap((tier) => Object.keys(tier)))];
  return h("details", {}, h("summary", {}, "How the tiers stood"),
    h("div", { className: "scroll", tabIndex: 0 }, h("table", {}, h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, words(name))))),
      h("tbody", {}, tiers.map((tier) => h("tr", {}, names.map((name) => h("td", {}, shown(tier[name])))))))));
}

function more(title, value) {
  if (!value || !Object.keys(value).length) return null;
  return h("details", {}, h("summary", {}, title), h("pre", { tabIndex: 0 }, JSON.stringify(value, null, 2)));
}

function shown(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "number") return String(Math.round(value * 100) / 100);
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
