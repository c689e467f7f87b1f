"""The commands' way to a running service: `greenroom.client`, with its errors in the words of a command."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import quote

import httpx

from app.cli.errors import EXIT_INPUT, CommandError
from greenroom.client import ApiError, ChecksumMismatch, Client, ServiceUnreachable, Task
from greenroom.client.arguments import OnBytes
from greenroom.client.connection import ATTEMPTS
from greenroom.client.errors import PASSING_4XX

_PAGE = 200
"""The most tasks that the service gives at once."""


class Refused(CommandError):
    """The service answered with an error: its problem details in this program's words."""

    def __init__(self, error: ApiError) -> None:
        message = error.message
        if error.field and not message.startswith(f"{error.field}: "):
            message = f"{error.field}: {message}"
        caller = 400 <= error.status < 500 and error.status not in PASSING_4XX
        exit_code = EXIT_INPUT if caller and error.status != 404 else 1
        super().__init__(error.code, message, error.hint, exit_code=exit_code)


class ServiceClient(AbstractContextManager["ServiceClient"]):
    """One service, spoken to over HTTP. Every call retries what is transient and raises `CommandError` otherwise."""

    def __init__(self, url: str, *, attempts: int = ATTEMPTS) -> None:
        try:
            self._client = Client(url, attempts=attempts)
        except httpx.InvalidURL as error:
            raise _unreachable(url, str(error)) from error
        self.url = self._client.url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    @contextlib.contextmanager
    def _words(self) -> Iterator[None]:
        try:
            yield
        except ApiError as error:
            raise Refused(error) from error
        except ServiceUnreachable as error:
            if isinstance(error.__cause__, httpx.TimeoutException):
                raise CommandError("UPSTREAM_TIMEOUT", str(error)) from error
            raise _unreachable(self.url, str(error.__cause__ or error)) from error
        except ChecksumMismatch as error:
            raise CommandError(
                "OUTPUT_INVALID", str(error), "Fetch it again; the video is kept by the service."
            ) from error

    def request(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """One request that is answered with a JSON object; `arguments` are httpx's."""
        with self._words():
            return self._client.request(method, path, **arguments)

    def upload(self, path: Path, on_bytes: OnBytes) -> str:
        """Stream a file to `POST /uploads`; returns its `upload:<id>`."""
        with self._words():
            return self._client.upload(path, on_bytes=on_bytes)["uri"]

    def generate(self, request: Mapping[str, Any], key: str) -> dict[str, Any]:
        """`POST /generate` under an idempotency key, so that a repeated send makes one task."""
        return self.submit("/generate", request, key)

    def submit(self, path: str, request: Mapping[str, Any], key: str) -> dict[str, Any]:
        """A new task from any address that makes one, under an idempotency key."""
        return self.request("POST", path, json=dict(request), headers={"idempotency-key": key})

    def task(self, task_id: str, wait_s: float = 0.0) -> tuple[dict[str, Any], float]:
        """The task, and after how many seconds the service says that asking again pays (0 = it did not say).

        With `wait_s` the answer comes when the task is finished, after that time at the latest.
        """
        with self._words():
            task, again_s = self._client.look(task_id, wait_s)
            return cast(dict[str, Any], task), again_s

    def tasks(self, *, status: list[str], limit: int) -> list[dict[str, Any]]:
        """The newest `limit` tasks, page by page."""
        filters = {"limit": min(limit, _PAGE), "status": status or None}
        found: list[dict[str, Any]] = []
        with self._words():
            for task in self._client.tasks(**filters):
                found.append(cast(dict[str, Any], task))
                if len(found) == limit:
                    break
        return found

    def cancel(self, task_id: str) -> dict[str, Any]:
        """Ask for cancellation: `{id, outcome, task}`, outcome `cancelled`, `requested` or `already_terminal`."""
        return self.request("POST", f"/tasks/{quote(task_id, safe='')}/cancel")

    def download(self, task: Mapping[str, Any], target: Path, on_bytes: OnBytes) -> None:
        """Fetch the task's video to `target`: its checksum is compared and the file appears whole or not at all."""
        with self._words():
            self._client.download(cast(Task, task), target, on_bytes=on_bytes)


def _unreachable(url: str, why: str) -> CommandError:
    hint = "Start it with `greenroom serve`, or name another with --url."
    return CommandError("UPSTREAM_CONNECTION", f"{url} cannot be reached: {why}", hint)
