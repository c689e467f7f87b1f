"""One write transaction, as the operations see it: a connection, the time, numbered events, counted statuses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import BigInteger, Connection, Table, bindparam, case, exists, insert, null, select, update

from app.store.records import EventRecord
from app.store.schema import counters, events, idempotency_keys, outbox, tasks
from app.tasks.notices import PROGRESS
from app.tasks.status import CLAIMABLE, Status

EVENTS = "events"
"""The counter of the last event id; every other counter is named for a status."""

COUNTED = (EVENTS, *(status.value for status in Status))
_ALL_COUNTERS = select(counters.c.name, counters.c.value)
_to = case(*((counters.c.name == name, bindparam(name, type_=BigInteger)) for name in COUNTED), else_=counters.c.value)
_SET_COUNTERS = update(counters).where(counters.c.value != _to).values(value=_to)
_INSERTS = {table: insert(table) for table in (tasks, idempotency_keys, events)}
"""In the order of their foreign keys."""
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

_Notice = tuple[dict[str, Any], bool]
"""A row of the outbox, and whether it outdates notices of progress."""


class Transaction:
    """The batch of one commit. Its counters are those of the database: the write lock is held from the start.

    Each operation begins with `begin` and ends with `end`, or with `undo` when it failed; `finish` ends the batch.

    What operations `put_off` is written together, before the next operation that needs the database, at the latest in
    `finish`. So a batch of new tasks is one statement per table, and an operation that never asks for `connection`
    costs no savepoint. No operation sees what it has put off itself.

    An operation that is `alone` in its batch costs none either: if it fails, the whole transaction is `spoilt`.
    """

    def __init__(self, connection: Connection, clock: Callable[[], float], *, alone: bool = False) -> None:
        self.events: list[EventRecord] = []
        self.wakes_sender = False
        self.due_at = math.inf
        """When the first of the tasks that were made to wait is to be looked at."""
        self.new_routes: set[tuple[str, ...]] = set()
        """Of new tasks that may start at once."""
        self.now = clock()
        self._clock = clock
        self._connection = connection
        self._stored: dict[str, int] = {name: value for name, value in connection.execute(_ALL_COUNTERS)}  # noqa: C416
        self._counters = dict(self._stored)
        self._settled: dict[Table, list[Mapping[str, Any]]] = {table: [] for table in _INSERTS}
        self._settled_notices: list[_Notice] = []
        self._own: list[tuple[Table, Mapping[str, Any]]] = []
        self._own_notices: list[_Notice] = []
        self._before: tuple[int, dict[str, int]] = 0, self._counters
        self._alone = alone
        self._guarded = False
        self.spoilt = False
        """An operation that nothing guarded has failed: roll everything back."""

    # -- for operations ---------------------------------------------------------------------------------------------
    @property
    def connection(self) -> Connection:
        """The database as the operations before this one leave it. What is done with it is undone if this one fails."""
        if not self._guarded and not self._alone:
            self._write_settled()
            self._connection.exec_driver_sql("SAVEPOINT operation")
            self._guarded = True
        return self._connection

    def put_off(self, table: Table, row: Mapping[str, Any]) -> None:
        """Insert a row into `tasks`, `idempotency_keys` or `events` later, with those of other operations."""
        self._own.append((table, row))

    @property
    def reading(self) -> Connection:
        """For reads alone: costs no savepoint, and leaves unwritten what is put off (see `unwritten`)."""
        return self._connection

    def unwritten(self, table: Table, column: str, value: Any) -> list[Mapping[str, Any]]:
        """Rows of this commit that earlier operations have put off and that have `value` in `column`."""
        return [row for row in self._settled[table] if row[column] == value]

    @property
    def next_event_id(self) -> int:
        """The id that the next `emit` will give."""
        return self._counters[EVENTS] + 1

    def emit(self, task_id: str, kind: str, status: Status, attempt: int, data: dict[str, Any] | None = None) -> int:
        """Append one event of this commit and return its id. Ids grow by one, in commit order, without gaps."""
        self._counters[EVENTS] += 1
        event = EventRecord(self._counters[EVENTS], task_id, kind, status, attempt, self.now, data or {})
        self.events.append(event)
        self.put_off(
            events,
            {
                "id": event.id,
                "task_id": task_id,
                "type": kind,
                "status": status.value,
                "attempt": attempt,
                "at": event.at,
                "data": event.data,
            },
        )
        return event.id

    def notify(self, notice: dict[str, Any], *, outdates_progress: bool) -> None:
        """Write a row of the outbox after the events of this operation.

        `outdates_progress`: notices of progress of the same task that wait are worthless from now on.
        """
        self._own_notices.append((notice, outdates_progress))
        self.wakes_sender = True

    def noticed(self) -> None:
        """Some notice may be sent now: whoever sends them looks again after the commit."""
        self.wakes_sender = True

    def due(self, *moments: float | None) -> None:
        """A task is to be looked at by then, epoch seconds: it may start, or will have waited too long."""
        self.due_at = min(self.due_at, *(at for at in moments if at is not None), math.inf)

    def count(self, status: Status, by: int) -> None:
        """Note that `by` tasks more are in `status`."""
        self._counters[status.value] += by

    @property
    def waiting(self) -> int:
        """How many tasks are QUEUED or in RETRY_WAIT."""
        return sum(self._counters[status.value] for status in CLAIMABLE)

    # -- for the writer ---------------------------------------------------------------------------------------------
    def begin(self) -> None:
        """Begin the next operation: the clock is read once for it."""
        self.now = self._clock()
        self._before = len(self.events), dict(self._counters)

    def end(self) -> None:
        """The operation succeeded: keep what it did."""
        if self._guarded:
            self._connection.exec_driver_sql("RELEASE SAVEPOINT operation")
            self._guarded = False
        for table, row in self._own:
            self._settled[table].append(row)
        self._settled_notices += self._own_notices
        self._own.clear()
        self._own_notices.clear()

    def undo(self) -> None:
        """The operation failed: leave no trace of it."""
        if self._guarded:
            self._connection.exec_driver_sql("ROLLBACK TO SAVEPOINT operation")
            self._connection.exec_driver_sql("RELEASE SAVEPOINT operation")
            self._guarded = False
        self.spoilt = self._alone
        self._own.clear()
        self._own_notices.clear()
        del self.events[self._before[0] :]
        self._counters = self._before[1]

    def finish(self) -> None:
        """Write what is left of the whole batch; the commit follows."""
        self._write_settled()
        if self._counters != self._stored:
            self._connection.execute(_SET_COUNTERS, self._counters)

    def _write_settled(self) -> None:
        for table, rows in self._settled.items():
            if rows:
                self._connection.execute(_INSERTS[table], rows)
                rows.clear()
        for notice, outdates_progress in self._settled_notices:
            more = {"of": notice["task_id"], "now": notice["at"]}
            if outdates_progress:
                self._connection.execute(_OUTDATE, more)
            self._connection.execute(_INSERT_NOTICE, notice | more)
        self._settled_notices.clear()
