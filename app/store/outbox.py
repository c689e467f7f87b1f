"""The outbox: taking notices to send them, writing down what came of it, replaying, reading.

Of one task only the earliest pending notice has a `next_at`, so that notices arrive in order. Taking one moves its
`next_at` to the end of a lease: one that was taken by somebody who died is due again then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection

from app.store import notices
from app.store.deliveries import Delivery, DeliveryState, Notice, OutboxStats, Try, Verdict
from app.store.records import Claim
from app.store.transaction import Transaction
from app.tasks.notices import PROGRESS


@dataclass(frozen=True, slots=True)
class Database:
    """How operations and reads are run: by the store's writer, and on its readers. `a...`: for an event loop."""

    write: Callable[[Callable[[Transaction], Any]], Any]
    awrite: Callable[[Callable[[Transaction], Any]], Awaitable[Any]]
    read: Callable[[Callable[[Connection], Any]], Any]
    aread: Callable[[Callable[[Connection], Any]], Awaitable[Any]]
    on_notices: Callable[[Callable[[], None]], None]
    """See `Outbox.subscribe`."""


class Outbox:
    """The outbox of a store. Methods raise `StoreUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Have `listener` called, in the writer's thread, after a commit that wrote notices."""
        self._database.on_notices(listener)

    # -- for who sends --------------------------------------------------------------------------------------------
    async def anext_at(self, full: Collection[str]) -> float | None:
        """When the next notice may be taken, apart from those of the endpoints in `full`. It can lie in the past."""
        found: float | None = await self._database.aread(lambda connection: notices.next_at(connection, full))
        return found

    async def atake(
        self, owner: str, *, lease_s: float, limit: int, per_endpoint: int, in_flight: Mapping[str, int]
    ) -> list[Notice]:
        """Take up to `limit` due notices, for `lease_s`; no endpoint gets more than `per_endpoint` with `in_flight`."""
        taken: list[Notice] = await self._database.awrite(
            partial(
                notices.take, owner=owner, lease_s=lease_s, limit=limit, per_endpoint=per_endpoint, in_flight=in_flight
            )
        )
        return taken

    async def asettle(
        self, notice: Notice, owner: str, tried: Try, verdict: Verdict, retry_at: float | None = None
    ) -> bool:
        """Write down a try. False, and nothing is written, if the lease ran out and somebody else took the notice."""
        settled: bool = await self._database.awrite(
            partial(notices.settle, notice=notice, owner=owner, tried=tried, verdict=verdict, retry_at=retry_at)
        )
        return settled

    async def arelease(self, owner: str) -> int:
        """Make due again what `owner` took; how many notices they were. For a node that starts again or stops."""
        released: int = await self._database.awrite(lambda tx: notices.release(tx, owner))
        return released

    # -- for who reports progress ---------------------------------------------------------------------------------
    def progress(self, held: Claim, done: int, total: int, phase: str, *, at_least_s: float) -> bool:
        """Write a notice of progress if the task's callback wants it, the fraction has grown, and it is time for one.

        Raises `StaleClaim`. Never follows a terminal notice: it is a write of the attempt, under its fence.
        """
        wanted = held.task.callback is not None and PROGRESS in held.task.callback.events
        if not wanted or not 0 < done <= total:
            return False
        written: bool = self._database.write(
            partial(notices.progress, held=held, done=done, total=total, phase=phase, at_least_s=at_least_s)
        )
        return written

    # -- for who looks --------------------------------------------------------------------------------------------
    async def adeliveries(self, task_id: str) -> list[Delivery]:
        """The notices of a task, oldest first, at most the newest `notices.LIST_LIMIT`."""
        found: list[Delivery] = await self._database.aread(lambda connection: notices.of_task(connection, task_id))
        return found

    async def alist(self, state: DeliveryState, *, before: int | None, limit: int) -> list[Delivery]:
        """Notices in a state, newest first, with event ids below `before`."""
        found: list[Delivery] = await self._database.aread(
            lambda connection: notices.in_state(connection, state, before, limit)
        )
        return found

    async def areplay(self, task_id: str, event_id: int | None = None) -> list[int]:
        """Have one notice of a task sent again, or all but those of progress, with all tries anew; their event ids.

        An endpoint that had said that it is gone is asked again.
        """
        replayed: list[int] = await self._database.awrite(lambda tx: notices.replay(tx, task_id, event_id))
        return replayed

    def stats(self) -> OutboxStats:
        """How many notices wait or were given up."""
        found: OutboxStats = self._database.read(notices.stats)
        return found
