"""The event stream: one subscription to the store feeds every listener of an event loop (Server-Sent Events).

A listener costs a small queue and nothing else while nothing happens: no timer, no database read of its own. One that
does not read as fast as events come is dropped; it comes back with `Last-Event-ID` and misses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.ports import LivePool
from app.api.resource import rfc3339
from app.api.waiting import disconnected
from app.store.interface import Store, StoreUnavailable
from app.store.records import EventRecord
from app.tasks.notices import PROGRESS

log = structlog.get_logger(__name__)

KEEP_ALIVE_S = 15.0
"""A comment line after so much silence: proxies and clients know that the connection lives."""
PULSE_S = 0.5
"""How often, while somebody listens, another process's commits and the progress of renders are looked at."""
BACKLOG = 256
"""Events that may wait for one listener before it is dropped."""
_PAGE = 500

Chunk = bytes
Chunks = AsyncGenerator[Chunk, None]


@dataclass(eq=False)
class Listener:
    """One open stream. `task_id` None: all tasks; `types` empty: all events."""

    task_id: str | None
    types: frozenset[str]
    pending: deque[Chunk | EventRecord] = field(default_factory=deque)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    heard_at: float = 0.0
    dropped: bool = False
    closed: bool = False

    def wants(self, event: EventRecord) -> bool:
        """Whether this event is for it."""
        return (self.task_id is None or event.task_id == self.task_id) and (not self.types or event.type in self.types)

    def offer(self, item: Chunk | EventRecord) -> None:
        """Queue something for it; too much at once drops it."""
        if len(self.pending) >= BACKLOG:
            self.dropped = True
            self.pending.clear()
        elif not self.dropped:
            self.pending.append(item)
        self.woken.set()


