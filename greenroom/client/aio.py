"""The client for asyncio. `greenroom.client.sync` gives the same to threads."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import httpx

from greenroom.client.arguments import Input, OnBytes, OnTask
from greenroom.client.connection import ATTEMPTS, Connection, segment
from greenroom.client.errors import (
    ChecksumMismatch,
    GreenroomError,
    TaskNotSucceeded,
    WaitTimeout,
)
from greenroom.client.fetching import fetch, sha256_of
from greenroom.client.following import follow
from greenroom.client.models import Event, Progress, Task, Upload

_LONG_POLL_S = 30.0
_SOONEST_S = 0.25
_CHUNK = 256 * 1024


class AsyncClient:
    """One service, spoken to over HTTP. Use it as a context manager; safe for many tasks of one event loop."""

    def __init__(
        self,
        url: str | None = None,
        *,
        client_id: str | None = None,
        attempts: int = ATTEMPTS,
        timeout_s: float = 30.0,
        headers: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`url`: the service (else the variable GREENROOM_URL, else this machine, port 8000).

        `client_id` counts against the limit of waiting tasks per client; `attempts` bounds the tries of one request.
        """
        self._connection = Connection(
            url, client_id=client_id, attempts=attempts, timeout_s=timeout_s, headers=headers, transport=transport
        )
        self.url = self._connection.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._connection.close()

    # -- submitting -------------------------------------------------------------------------------------------------

    async def upload(self, file: Path, *, on_bytes: OnBytes | None = None) -> Upload:
        """Send a file. Raises `ApiError`, `ServiceUnreachable`, OSError."""
        total = file.stat().st_size

        async def body() -> AsyncIterator[bytes]:
            done = 0
            with file.open("rb") as source:
                while chunk := await asyncio.to_thread(source.read, _CHUNK):
                    yield chunk
                    done += len(chunk)
                    if on_bytes is not None:
                        on_bytes(done, total)

        async def once() -> httpx.Response:
            headers = {"content-type": "application/octet-stream", "content-length": str(total)}
            return await self._connection.request(
                "POST", "/uploads", params={"name": file.name}, content=body(), headers=headers
            )

        return cast(Upload, (await self._connection.call(once)).json())

    async def generate(
        self,
        source: Input,
        audio: Input,
        *,
        after: Sequence[Task | str] = (),
        idempotency_key: str | None = None,
        on_bytes: OnBytes | None = None,
        **fields: Any,
    ) -> Task:
        """Submit a task: a `Path` is uploaded first, a text is an address (`upload:...`, `https://...`, `file://...`),
        a task stands for its video. It need not have finished: the new one waits for it, and for those in `after`.

        `fields` are those of `POST /generate` (options, renderer, priority, metadata ...). Without a key one is made,
        so that what is sent again after a lost answer is the same task. Raises `ApiError`, `ServiceUnreachable`.
        """
        inputs = {"source": await self._address(source, on_bytes), "audio": await self._address(audio, on_bytes)}
        order = inputs | ({"after": [_id(task) for task in after]} if after else {}) | fields
        return await self._submit("/generate", order, idempotency_key)

    async def derive(
        self,
        task: Task | str,
        *,
        source: Input | None = None,
        audio: Input | None = None,
        idempotency_key: str | None = None,
        on_bytes: OnBytes | None = None,
        **changes: Any,
    ) -> Task:
        """Make a new task from an old one with changes; what is left out is as in the old one, inputs included.

        `changes` are fields of `POST /generate`; `options` and `metadata` are merged, None takes a member away or
        stands for the default. Raises `ApiError` (INPUTS_GONE once an input was removed), `ServiceUnreachable`.
        """
        for name, given in (("source", source), ("audio", audio)):
            if given is not None:
                changes[name] = await self._address(given, on_bytes)
        return await self._submit(f"/tasks/{segment(_id(task))}/derive", changes, idempotency_key)

    # -- looking ----------------------------------------------------------------------------------------------------

    async def task(self, task_id: str, *, wait_s: float = 0.0) -> Task:
        """A task as it is now, or when it ends, after `wait_s` (at most 60) at the latest."""
        return (await self.look(task_id, wait_s))[0]

    async def tasks(self, **filters: Any) -> AsyncGenerator[Task, None]:
        """Tasks, newest first, page by page. `filters` are the query parameters of `GET /tasks`."""
        given = {name: value for name, value in filters.items() if value is not None}
        page = await self.request("GET", "/tasks", params=httpx.QueryParams(given))
        while True:
            for task in page["tasks"]:
                yield cast(Task, task)
            if not page["links"]["next"]:
                return
            page = await self.request("GET", page["links"]["next"])

    async def events(
        self, task_id: str | None = None, *, types: Sequence[str] = (), after: int | None = None
    ) -> AsyncGenerator[Event, None]:
        """Events of one task until its end, or of all for ever. A broken connection goes on where it broke.

        Raises `ApiError`, and `ServiceUnreachable` once the service stays away.
        """
        async for event in follow(self._connection, task_id, types, after):
            if event is not None:
                yield event

    async def wait(
        self, task: Task | str, *, timeout_s: float | None = None, check: bool = True, on_task: OnTask | None = None
    ) -> Task:
        """The task when it has ended. It listens to the event stream; where that is cut off, it polls.

        A task in REVIEW goes on waiting for its person. Raises `TaskNotSucceeded` unless `check` is False or it
        succeeded, `WaitTimeout`, `ApiError`, `ServiceUnreachable`.
        """
        last = await self.task(task) if isinstance(task, str) else task
        try:
            async with asyncio.timeout(timeout_s):
                async for state in self._states(last):
                    last = state
                    if on_task is not None:
                        on_task(last)
        except TimeoutError:
            raise WaitTimeout(last, timeout_s or 0.0) from None
        if check and last["status"] != "SUCCEEDED":
            raise TaskNotSucceeded(last)
        return last

    async def download(self, task: Task | str, target: Path, *, on_bytes: OnBytes | None = None) -> Path:
        """Fetch a finished task's video. It goes on where it broke off, its checksum is compared, and `target` appears
        whole or not at all. Raises `ChecksumMismatch`, `TaskNotSucceeded`, `ApiError`, `ServiceUnreachable`, OSError.
        """
        whole = await self.task(task) if isinstance(task, str) else task
        output = whole["output"]
        if output is None:
            raise TaskNotSucceeded(whole)
        part = target.with_name(f".{target.name}.{output['sha256'][:16]}.part")
        await self._connection.call(
            lambda: fetch(self._connection, output["url"], output["sha256"], output["bytes"], part, on_bytes)
        )
        measured = await asyncio.to_thread(sha256_of, part)
        if measured != output["sha256"]:
            part.unlink()
            raise ChecksumMismatch(f"The download has SHA-256 {measured}, the service said {output['sha256']}.")
        part.replace(target)
        return target

    async def look(self, task_id: str, wait_s: float = 0.0) -> tuple[Task, float]:
        """As `task`, and after how many seconds the service says that asking again pays (0: it did not say)."""

        async def once() -> httpx.Response:
            query = {"wait": f"{wait_s:g}"} if wait_s else None
            return await self._connection.request(
                "GET", f"/tasks/{segment(task_id)}", params=query, timeout=httpx.Timeout(30.0 + wait_s)
            )

        response = await self._connection.call(once)
        again = response.headers.get("retry-after", "")
        return cast(Task, response.json()), float(again) if again.isdecimal() else 0.0

    # -- acting -----------------------------------------------------------------------------------------------------

    async def cancel(self, task_id: str) -> str:
        """Ask for cancellation: `cancelled`, `requested` (its render is told to stop) or `already_terminal`."""
        return str((await self.request("POST", f"/tasks/{segment(task_id)}/cancel"))["outcome"])

    async def retry(self, task_id: str, *, idempotency_key: str | None = None) -> Task:
        """Try a failed task again, as a new task, which is returned."""
        key = {"idempotency-key": idempotency_key or str(uuid.uuid4())}
        return cast(Task, await self.request("POST", f"/tasks/{segment(task_id)}/retry", headers=key))

    async def queue(self) -> dict[str, Any]:
        """The queue and the slots."""
        return await self.request("GET", "/queue")

    async def tiers(self) -> list[dict[str, Any]]:
        """The tiers, best first."""
        return cast(list[dict[str, Any]], (await self.request("GET", "/tiers"))["tiers"])

    async def request(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """Any other address of the service that answers with a JSON object. `arguments` are httpx's."""

        async def once() -> httpx.Response:
            return await self._connection.request(method, path, **arguments)

        return cast(dict[str, Any], (await self._connection.call(once)).json())

    # -- how --------------------------------------------------------------------------------------------------------

    async def _address(self, given: Input, on_bytes: OnBytes | None) -> str:
        if isinstance(given, Path):
            return (await self.upload(given, on_bytes=on_bytes))["uri"]
        return given if isinstance(given, str) else f"task:{given['id']}"

    async def _submit(self, path: str, order: Mapping[str, Any], idempotency_key: str | None) -> Task:
        key = {"idempotency-key": idempotency_key or str(uuid.uuid4())}
        return cast(Task, await self.request("POST", path, json=dict(order), headers=key))

    async def _states(self, task: Task) -> AsyncIterator[Task]:
        """The states of a task up to its end: by the stream while it holds, else by long polls."""
        yield task
        while not task["is_terminal"]:
            with contextlib.suppress(GreenroomError):
                async with contextlib.aclosing(follow(self._connection, task["id"])) as events:
                    async for event in events:
                        if event is None:
                            continue
                        if event["type"] == "task.progress":
                            task = _moved(task, event["data"])
                        else:
                            task = await self.task(task["id"])
                        yield task
                        if task["is_terminal"]:
                            return
            # The stream ended before the task, or there is none (a proxy that buffers): ask, and listen again.
            asked = time.monotonic()
            task, again_s = await self.look(task["id"], _LONG_POLL_S)
            yield task
            if not task["is_terminal"]:
                await asyncio.sleep(max(_SOONEST_S, min(again_s, _LONG_POLL_S) - (time.monotonic() - asked)))


def _moved(task: Task, told: Mapping[str, Any]) -> Task:
    """The task with the progress that an event told. Completion is the status, so `fraction` stays below 1."""
    fraction = min(told["done"] / told["total"], 0.99) if told["total"] else None
    progress = Progress(
        phase=told["phase"], done=told["done"], total=told["total"], fraction=fraction, eta_s=told["eta_s"]
    )
    return {**task, "status": "RUNNING", "progress": progress}


def _id(task: Task | str) -> str:
    return task if isinstance(task, str) else task["id"]
