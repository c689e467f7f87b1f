/** Talking to the service: addresses relative to the page, problem details as exceptions, uploads with progress. */

/** Where the page lies; behind a proxy that is below a path of its own. */
const BASE = new URL(".", document.baseURI);
const TIMEOUT_MS = 30_000;

/** An address of the service ("/tasks/x" in its answers, "tasks/x" here) as one that the browser can open. */
export const address = (path) => new URL(path.replace(/^\/+/, ""), BASE).href;

/** An answer that says no, or none at all (`status` 0). `errors` has one entry per wrong field. */
export class Problem extends Error {
  constructor(body, status) {
    super(body.detail || body.title || `The service answered ${status}.`);
    this.status = status;
    this.code = body.code ?? "";
    this.hint = body.hint ?? "";
    this.field = body.field ?? null;
    this.errors = body.errors ?? [];
    this.requestId = body.request_id ?? "";
  }
}

const unreachable = (hint) =>
  new Problem({ title: "The service does not answer.", hint, code: "UNREACHABLE" }, 0);

/** A JSON answer. Raises `Problem`. Options: `method`, `json` (the body), `headers`, `signal`, `timeout` (ms). */
export async function ask(path, { method = "GET", json, headers = {}, signal, timeout = TIMEOUT_MS } = {}) {
  const limit = AbortSignal.timeout(timeout);
  let answer, text;
  try {
    answer = await fetch(address(path), {
      method,
      headers: json === undefined ? headers : { ...headers, "Content-Type": "application/json" },
      body: json === undefined ? undefined : JSON.stringify(json),
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
      cache: "no-store",
    });
    text = await answer.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw unreachable("Check that it runs and that this device reaches it, then try again.");
  }
  return read(answer.status, text);
}

function read(status, text) {
  let body = {};
  try {
    body = text ? JSON.parse(text) : {};
  } catch {
    // Not ours: a proxy between page and service speaks HTML.
    if (status < 400) throw new Problem({ detail: "The answer is no JSON.", hint: "Something between page and service changed it." }, status);
  }
  if (status >= 400) throw new Problem(body, status);
  return body;
}

/** Send one file. `onProgress(share)` while it goes. Gives the upload resource. Raises `Problem`. */
export function upload(file, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address(`uploads?name=${encodeURIComponent(file.name)}`));
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onload = () => {
      try {
        resolve(read(request.status, request.responseText));
      } catch (error) {
        reject(error);
      }
    };
    request.onerror = () => reject(unreachable("The file did not arrive: choose it again."));
    request.onabort = () => reject(new DOMException("replaced by another file", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

/** A new idempotency key. (`crypto.randomUUID` is missing where a page does not come over HTTPS.) */
export function newKey() {
  const random = crypto.getRandomValues(new Uint8Array(16));
  return "page-" + Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export const getTask = (id, options) => ask(`tasks/${encodeURIComponent(id)}`, options);
export const generate = (body, key) => ask("generate", { method: "POST", json: body, headers: { "Idempotency-Key": key } });
export const post = (path, json, headers) => ask(path, { method: "POST", json, headers });
