"""What the rest of the service asks of a store. Another database joins by passing the conformance suite.

All methods are safe to call from any thread and return only when the write is durable. Methods that an event loop
calls have an `a`-prefixed coroutine twin, which does not block the loop. Every write of an attempt takes its `Claim`
and raises `StaleClaim` when that attempt is no longer the task's current one, leaving everything as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from app.store.outbox import Outbox
from app.store.records import EventRecord
from app.store.roles.attempts import Attempts
from app.store.roles.queue import Queue
from app.store.roles.sharing import Sharing
from app.store.roles.tasks import Tasks
from app.store.roles.upkeep import Upkeep

Listener = Callable[[Sequence[EventRecord]], None]
"""Called after a commit, in the writer's thread, with the events of that commit, after their writers were answered.

Must be quick, must not raise, and must not write to the store (RuntimeError). Another process is not heard."""


class Store(Tasks, Queue, Attempts, Sharing, Upkeep, Protocol):
    """The durable truth about tasks."""

    outbox: Outbox
    """Notices to callers."""

    def subscribe(self, listener: Listener) -> None:
        """Add a listener for committed events."""

    def ping(self) -> None:
        """Raise `StoreUnavailable` unless the database can be read and locked for writing. Blocks at most 10 s."""

    async def aping(self) -> None:
        """As `ping`, for an event loop."""

    def close(self) -> None:
        """Finish pending writes and close all connections."""
