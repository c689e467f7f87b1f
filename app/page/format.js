/** Values as people read them. */

export const STATUSES = ["QUEUED", "RUNNING", "RETRY_WAIT", "REVIEW", "SUCCEEDED", "FAILED", "CANCELLED"];
const STATUS_WORDS = {
  QUEUED: "Waiting", RUNNING: "Running", RETRY_WAIT: "Trying again", REVIEW: "In review",
  SUCCEEDED: "Done", FAILED: "Failed", CANCELLED: "Cancelled",
};
const PHASE_WORDS = {
  load: "Loading", fetch: "Fetching", analyse: "Studying face and speech", render: "Rendering",
  encode: "Finishing the video", done: "Done",
};
const WAIT_WORDS = {
  cancelling: "Cancelling",
  review: "A person decides",
  predecessor: "Waits for another task",
  inputs: "The other task's video is taken in",
  scheduled: "Starts later",
  twin: "The same is being made already",
  retry_backoff: "Tries again soon",
  draining: "The service is stopping; it goes on after the restart",
  paused: "The queue is paused",
  no_ready_slot: "No slot is ready yet",
  no_tier: "No tier that may serve it is configured now",
  breaker_open: "Every tier that may serve it is switched off for now",
};

export const statusWord = (status) => STATUS_WORDS[status] ?? status;
export const phaseWord = (phase) => PHASE_WORDS[phase] ?? words(phase ?? "");

/** "some_name" as "Some name". */
export function words(name) {
  const text = name.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** A task's title: its caller's, or its id. */
export function titleOf(task) {
  const title = task.metadata?.title;
  return typeof title === "string" && title.trim() ? title : task.id;
}

/** What an unfinished task does or waits for, in one line. */
export function situation(task) {
  if (task.status === "RUNNING" && task.wait_reason !== "cancelling") {
    const { phase, done, total, eta_s: eta } = task.progress;
    const parts = [phaseWord(phase) || "Starting"];
    if (phase === "render" && total) parts.push(`frame ${done} of ${total}`);
    if (eta !== null && eta !== undefined && eta >= 1) parts.push(`about ${seconds(eta)} left`);
    return parts.join(", ");
  }
  const until = task.wait_until ? ` (${clock(task.wait_until)})` : "";
  if (task.wait_reason && task.wait_reason !== "slot") {
    const cause = task.wait_cause ? ` after ${task.wait_cause}` : "";
    return (WAIT_WORDS[task.wait_reason] ?? words(task.wait_reason)) + cause + until;
  }
  const eta = task.progress.eta_s;
  const done = eta !== null && eta >= 1 ? `, done in about ${seconds(Math.ceil(eta))}` : "";
  if (task.queue_position === 0) return `Next in line${done}`;
  if (task.queue_position > 0) return `${task.queue_position} ${task.queue_position === 1 ? "task goes" : "tasks go"} first${done}`;
  return `Waits for its turn${done}`;
}

/** Seconds as "0.8 s", "12 s", "3 min 5 s", "2 h 10 min". */
export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 9.95) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min${whole % 60 ? ` ${whole % 60} s` : ""}`;
  const minutes = Math.round(whole / 60);
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h${minutes % 60 ? ` ${minutes % 60} min` : ""}`;
  return `${Math.floor(minutes / 1440)} d ${Math.floor((minutes % 1440) / 60)} h`;
}

/** Seconds between two times of the service; null where one is missing. */
export const between = (start, end) => (start && end ? (Date.parse(end) - Date.parse(start)) / 1000 : null);

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let step = 0;
  while (value >= 1000 && step < units.length - 1) { value /= 1000; step += 1; }
  return `${step && value < 100 ? value.toFixed(1) : Math.round(value)} ${units[step]}`;
}

export const percent = (share) => (share === null || share === undefined ? "–" : `${Math.round(share * 1000) / 10} %`);

/** A time of day, with the date where it is not today. */
export function clock(at) {
  const moment = new Date(at);
  const time = { hour: "2-digit", minute: "2-digit", second: "2-digit" };
  const today = moment.toDateString() === new Date().toDateString();
  return moment.toLocaleString(undefined, today ? time : { ...time, month: "short", day: "numeric" });
}

/** "just now", "5 min ago", or the date. */
export function ago(at) {
  const passed = (Date.now() - Date.parse(at)) / 1000;
  if (passed < 45) return "just now";
  if (passed < 86400) return `${seconds(passed < 3600 ? Math.round(passed / 60) * 60 : passed)} ago`;
  return clock(at);
}
