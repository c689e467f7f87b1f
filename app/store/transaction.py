"""One write transaction, as the operations see it: a connection, the time, numbered events, counted statuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, bindparam, case, exists, insert, null, select, update

from app.store.records import EventRecord
from app.store.schema import counters, events, outbox
from app.tasks.notices import PROGRESS
from app.tasks.status import CLAIMABLE, Status

EVENTS = "events"
"""The counter of the last event id; every other counter is named for a status."""

_ALL_COUNTERS = select(counters.c.name, counters.c.value)
_SET_COUNTER = update(counters).where(counters.c.name == bindparam("counter")).values(value=bindparam("to"))
_INSERT_EVENTS = insert(events)
_OUTDATE = (
    update(outbox)
    .where(
        outbox.c.task_id == bindparam("of"),
        outbox.c.type == PROGRESS,
        outbox.c.state == "pending",
        outbox.c.lease_owner.is_(None),
    )
    .values(state="dropped", next_at=None, ended_at=bindparam("now"))
)
# One notice of a task at a time: a later one gets its time when those before it are over.
_earlier = exists().where(outbox.c.task_id == bindparam("of"), outbox.c.state == "pending")
_INSERT_NOTICE = insert(outbox).values(
    state="pending", next_at=case((_earlier, null()), else_=bindparam("now")), taken=0, tries=0, total_tries=0
)

Mark = tuple[int, dict[str, int], int]
"""Where an operation began: the number of events, the counters, and the number of notices before it."""


class Transaction:
    """The batch of one commit. Its counters are those of the database: the write lock is held from the start.

    An operation begins with `mark` and ends with `write_events`, or with `rewind` when it failed; `write_counters` ends
    the batch.
    """

    def __init__(self, connection: Connection, clock: Callable[[], float]) -> None:
        self.connection = connection
        self.events: list[EventRecord] = []
        self.notices: list[tuple[dict[str, Any], bool]] = []
        self.wakes_sender = False
        self.now = clock()
        self._clock = clock
        self._stored: dict[str, int] = {name: value for name, value in connection.execute(_ALL_COUNTERS)}  # noqa: C416
        self._counters = dict(self._stored)

    def mark(self) -> Mark:
        """Begin the next operation: the clock is read once for it. Returns what `rewind` takes."""
        self.now = self._clock()
        return len(self.events), dict(self._counters), len(self.notices)

    def rewind(self, mark: Mark) -> None:
        """Forget the events and counts of a failed operation."""
        del self.events[mark[0] :]
        del self.notices[mark[2] :]
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

    def notify(self, notice: dict[str, Any], *, outdates_progress: bool) -> None:
        """Write a row of the outbox after the events of this operation.

        `outdates_progress`: notices of progress of the same task that wait are worthless from now on.
        """
        self.notices.append((notice, outdates_progress))
        self.wakes_sender = True

    def noticed(self) -> None:
        """Some notice may be sent now: whoever sends them looks again after the commit."""
        self.wakes_sender = True

    def count(self, status: Status, by: int) -> None:
        """Note that `by` tasks more are in `status`."""
        self._counters[status.value] += by

    @property
    def waiting(self) -> int:
        """How many tasks are QUEUED or in RETRY_WAIT."""
        return sum(self._counters[status.value] for status in CLAIMABLE)

    def write_events(self, mark: Mark) -> None:
        """Write the events of the operation that began at `mark`, and the notices of them."""
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

        for notice, outdates_progress in self.notices[mark[2] :]:
            more = {"of": notice["task_id"], "now": notice["at"]}
            if outdates_progress:
                self.connection.execute(_OUTDATE, more)
            self.connection.execute(_INSERT_NOTICE, notice | more)

    def write_counters(self) -> None:
        """Write what the whole batch has changed; the commit follows."""
        changed = [
            {"counter": name, "to": value} for name, value in self._counters.items() if value != self._stored[name]
        ]
        if changed:
            self.connection.execute(_SET_COUNTER, changed)
