/**
 * Tasks as they change. One event stream tells of all of them; while there is none, watched tasks are long-polled.
 * A stream says only that something happened: what a task is, it tells itself.
 */
import { address, ask, getTask } from "./api.js";

const CHANGES = ["queued", "running", "retry_wait", "review", "succeeded", "failed", "cancelled", "cancel_requested", "released"];
const HIDDEN_MS = 60_000; // A page that nobody looks at gives its connection back: browsers grant six to a host.
const REOPEN_MS = 10_000;
const SAFETY_MS = 15_000; // Whatever happens to the stream, nothing shown is older than this.
const SETTLE_MS = 250; // Queue positions change with every task that starts: asked for at most so often.

const watched = new Map();
const changeListeners = new Set();
const progressListeners = new Set();
let stream = null;
let live = false;
let hiddenTimer, reopenTimer, positionsTimer;
let tellState = () => {};

/** Be told of a task now and whenever it changes (null: there is no such task). Gives what ends that. */
export function watch(id, listener) {
  let entry = watched.get(id);
  if (!entry) watched.set(id, (entry = { task: undefined, listeners: new Set(), asking: false, again: false }));
  entry.listeners.add(listener);
  if (entry.task === undefined) refresh(id);
  else listener(entry.task);
  return () => {
    entry.listeners.delete(listener);
    if (!entry.listeners.size) watched.delete(id);
  };
}

/** Be told that some task changed its status. */
export const onChange = (listener) => changeListeners.add(listener);

/** Be told how far a running task is: `listener(id, progress)`. */
export const onProgress = (listener) => progressListeners.add(listener);

/** Ask for a watched task anew. */
export async function refresh(id) {
  const entry = watched.get(id);
  if (!entry) return;
  if (entry.asking) {
    entry.again = true;
    return;
  }
  entry.asking = true;
  try {
    do {
      entry.again = false;
      show(entry, await getTask(id));
    } while (entry.again);
  } catch (problem) {
    if (problem.status === 404) show(entry, null);
  } finally {
    entry.asking = false;
  }
}

function show(entry, task) {
  entry.task = task;
  for (const listener of [...entry.listeners]) listener(task);
}

/** Begin. `onState(live)` is told whether events arrive at once. */
export function start(onState) {
  tellState = onState;
  open();
  document.addEventListener("visibilitychange", () => {
    clearTimeout(hiddenTimer);
    if (document.hidden) hiddenTimer = setTimeout(close, HIDDEN_MS);
    else if (!stream) open();
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => event.persisted && open());
  setInterval(catchUp, SAFETY_MS);
  poll();
}

function open() {
  clearTimeout(reopenTimer);
  stream?.close();
  stream = new EventSource(address("events"));
  stream.onopen = () => {
    setLive(true);
    catchUp();
  };
  stream.onerror = () => {
    setLive(false);
    // A network error is tried again by the browser; an answer that is no stream is not.
    if (stream?.readyState === EventSource.CLOSED) reopenTimer = setTimeout(open, REOPEN_MS);
  };
  for (const name of CHANGES) stream.addEventListener(`task.${name}`, changed);
  stream.addEventListener("task.progress", progressed);
  stream.addEventListener("gap", catchUp);
}

function close() {
  clearTimeout(reopenTimer);
  stream?.close();
  stream = null;
  setLive(false);
}

function setLive(now) {
  live = now;
  tellState(now);
}

function changed(event) {
  const { task_id: id } = JSON.parse(event.data);
  refresh(id);
  for (const listener of changeListeners) listener(id);
  positionsTimer ??= setTimeout(() => {
    positionsTimer = undefined;
    for (const [other, entry] of watched) if (entry.task?.queue_position != null) refresh(other);
  }, SETTLE_MS);
}

function progressed(event) {
  const { task_id: id, phase, done, total, eta_s } = JSON.parse(event.data);
  const progress = { phase, done, total, eta_s, fraction: total > 0 ? Math.min(done / total, 0.99) : null };
  const entry = watched.get(id);
  if (entry?.task?.status === "RUNNING") show(entry, { ...entry.task, progress });
  for (const listener of progressListeners) listener(id, progress);
}

function catchUp() {
  if (document.hidden && !stream) return;
  for (const [id, entry] of watched) if (!entry.task?.is_terminal) refresh(id);
  for (const listener of changeListeners) listener(null);
}

/** Without a stream: ask for each watched task in turns of a second; the answer comes sooner where a task ends. */
async function poll() {
  for (;;) {
    const open = [...watched].filter(([, entry]) => entry.task && !entry.task.is_terminal);
    if (live || !open.length || document.hidden) {
      await new Promise((resolve) => setTimeout(resolve, 1000));
      continue;
    }
    await Promise.all(open.map(([id, entry]) => longPoll(id, entry)));
  }
}

async function longPoll(id, entry) {
  try {
    const task = await ask(`tasks/${encodeURIComponent(id)}?wait=1`);
    if (watched.get(id) !== entry) return;
    show(entry, task);
    if (task.is_terminal) for (const listener of changeListeners) listener(id);
  } catch {
    await new Promise((resolve) => setTimeout(resolve, 2000)); // not reachable: the state of the page says so
  }
}
