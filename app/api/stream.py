"""The event stream: one subscription to the store feeds every listener of an event loop (Server-Sent Events).

A listener costs a small queue and nothing else while nothing happens: no timer, no task, no database read of its own.
One that does not read as fast as events come is dropped; it comes back with `Last-Event-ID` and misses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.ports import LivePool
from app.api.resource import rfc3339
from app.store.errors import StoreUnavailable
from app.store.interface import Store
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
LASTING = "lasting"
"""In the state of a request: the answer that is still to be sent, and lasts."""

Chunk = bytes
Chunks = AsyncGenerator[Chunk, None]
Headers = list[tuple[bytes, bytes]]


class Told(NamedTuple):
    """Something for a listener, written once for all who get it."""

    chunk: Chunk
    """Empty: nothing is to be sent."""
    event_id: int = 0
    """0: it is no durable event."""
    ends: bool = False
    """With it the stream is over."""


@dataclass(eq=False, slots=True)
class Listener:
    """One open stream. `task_id` None: all tasks; `types` empty: all events."""

    task_id: str | None
    types: frozenset[str]
    after: int | None
    """The last event that it knows; None: it wants what comes from now on."""
    send: Send
    last: int = 0
    """The last event that it was sent, or that was passed over for it."""
    pending: list[Told] = field(default_factory=list)
    heard_at: float = 0.0
    dropped: bool = False
    over: bool = False
    """It gets what it was sent, and no more."""
    writing: asyncio.Task[None] | None = None
    """Only while there is something to send: most of the time there is nothing."""
    serving: asyncio.Task[Any] | None = None
    failure: Exception | None = None

    def wants(self, event: EventRecord) -> bool:
        """Whether this event is for it."""
        return (self.task_id is None or event.task_id == self.task_id) and (not self.types or event.type in self.types)

    def offer(self, told: Told) -> None:
        """Queue something for it; too much at once drops it."""
        if len(self.pending) >= BACKLOG:
            self.dropped = self.over = True
            self.pending.clear()
        elif not self.over:
            self.pending.append(told)
        self.wake()

    def end(self) -> None:
        """Send it nothing more."""
        self.over = True
        self.wake()

    def wake(self, past: Chunks | None = None) -> None:
        """See to it that what waits for it is sent, after what `past` has."""
        if self.writing is None:
            self.writing = asyncio.create_task(self._write(past))

    async def _write(self, past: Chunks | None) -> None:
        try:
            if past is not None:
                async with contextlib.aclosing(past) as chunks:
                    async for chunk in chunks:
                        await self._say(chunk)
            while self.pending and not self.over:
                waiting, self.pending = self.pending, []
                for told in waiting:
                    await self._tell(told)
            if self.over:
                # With its answer complete, the server wakes whoever waits for its leaving.
                await self.send({"type": "http.response.body", "body": b""})
        except Exception as error:  # noqa: BLE001 - it is raised where the answer is made
            self.failure = error
            assert self.serving is not None
            self.serving.cancel()
        finally:
            self.writing = None

    async def _tell(self, told: Told) -> None:
        if self.over or 0 < told.event_id <= self.last:
            return
        self.heard_at = time.monotonic()
        self.last = max(self.last, told.event_id)
        if told.chunk:
            await self._say(told.chunk)
        self.over |= told.ends

    async def _say(self, chunk: Chunk) -> None:
        await self.send({"type": "http.response.body", "body": chunk, "more_body": True})


_ALIVE = Told(b": alive\n\n")


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
            listener.end()
        if self._pulse is not None:
            self._pulse.cancel()

    async def serve(self, listener: Listener, receive: Receive, headers: Headers) -> None:
        """Send a listener what came after the event that it knows, then what comes, until it ends or leaves.

        A stream of one task ends with the task's end. One of all tasks says `gap` where events are not kept any more.
        Once the head of the answer is there, no event is missed. Raises `StoreUnavailable`.
        """
        self._loop = asyncio.get_running_loop()
        listener.serving = asyncio.current_task()
        listener.heard_at = time.monotonic()
        newest = await self._store.alast_event_id()
        if not self._listeners:
            self._seen = newest
        # Registered first, so that no commit between the reading of the past and the present is missed.
        self._listeners.add(listener)
        if self._pulse is None or self._pulse.done():
            self._pulse = asyncio.create_task(self._beat())
        try:
            await listener.send({"type": "http.response.start", "status": 200, "headers": headers})
            listener.wake(self._past(listener, newest))
            while (await receive())["type"] != "http.disconnect":
                pass
        except asyncio.CancelledError:
            if listener.failure is None or listener.serving is None:
                raise
            listener.serving.uncancel()
            raise listener.failure from None
        finally:
            self._listeners.discard(listener)
            if listener.writing is not None:
                listener.writing.cancel()
            if listener.dropped:
                self.dropped += 1
                log.warning("event_listener_dropped", task_id=listener.task_id, behind=BACKLOG)
            if not self._listeners and self._pulse is not None:
                self._pulse.cancel()
                self._pulse = None  # who comes before it has ended needs another one

    async def _past(self, listener: Listener, newest: int) -> Chunks:
        """What is in the database when it comes."""
        yield b": listening\n\n"
        listener.over |= self._closed
        task_id, after = listener.task_id, listener.after
        listener.last = newest if after is None else after
        if listener.last > newest and task_id is None:
            # The database is younger than what the listener has seen: it was restored from a backup.
            yield _gap(newest + 1, listener.last)
            listener.last = newest
        while after is not None and not listener.over:
            page = await self._store.aevents(task_id, after=listener.last, limit=_PAGE)
            for event in page:
                if task_id is None and event.id > listener.last + 1:
                    yield _gap(listener.last + 1, event.id - 1)
                listener.last = event.id
                if listener.wants(event):
                    yield _chunk(event)
                if _is_end(listener, event):
                    listener.over = True
            if len(page) < _PAGE:
                break

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
        for event in fresh:
            chunk = b""
            for listener in self._listeners:
                wants, ends = listener.wants(event), _is_end(listener, event)
                if wants or ends:
                    chunk = chunk or _chunk(event)
                    listener.offer(Told(chunk if wants else b"", event.id, ends))

    async def _beat(self) -> None:
        """While somebody listens: catch up with other processes, tell progress, keep silent connections alive."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._behind.wait(), PULSE_S)
            self._behind.clear()
            try:
                await self._catch_up()
                self._tell_progress()
            except Exception:
                # Whoever listens would hear nothing more, and not know it. The next beat tries again.
                log.exception("event_stream_error")
            now = time.monotonic()
            for listener in self._listeners:
                if now - listener.heard_at >= KEEP_ALIVE_S and not listener.pending:
                    listener.heard_at = now
                    listener.offer(_ALIVE)

    async def _catch_up(self) -> None:
        try:
            while page := await self._store.aevents(None, after=self._seen, limit=_PAGE):
                self._seen = max(self._seen, page[0].id - 1)  # those before it were purged
                self._tell(page)
        except StoreUnavailable as error:
            log.warning("event_stream_waits", error=str(error))

    def _tell_progress(self) -> None:
        """Progress is no durable event and has no id: who comes late asks for the task."""
        running = [slot.task_id for slot in self._pool.slots() if slot.task_id is not None]
        now = {task_id: live for task_id in running if (live := self._pool.progress(task_id)) is not None}
        steps = {task_id: (live.phase, live.done, live.total) for task_id, live in now.items()}
        moved = {task_id: live for task_id, live in now.items() if self._told.get(task_id) != steps[task_id]}
        self._told = steps
        for task_id, live in moved.items():
            shown = {"task_id": task_id, "type": PROGRESS, "phase": live.phase, "done": live.done, "total": live.total}
            told = Told(_lines(PROGRESS, shown | {"eta_s": None if live.eta_s is None else round(live.eta_s, 2)}))
            for listener in self._listeners:
                if listener.task_id in (None, task_id) and (not listener.types or PROGRESS in listener.types):
                    listener.offer(told)


class EventStream(Response):
    """An answer that sends a stream until it ends or the client goes away."""

    def __init__(self, hub: EventHub, task_id: str | None, types: frozenset[str], after: int | None) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._hub = hub
        self._asked = task_id, types, after

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """As every answer's, but nobody knows the length."""
        super().init_headers({"Content-Type": "text/event-stream; charset=utf-8", **(headers or {})})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Leave the stream to the outermost layer, which sends it when the inner ones are done.

        They would all stay for as long as the stream does, and take twice the memory that it takes itself.
        """
        scope["state"][LASTING] = self

    async def last(self, receive: Receive, send: Send) -> None:
        """Send. When the client is gone, so is its listener."""
        task_id, types, after = self._asked
        await self._hub.serve(Listener(task_id, types, after, send), receive, self.raw_headers)


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
