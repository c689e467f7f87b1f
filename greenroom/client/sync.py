"""The client for threads: `AsyncClient`, driven by an event loop in a thread of its own.

Callbacks are called in that thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from greenroom.client.aio import AsyncClient
from greenroom.client.arguments import Input, OnBytes, OnTask
from greenroom.client.connection import ATTEMPTS
from greenroom.client.models import Event, Task, Upload

T = TypeVar("T")


class Client(AbstractContextManager["Client"]):
    """As `AsyncClient`, for threads: the same methods, the same errors. Safe to use from many threads."""

    def __init__(
        self,
        url: str | None = None,
        *,
        client_id: str | None = None,
        attempts: int = ATTEMPTS,
        timeout_s: float = 30.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """See `AsyncClient`."""
        self._closed = False
        self._loop = asyncio.new_event_loop()
        # A daemon: a program that is interrupted must not wait for it.
        self._thread = threading.Thread(target=self._loop.run_forever, name="greenroom-client", daemon=True)
        self._thread.start()
        self._client = AsyncClient(url, client_id=client_id, attempts=attempts, timeout_s=timeout_s, headers=headers)
        self.url = self._client.url

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """Close all connections and end the thread."""
        if self._closed:
            return
        self._closed = True
        self._run(self._end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        """Give up what another thread still waits for, and close all connections."""
        await _end_others()
        await self._client.close()
        await asyncio.get_running_loop().shutdown_asyncgens()
        await _end_others()

    def upload(self, file: Path, *, on_bytes: OnBytes | None = None) -> Upload:
        """Send a file. See `AsyncClient.upload`."""
        return self._run(lambda: self._client.upload(file, on_bytes=on_bytes))

    def generate(
        self,
        source: Input,
        audio: Input,
        *,
        after: Sequence[Task | str] = (),
        idempotency_key: str | None = None,
        on_bytes: OnBytes | None = None,
        **fields: Any,
    ) -> Task:
        """Submit a task. See `AsyncClient.generate`."""
        return self._run(
            lambda: self._client.generate(
                source, audio, after=after, idempotency_key=idempotency_key, on_bytes=on_bytes, **fields
            )
        )

    def derive(
        self,
        task: Task | str,
        *,
        source: Input | None = None,
        audio: Input | None = None,
        idempotency_key: str | None = None,
        on_bytes: OnBytes | None = None,
        **changes: Any,
    ) -> Task:
        """Make a new task from an old one with changes. See `AsyncClient.derive`."""
        return self._run(
            lambda: self._client.derive(
                task, source=source, audio=audio, idempotency_key=idempotency_key, on_bytes=on_bytes, **changes
            )
        )

    def task(self, task_id: str, *, wait_s: float = 0.0) -> Task:
        """A task as it is now, or when it ends, after `wait_s` at the latest."""
        return self._run(lambda: self._client.task(task_id, wait_s=wait_s))

    def tasks(self, **filters: Any) -> Iterator[Task]:
        """Tasks, newest first. See `AsyncClient.tasks`."""
        return self._iterate(self._client.tasks(**filters))

    def events(
        self, task_id: str | None = None, *, types: Sequence[str] = (), after: int | None = None
    ) -> Iterator[Event]:
        """Events as they come. See `AsyncClient.events`."""
        return self._iterate(self._client.events(task_id, types=types, after=after))

    def wait(
        self, task: Task | str, *, timeout_s: float | None = None, check: bool = True, on_task: OnTask | None = None
    ) -> Task:
        """The task when it has ended. See `AsyncClient.wait`."""
        return self._run(lambda: self._client.wait(task, timeout_s=timeout_s, check=check, on_task=on_task))

    def download(self, task: Task | str, target: Path, *, on_bytes: OnBytes | None = None) -> Path:
        """Fetch a finished task's video. See `AsyncClient.download`."""
        return self._run(lambda: self._client.download(task, target, on_bytes=on_bytes))

    def look(self, task_id: str, wait_s: float = 0.0) -> tuple[Task, float]:
        """As `task`, and after how many seconds the service says that asking again pays."""
        return self._run(lambda: self._client.look(task_id, wait_s))

    def request(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """Any other address of the service that answers with a JSON object."""
        return self._run(lambda: self._client.request(method, path, **arguments))

    def cancel(self, task_id: str) -> str:
        """Ask for cancellation. See `AsyncClient.cancel`."""
        return self._run(lambda: self._client.cancel(task_id))

    def retry(self, task_id: str, *, idempotency_key: str | None = None) -> Task:
        """Try a failed task again, as a new task."""
        return self._run(lambda: self._client.retry(task_id, idempotency_key=idempotency_key))

    def queue(self) -> dict[str, Any]:
        """The queue and the slots."""
        return self._run(self._client.queue)

    def tiers(self) -> list[dict[str, Any]]:
        """The tiers, best first."""
        return self._run(self._client.tiers)

    def _run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        running = asyncio.run_coroutine_threadsafe(work(), self._loop)
        try:
            return running.result()
        except BaseException:
            running.cancel()  # of no effect on what has ended; an interrupted caller waits for nothing any more
            raise

    def _iterate(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        async def step() -> tuple[bool, T | None]:
            try:
                return True, await anext(items)
            except StopAsyncIteration:
                return False, None

        async def close() -> None:
            await items.aclose()

        try:
            while True:
                more, item = self._run(step)
                if not more:
                    return
                yield item  # type: ignore[misc]
        finally:
            if not self._closed:
                self._run(close)


async def _end_others() -> None:
    """Cancel all other tasks of this loop, and those that close the streams which they leave behind."""
    await asyncio.sleep(0)  # The task that closes a dropped generator is made in the loop's next round.
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)
