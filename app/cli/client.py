"""The commands' way to a running service: requests, retries of transient answers, uploads and downloads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from app.cli.errors import EXIT_INPUT, CommandError

ATTEMPTS = 6
"""With the waits below a restart of the service (a few seconds) is ridden out."""
_BACKOFF = wait_random_exponential(multiplier=0.25, max=8.0)
_LONGEST_RETRY_AFTER_S = 60.0
_CHUNK = 256 * 1024
_PAGE = 200
"""The most tasks that the service gives at once."""
_FINAL_5XX = frozenset({501, 505})
_PASSING_4XX = frozenset({408, 425, 429})

T = TypeVar("T")

OnBytes = Callable[[int, int], None]
"""Called with bytes done and bytes in all (0 = unknown)."""


class Refused(CommandError):
    """The service answered with an error: its problem details in this program's words."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.retry_after_s = _seconds(response.headers.get("retry-after"))
        problem = _problem(response)
        code = str(problem.get("code") or f"HTTP_{self.status}")
        message = str(problem.get("detail") or problem.get("title") or f"The service answered {self.status}.")
        if problem.get("field") and not message.startswith(f"{problem['field']}: "):
            message = f"{problem['field']}: {message}"
        caller = 400 <= self.status < 500 and self.status not in _PASSING_4XX
        exit_code = EXIT_INPUT if caller and self.status != 404 else 1
        super().__init__(code, message, str(problem.get("hint") or ""), exit_code=exit_code)


def _problem(response: httpx.Response) -> Mapping[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _seconds(header: str | None) -> float | None:
    try:
        return min(float(header), _LONGEST_RETRY_AFTER_S) if header else None
    except ValueError:
        return None


def is_transient(error: BaseException) -> bool:
    """Whether the same request may well succeed a moment later: no answer, 408, 425, 429, 5xx but 501 and 505."""
    if isinstance(error, Refused):
        return error.status in _PASSING_4XX or (error.status >= 500 and error.status not in _FINAL_5XX)
    return isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_s if isinstance(error, Refused) else None
    return asked if asked is not None else _BACKOFF(state)


class ServiceClient(AbstractContextManager["ServiceClient"]):
    """One service, spoken to over HTTP. Every call retries what is transient and raises `CommandError` otherwise."""

    def __init__(self, url: str, *, attempts: int = ATTEMPTS) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url, timeout=httpx.Timeout(30.0, connect=5.0), headers={"accept": "application/json"}
        )
        self._retrying = Retrying(
            retry=retry_if_exception(is_transient), stop=stop_after_attempt(attempts), wait=_wait, reraise=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def _call(self, once: Callable[[], T]) -> T:
        try:
            return self._retrying(once)
        except httpx.TimeoutException as error:
            raise CommandError("UPSTREAM_TIMEOUT", f"{self.url} did not answer in time.") from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            message = f"{self.url} cannot be reached: {error}"
            hint = "Start it with `greenroom serve`, or name another with --url."
            raise CommandError("UPSTREAM_CONNECTION", message, hint) from error

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """One small request with its whole answer. Any status of 400 or more raises `Refused`."""

        def once() -> httpx.Response:
            response = self._http.request(method, path, **arguments)
            if response.status_code >= 400:
                raise Refused(response)
            return response

        return self._call(once)

    def upload(self, path: Path, on_bytes: OnBytes) -> str:
        """Stream a file to `POST /uploads`; returns its `upload:<id>`."""
        total = path.stat().st_size

        def body() -> Iterator[bytes]:
            with path.open("rb") as file:
                done = 0
                while chunk := file.read(_CHUNK):
                    yield chunk
                    done += len(chunk)
                    on_bytes(done, total)

        def once() -> httpx.Response:
            headers = {"content-type": "application/octet-stream", "content-length": str(total)}
            response = self._http.post("/uploads", params={"name": path.name}, content=body(), headers=headers)
            if response.status_code >= 400:
                raise Refused(response)
            return response

        return str(self._call(once).json()["uri"])

    def generate(self, request: Mapping[str, Any], key: str) -> dict[str, Any]:
        """`POST /generate` under an idempotency key, so that a repeated send makes one task."""
        headers = {"idempotency-key": key}
        return _object(self.request("POST", "/generate", json=dict(request), headers=headers))

    def task(self, task_id: str, wait_s: float = 0.0) -> tuple[dict[str, Any], float]:
        """The task, and after how many seconds the service says that asking again pays (0 = it did not say).

        With `wait_s` the answer comes when the task is finished, after that time at the latest.
        """
        parameters = {"wait": f"{wait_s:g}"} if wait_s else {}
        response = self.request("GET", f"/tasks/{_segment(task_id)}", params=parameters, timeout=30.0 + wait_s)
        return _object(response), _seconds(response.headers.get("retry-after")) or 0.0

    def tasks(self, *, status: list[str], limit: int) -> list[dict[str, Any]]:
        """The newest `limit` tasks, page by page."""
        first = httpx.QueryParams({"limit": min(limit, _PAGE), **({"status": status} if status else {})})
        page = _object(self.request("GET", f"/tasks?{first}"))
        found: list[dict[str, Any]] = page["tasks"]
        while len(found) < limit and page["links"]["next"]:
            page = _object(self.request("GET", page["links"]["next"]))
            found += page["tasks"]
        return found[:limit]

    def cancel(self, task_id: str) -> dict[str, Any]:
        """Ask for cancellation: `{id, outcome, task}`, outcome `cancelled`, `requested` or `already_terminal`."""
        return _object(self.request("POST", f"/tasks/{_segment(task_id)}/cancel"))

    def download(self, task: Mapping[str, Any], target: Path, on_bytes: OnBytes) -> None:
        """Fetch the task's video to `target`: its checksum is compared and the file appears whole or not at all."""
        output = cast(Mapping[str, Any], task["output"])
        part = target.with_name(f".{target.name}.part")

        def once() -> str:
            digest, done = hashlib.sha256(), 0
            with (
                self._http.stream("GET", output["url"], headers={"accept": "*/*"}) as response,
                part.open("wb") as file,
            ):
                if response.status_code >= 400:
                    response.read()
                    raise Refused(response)
                for chunk in response.iter_bytes(_CHUNK):
                    file.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    on_bytes(done, int(output.get("bytes") or 0))
            return digest.hexdigest()

        try:
            measured = self._call(once)
            if measured != output["sha256"]:
                message = f"The download has SHA-256 {measured}, the service said {output['sha256']}."
                raise CommandError("OUTPUT_INVALID", message, "Fetch it again; the video is kept by the service.")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


def _segment(task_id: str) -> str:
    from urllib.parse import quote

    return quote(task_id, safe="")


def _object(response: httpx.Response) -> dict[str, Any]:
    body = response.json()
    assert isinstance(body, dict)
    return body
