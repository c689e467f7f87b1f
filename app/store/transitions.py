"""The one place where a task's status changes: checked, compare-and-set, counted, with exactly one event."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, select, update

from app.store import dependencies
from app.store.announce import announce
from app.store.endings import ATTEMPT_ENDED
from app.store.errors import StaleClaim
from app.store.records import TaskRecord
from app.store.rows import TASK, task_record
from app.store.schema import attempts, tasks
from app.store.transaction import Transaction
from app.tasks.replay import EVENT_OF
from app.tasks.status import Status, check_transition

SHARED = "shared"
"""The key, in the data of a task's last event, that says that equal tasks may have waited for its end."""
AWAITED = "awaited"
"""The same of tasks that named it as their predecessor."""


def load(tx: Transaction, task_id: str) -> TaskRecord | None:
    """The task as this transaction sees it, without attempts."""
    row = tx.connection.execute(_BY_ID, {"wanted": task_id}).one_or_none()
    return None if row is None else task_record(row)


def move(tx: Transaction, task: TaskRecord, to: Status, data: dict[str, Any], **values: Any) -> TaskRecord:
    """Change `task` to status `to`, setting the given columns too.

    Raises `IllegalTransition`, or `StaleClaim` if the stored status or attempt is not that of `task` any more; both
    leave everything as it was.
    """
    check_transition(task.status, to)
    if "output" in values:
        values["output_path"] = None if values["output"] is None else values["output"]["path"]
    event_id = tx.emit(task.id, EVENT_OF[to], to, task.attempt, data)
    row = tx.connection.execute(
        update(tasks)
        .where(tasks.c.id == task.id, tasks.c.status == task.status.value, tasks.c.attempt == task.attempt)
        .values(status=to.value, last_event_id=event_id, **values)
        .returning(*TASK)
    ).one_or_none()
    if row is None:
        raise StaleClaim(f"Task {task.id} is no longer {task.status} in attempt {task.attempt}.")
    tx.count(task.status, -1)
    tx.count(to, +1)
    moved = task_record(row)
    announce(tx, moved, EVENT_OF[to])
    return moved


def wait(
    tx: Transaction, task: TaskRecord, to: Status, data: dict[str, Any], *, until: float | None, **values: Any
) -> TaskRecord:
    """Change a task to a status in which it waits for a slot: from now on, or from the time `until` on.

    It keeps its rank, so that a task that was interrupted or failed does not fall behind those that came after it.
    """
    later = until is not None and until > tx.now
    tx.due(until if later else tx.now, task.deadline_at)
    return move(
        tx,
        task,
        to,
        data,
        ready_at=None if later else tx.now,
        due_at=until if later else None,
        give_up_at=task.deadline_at,
        lease_owner=None,
        lease_expires_at=None,
        **values,
    )


def finish(tx: Transaction, task: TaskRecord, to: Status, data: dict[str, Any], **values: Any) -> TaskRecord:
    """Change a task to a terminal status: it stops waiting, gives its lease back, and tells those that wait for it."""
    if task.waits_for is not None:
        dependencies.forget(tx, task.id)
        values |= {"waits_for": None, "broken_by": None}
    awaited = dependencies.ended(tx, task.id, to)
    return move(
        tx,
        task,
        to,
        data
        | {"enqueued_at": task.enqueued_at, "started_at": task.started_at}
        | ({SHARED: True} if task.cache_keys else {})
        | ({AWAITED: True} if awaited else {}),
        finished_at=tx.now,
        ready_at=None,
        due_at=None,
        give_up_at=None,
        retry_at=None,
        retry_reason=None,
        lease_owner=None,
        lease_expires_at=None,
        **values,
    )


def close_attempt(
    tx: Transaction, task: TaskRecord, outcome: str, *, error: dict[str, Any] | None = None, **values: Any
) -> dict[str, Any]:
    """Write the end of the task's current attempt; what the event of its end says of it."""
    row = tx.connection.execute(
        update(attempts)
        .where(attempts.c.task_id == task.id, attempts.c.n == task.attempt)
        .values(ended_at=tx.now, outcome=outcome, error=error, **values)
        .returning(attempts.c.tier, attempts.c.device, attempts.c.started_at)
    ).one()
    code = None if error is None else error.get("code")
    return {ATTEMPT_ENDED: {**row._mapping, "outcome": outcome, "code": code}}


_BY_ID = select(*TASK).where(tasks.c.id == bindparam("wanted"))
