/** The form that makes a task, and the tasks made with it. */
import { ask, generate, newKey } from "./api.js";
import { TaskCard } from "./card.js";
import { byId, h, keyed, setText, toast } from "./dom.js";
import { Drop } from "./drop.js";
import { clearErrors, setError, showProblem } from "./fields.js";
import { optionControls, RENDERER } from "./options.js";

const REMEMBERED = "greenroom.mine";
const MOST = 12;

let drops, options, key, submitting;
let renderers = new Map();

export function startCreate() {
  const form = byId("form");
  const field = (name) => form.querySelector(`[data-field="${name}"]`);
  drops = { source: new Drop(field("source"), touched), audio: new Drop(field("audio"), touched) };
  options = optionControls(byId("renderer-options"));
  form.addEventListener("input", touched);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit(form);
  });
  byId("priority").addEventListener("input", () => setText(byId("priority-value"), byId("priority").value));
  byId("renderer").addEventListener("change", showOptions);
  // A file dropped beside its place goes where it fits, and never replaces the page.
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    const file = event.dataTransfer?.files[0];
    if (!file || byId("create").hidden) return;
    const isVoice = file.type.startsWith("audio/") || (file.type.startsWith("video/") && drops.source.file);
    drops[isVoice ? "audio" : "source"].take(file);
  });
  showMine();
  loadTiers();
}

/** What was asked for has changed: the next submission is another request. */
function touched() {
  key = undefined;
}

async function loadTiers() {
  try {
    const { tiers } = await ask("tiers");
    renderers = new Map(tiers.map((tier) => [tier.name, tier.renderer]));
    const select = byId("renderer");
    for (const tier of tiers.filter((one) => one.enabled)) {
      const note = tier.degraded ? " (a stopgap)" : tier.renderer === tier.name ? "" : ` (${tier.renderer})`;
      select.append(h("option", { value: tier.name }, tier.name + note));
    }
  } catch {
    // Without the list the service chooses; that it cannot be reached is said at the top of the page.
  }
}

const hasOptions = (tier) => !tier || (renderers.get(tier) ?? RENDERER) === RENDERER;

function showOptions() {
  const shown = hasOptions(byId("renderer").value);
  for (const field of byId("renderer-options").children) field.hidden = !shown;
}

/** The body of the request. Raises an error about the JSON of the options. */
function request() {
  const tier = byId("renderer").value;
  const typed = byId("json-options").value.trim();
  const more = typed ? JSON.parse(typed) : {};
  if (typeof more !== "object" || Array.isArray(more) || more === null) throw new SyntaxError("not an object");
  const title = byId("title").value.trim() || `${stem(drops.source.file)}, ${stem(drops.audio.file)}`;
  return {
    source: drops.source.uri,
    audio: drops.audio.uri,
    options: { ...(hasOptions(tier) ? options.values() : {}), ...more },
    priority: Number(byId("priority").value),
    metadata: { title },
    ...(tier ? { renderer: tier } : {}),
  };
}

const stem = (file) => file.name.replace(/\.[^.]*$/, "");

async function submit(form) {
  if (submitting) return;
  clearErrorsBut(form);
  const missing = ["source", "audio"].filter((name) => !drops[name].sent);
  if (missing.length) {
    const words = { source: "Add a photo or a video.", audio: "Add a voice recording." };
    for (const name of missing) if (!drops[name].field.classList.contains("wrong")) setError(drops[name].field, words[name]);
    drops[missing[0]].input.focus();
    return;
  }
  submitting = true;
  const button = byId("submit");
  button.setAttribute("aria-disabled", "true");
  try {
    setText(byId("form-state"), "Sending");
    await Promise.all([drops.source.sent, drops.audio.sent]);
    if (!drops.source.uri || !drops.audio.uri) return; // said at the field by then
    key ??= newKey(); // kept until the form changes: sent twice, it is one task
    const task = await generate(request(), key);
    key = undefined;
    remember(task.id);
    toast("Accepted. Its progress is shown under “Your videos”.");
    if (matchMedia("(max-width: 60rem)").matches) byId("mine-title").scrollIntoView({ block: "start" });
  } catch (problem) {
    if (problem instanceof SyntaxError) {
      setError(form.querySelector('[data-field="options"]'), "This is no JSON object.", 'Write it like {"max_side": 720}.');
      byId("options").open = true;
      byId("json-options").focus();
    } else showProblem(problem, form, byId("form-problem"));
  } finally {
    submitting = false;
    button.removeAttribute("aria-disabled");
    setText(byId("form-state"), "");
  }
}

/** A file that could not be used stays marked until another one is chosen. */
function clearErrorsBut(form) {
  const kept = Object.values(drops).filter((drop) => drop.file && !drop.sent).map((drop) => [drop, drop.field.querySelector(".error").textContent]);
  clearErrors(form);
  byId("form-problem").hidden = true;
  for (const [drop, text] of kept) setError(drop.field, text);
}

// -- the tasks made here

function mine() {
  try {
    const found = JSON.parse(localStorage.getItem(REMEMBERED) ?? "[]");
    return Array.isArray(found) ? found.filter((id) => typeof id === "string").slice(0, MOST) : [];
  } catch {
    return [];
  }
}

function store(ids) {
  try {
    localStorage.setItem(REMEMBERED, JSON.stringify(ids.slice(0, MOST)));
  } catch {
    // A browser that keeps nothing: the list lasts as long as the page.
  }
  showMine(ids);
}

/** Show a task under "Your videos". */
export function remember(id) {
  store([id, ...current.filter((other) => other !== id)]);
}

function forget(id) {
  store(current.filter((other) => other !== id));
}

let current = [];

function showMine(ids = mine()) {
  current = ids.slice(0, MOST);
  byId("mine-empty").hidden = current.length > 0;
  keyed(byId("mine"), current, (id) => id, (id) => new TaskCard(id, { onRetried: remember, onForget: forget }).element);
}
