"""Long-poll: requests that wait for a task to end are woken by the store's commits.

Another process's commits are not heard. While anybody waits, one read a moment tells of those, however many wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from app.store.errors import StoreUnavailable
from app.store.interface import Store
from app.store.records import EventRecord, TaskRecord
from app.tasks.status import TERMINAL

log = structlog.get_logger(__name__)

T = TypeVar("T")

PULSE_S = 0.5
"""How often, while somebody waits, another process's commits are looked for."""
_PAGE = 500


class TaskWaiters:
    """Wakes the requests of one event loop. One subscription to the store, however many requests wait."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._closed = False
        self._seen = 0
        self._beating: asyncio.Task[None] | None = None
        store.subscribe(self._on_commit)

    def close(self) -> None:
        """Answer all waiting requests now, and make no more wait: call it when the service is asked to stop."""
        self._closed = True
        for events in self._waiting.values():
            for event in events:
                event.set()

    @property
    def closed(self) -> bool:
        """Whether the service is asked to stop."""
        return self._closed

    async def until_terminal(self, task_id: str, seconds: float) -> TaskRecord | None:
        """The task once it is terminal, or as it is after `seconds` or at `close`. None if there is no such task.

        Must be called in one event loop only.
        """
        self._loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        # Registered before the first read: a commit between the read and the wait is not missed.
        self._waiting.setdefault(task_id, set()).add(woken)
        try:
            async with asyncio.timeout(seconds):
                await self._listen()
                while True:
                    woken.clear()
                    task = await self._store.aget(task_id)
                    if task is None or task.status.is_terminal or self._closed:
                        return task
                    await woken.wait()
        except TimeoutError:
            return await self._store.aget(task_id)
        finally:
            events = self._waiting[task_id]
            events.discard(woken)
            if not events:
                del self._waiting[task_id]
            if not self._waiting and self._beating is not None:
                self._beating.cancel()
                self._beating = None

    async def _listen(self) -> None:
        """Look for other processes' commits from now on."""
        if self._beating is None:
            seen = await self._store.alast_event_id()
            if self._beating is None:  # another one may have begun meanwhile
                self._seen = seen
                self._beating = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(PULSE_S)
            try:
                while page := await self._store.aevents(None, after=self._seen, limit=_PAGE):
                    self._seen = page[-1].id
                    self._wake([event.task_id for event in page if event.status in TERMINAL])
            except StoreUnavailable as error:
                log.warning("waiting_requests_wait", error=str(error))
            except Exception:
                # Who waits would hear of no other process's commits any more. The next beat tries again.
                log.exception("waiting_requests_error")

    def _on_commit(self, events: Sequence[EventRecord]) -> None:
        """In the writer's thread. Only ends wake: a long-poll has nothing to say before."""
        loop = self._loop
        if loop is None or not self._waiting:
            return
        ended = [event.task_id for event in events if event.status in TERMINAL]
        if ended and not loop.is_closed():
            loop.call_soon_threadsafe(self._wake, ended)

    def _wake(self, task_ids: list[str]) -> None:
        for task_id in task_ids:
            for event in self._waiting.get(task_id, ()):
                event.set()


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, cancelled as soon as the client goes away (`ClientDisconnect`). The body must be read."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(disconnected(request.receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def disconnected(receive: Receive) -> None:
    """Returns when the client has gone away. The body must be read."""
    while (await receive())["type"] != "http.disconnect":
        pass
