"""One write transaction, as the operations see it: a connection, the time, numbered events, counted statuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from app.store.records import EventRecord
from app.store.schema import counters, events
from app.tasks.status import CLAIMABLE, Status

EVENTS = "events"
"""The counter of the last event id; every other counter is named for a status."""

_ALL_COUNTERS = select(counters.c.name, counters.c.value)
_SET_COUNTER = update(counters).where(counters.c.name == bindparam("counter")).values(value=bindparam("to"))
_INSERT_EVENTS = insert(events)

Mark = tuple[int, dict[str, int]]
"""Where an operation began: the number of events and the counters before it."""


class Transaction:
    """The batch of one commit. Its counters are those of the database: the write lock is held from the start.

    An operation begins with `mark` and ends with `write_events`, or with `rewind` when it failed; `write_counters` ends
    the batch.
    """

    def __init__(self, connection: Connection, clock: Callable[[], float]) -> None:
        self.connection = connection
        self.events: list[EventRecord] = []
        self.now = clock()
        self._clock = clock
        self._stored: dict[str, int] = {name: value for name, value in connection.execute(_ALL_COUNTERS)}  # noqa: C416
        self._counters = dict(self._stored)

    def mark(self) -> Mark:
        """Begin the next operation: the clock is read once for it. Returns what `rewind` takes."""
        self.now = self._clock()
        return len(self.events), dict(self._counters)

    def rewind(self, mark: Mark) -> None:
        """Forget the events and counts of a failed operation."""
        del self.events[mark[0] :]
        self._counters = mark[1]

    @property
    def next_event_id(self) -> int:
        """The id that the next `emit` will give."""
        return self._counters[EVENTS] + 1

    def emit(self, task_id: str, kind: str, status: Status, attempt: int, data: dict[str, Any] | None = None) -> int:
        """Append one event of this commit and return its id. Ids grow by one, in commit order, without gaps."""
        self._counters[EVENTS] += 1
        event = EventRecord(self._counters[EVENTS], task_id, kind, status, attempt, self.now, data or {})
        self.events.append(event)
        return event.id

    def count(self, status: Status, by: int) -> None:
        """Note that `by` tasks more are in `status`."""
        self._counters[status.value] += by

    @property
    def waiting(self) -> int:
        """How many tasks are QUEUED or in RETRY_WAIT."""
        return sum(self._counters[status.value] for status in CLAIMABLE)

    def write_events(self, mark: Mark) -> None:
        """Write the events of the operation that began at `mark`."""
        if len(self.events) > mark[0]:
            self.connection.execute(
                _INSERT_EVENTS,
                [
                    {
                        "id": event.id,
                        "task_id": event.task_id,
                        "type": event.type,
                        "status": event.status.value,
                        "attempt": event.attempt,
                        "at": event.at,
                        "data": event.data,
                    }
                    for event in self.events[mark[0] :]
                ],
            )

    def write_counters(self) -> None:
        """Write what the whole batch has changed; the commit follows."""
        changed = [
            {"counter": name, "to": value} for name, value in self._counters.items() if value != self._stored[name]
        ]
        if changed:
            self.connection.execute(_SET_COUNTER, changed)