class EventHub:
    """All listeners of one event loop. Its methods are called in that loop."""

    def __init__(self, store: Store, pool: LivePool) -> None:
        """`pool` tells how far the tasks are that render here."""
        self._store = store
        self._pool = pool
        self._listeners: set[Listener] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pulse: asyncio.Task[None] | None = None
        self._behind = asyncio.Event()
        self._seen = 0
        self._told: dict[str, tuple[str, int, int]] = {}
        self._closed = False
        self.dropped = 0
        """How many listeners were dropped because they did not read."""
        store.subscribe(self._on_commit)

    @property
    def listening(self) -> int:
        """How many streams are open."""
        return len(self._listeners)

    def close(self) -> None:
        """End all streams, and admit no more: call it when the service is asked to stop. From any thread."""
        self._closed = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end_all)

    def _end_all(self) -> None:
        for listener in self._listeners:
            listener.closed = True
            listener.woken.set()
        if self._pulse is not None:
            self._pulse.cancel()

    async def stream(self, task_id: str | None, types: frozenset[str], after: int | None) -> Chunks:
        """What one listener is sent: what came after event `after` (None: from now on), then what comes.

        A stream of one task ends with the task's end. One of all tasks says `gap` where events after `after` are not
        kept any more.
        """
        self._loop = asyncio.get_running_loop()
        listener = Listener(task_id, types, heard_at=time.monotonic())
        newest = await self._store.alast_event_id()
        if not self._listeners:
            self._seen = newest
        # Registered first, so that no commit between the reading of the past and the present is missed.
        self._listeners.add(listener)
        listener.closed = self._closed
        if self._pulse is None or self._pulse.done():
            self._pulse = asyncio.create_task(self._beat())
        try:
            yield b": listening\n\n"
            last = newest if after is None else after
            if last > newest and task_id is None:
                # The database is younger than what the listener has seen: it was restored from a backup.
                yield _gap(newest + 1, last)
                last = newest
            while after is not None and (page := await self._store.aevents(task_id, after=last, limit=_PAGE)):
                for event in page:
                    if task_id is None and event.id > last + 1:
                        yield _gap(last + 1, event.id - 1)
                    last = event.id
                    if listener.wants(event):
                        yield _chunk(event)
                    if _is_end(listener, event):
                        return
                if len(page) < _PAGE:
                    break
            async for chunk in self._present(listener, last):
                yield chunk
        finally:
            self._listeners.discard(listener)
            if not self._listeners and self._pulse is not None:
                self._pulse.cancel()

    async def _present(self, listener: Listener, last: int) -> Chunks:
        while not listener.closed and not listener.dropped:
            while listener.pending:
                item = listener.pending.popleft()
                listener.heard_at = time.monotonic()
                if isinstance(item, bytes):
                    yield item
                elif item.id > last:
                    last = item.id
                    if listener.wants(item):
                        yield _chunk(item)
                    if _is_end(listener, item):
                        return
            if listener.closed or listener.dropped:
                break
            listener.woken.clear()
            await listener.woken.wait()
        if listener.dropped:
            self.dropped += 1
            log.warning("event_listener_dropped", task_id=listener.task_id, behind=BACKLOG)

    # -- where events come from ------------------------------------------------------------------------------------

    def _on_commit(self, events: Sequence[EventRecord]) -> None:
        """In the writer's thread."""
        loop = self._loop
        if loop is not None and self._listeners and not loop.is_closed():
            loop.call_soon_threadsafe(self._tell, tuple(events))

    def _tell(self, events: Sequence[EventRecord]) -> None:
        """Hand events on, in order. Ids have no holes: where some are missing, another process made them."""
        if events[0].id > self._seen + 1:
            self._behind.set()  # the beat reads what is missing, these included
            return
        fresh = [event for event in events if event.id > self._seen]
        self._seen = max(self._seen, events[-1].id)
        for listener in self._listeners:
            for event in fresh:
                if listener.wants(event) or _is_end(listener, event):
                    listener.offer(event)

    async def _beat(self) -> None:
        """While somebody listens: catch up with other processes, tell progress, keep silent connections alive."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._behind.wait(), PULSE_S)
            self._behind.clear()
            try:
                while page := await self._store.aevents(None, after=self._seen, limit=_PAGE):
                    self._seen = max(self._seen, page[0].id - 1)  # those before it were purged
                    self._tell(page)
            except StoreUnavailable as error:
                log.warning("event_stream_waits", error=str(error))
            self._tell_progress()
            now = time.monotonic()
            for listener in self._listeners:
                if now - listener.heard_at >= KEEP_ALIVE_S and not listener.pending:
                    listener.heard_at = now
                    listener.offer(b": alive\n\n")

    def _tell_progress(self) -> None:
        """Progress is no durable event and has no id: who comes late asks for the task."""
        running = [slot.task_id for slot in self._pool.slots() if slot.task_id is not None]
        now = {task_id: live for task_id in running if (live := self._pool.progress(task_id)) is not None}
        steps = {task_id: (live.phase, live.done, live.total) for task_id, live in now.items()}
        moved = {task_id: live for task_id, live in now.items() if self._told.get(task_id) != steps[task_id]}
        self._told = steps
        for task_id, live in moved.items():
            shown = {"task_id": task_id, "phase": live.phase, "done": live.done, "total": live.total}
            chunk = _lines(PROGRESS, shown | {"eta_s": None if live.eta_s is None else round(live.eta_s, 2)})
            for listener in self._listeners:
                if listener.task_id in (None, task_id) and (not listener.types or PROGRESS in listener.types):
                    listener.offer(chunk)


class EventStream(Response):
    """An answer that sends a stream until it ends or the client goes away."""

    def __init__(self, chunks: Chunks) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._chunks = chunks

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """As every answer's, but nobody knows the length."""
        super().init_headers({"Content-Type": "text/event-stream; charset=utf-8", **(headers or {})})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send. When the client is gone, so is its listener."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(disconnected(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
                await send({"type": "http.response.body", "body": b""})
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        async with contextlib.aclosing(self._chunks) as chunks:
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})


def _is_end(listener: Listener, event: EventRecord) -> bool:
    return listener.task_id is not None and event.task_id == listener.task_id and event.status.is_terminal


def _chunk(event: EventRecord) -> Chunk:
    shown = {
        "id": event.id,
        "task_id": event.task_id,
        "type": event.type,
        "status": event.status.value,
        "attempt": event.attempt,
        "at": rfc3339(event.at),
        "data": event.data,
    }
    return b"id: %d\n" % event.id + _lines(event.type, shown)


def _gap(first: int, last: int) -> Chunk:
    return _lines("gap", {"first": first, "last": last})


def _lines(kind: str, data: Mapping[str, Any]) -> Chunk:
    return f"event: {kind}\ndata: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
