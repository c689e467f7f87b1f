"""What becomes of tasks that wait for others: released once these have succeeded, failed once one of them cannot.

Both are found by what `app.store.dependencies` has written to their rows, at the cost of a look-up where there is none.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, bindparam, exists, or_, select, update

from app.retry.taxonomy import Failure, FailureCode
from app.store import cache, dependencies, twins
from app.store.creation import as_error
from app.store.records import Release, TaskRecord
from app.store.rows import TASK, input_values, join_keys, task_record
from app.store.schema import tasks
from app.store.transaction import Transaction
from app.store.transitions import finish, load
from app.tasks.rank import rank
from app.tasks.replay import RELEASED
from app.tasks.route import join
from app.tasks.status import Status

_MET = (tasks.c.waits_for == "", tasks.c.broken_by.is_(None))
_RELEASABLE = select(*TASK).where(*_MET).order_by(tasks.c.rank, tasks.c.id).limit(bindparam("most"))
_BROKEN = select(*TASK, tasks.c.broken_by).where(tasks.c.broken_by.is_not(None)).limit(bindparam("most"))
_ANY_BROKEN = select(exists().where(tasks.c.broken_by.is_not(None)))
_ANY_LEFT = select(or_(exists().where(tasks.c.broken_by.is_not(None)), exists().where(*_MET)))
_STILL = select(*TASK).where(tasks.c.id == bindparam("wanted"), *_MET)


def releasable(connection: Connection, limit: int) -> list[TaskRecord]:
    """See `Store.areleasable`."""
    return [task_record(row) for row in connection.execute(_RELEASABLE, {"most": limit})]


def release(tx: Transaction, task_id: str, ready: Release) -> TaskRecord | None:
    """See `Store.arelease`."""
    task = _still(tx, task_id)
    if task is None:
        return None
    dependencies.forget(tx, task.id)
    base = max(tx.now, task.not_before or 0.0)
    later = base > tx.now
    deadline_at = task.deadline_at
    by_default = deadline_at is None and ready.default_deadline_s is not None
    if deadline_at is None and ready.default_deadline_s is not None:
        deadline_at = base + ready.default_deadline_s
    found = None if later else cache.find(tx.connection, ready.cache_keys, tx.now)
    leader = None if later or found else twins.leader_of(tx, ready.cache_keys) if ready.cache_keys else None
    start_by = None if leader is not None and leader.running else task.start_deadline_at
    place = rank(base, task.priority)
    row = tx.connection.execute(
        update(tasks)
        .where(tasks.c.id == task.id)
        .values(
            **input_values(ready.source, ready.audio),
            route=join(ready.route),
            cache_keys=join_keys(ready.cache_keys),
            waits_for=None,
            twin_of=None if leader is None else leader.id,
            # It has not aged while it could not run: as one that is submitted now, or that is scheduled.
            enqueued_at=base,
            rank=place,
            ready_at=None if later or leader is not None else tx.now,
            due_at=task.not_before if later else None,
            deadline_at=deadline_at,
            default_deadline=by_default,
            give_up_at=min((at for at in (start_by, deadline_at) if at is not None), default=None),
            last_event_id=tx.emit(task.id, RELEASED, task.status, task.attempt),
        )
        .returning(*TASK)
    ).one()
    released = task_record(row)
    tx.due(base if leader is None else None, start_by, deadline_at)
    if leader is not None:
        twins.lift(tx, leader, place)
    return released if found is None else cache.serve(tx, released, found)


def refuse_release(tx: Transaction, task_id: str, error: dict[str, Any]) -> TaskRecord | None:
    """See `Store.arefuse_release`."""
    task = _still(tx, task_id)
    return None if task is None else finish(tx, task, Status.FAILED, {"error": error}, error=error)


def any_left(connection: Connection) -> bool:
    """See `Store.achains_left`."""
    return bool(connection.execute(_ANY_LEFT).scalar_one())


def any_broken(connection: Connection) -> bool:
    """Whether there is a task that waits for one that has failed."""
    return bool(connection.execute(_ANY_BROKEN).scalar_one())


def break_some(tx: Transaction, limit: int) -> list[TaskRecord]:
    """Fail up to `limit` tasks that wait for one that has failed; the next call finds those that wait for them."""
    rows = tx.connection.execute(_BROKEN, {"most": limit}).all()
    failed = []
    for *row, broken_by in rows:
        error = as_error(_failure(load(tx, broken_by), broken_by))
        failed.append(finish(tx, task_record(row), Status.FAILED, {"error": error}, error=error))
    return failed


def _still(tx: Transaction, task_id: str) -> TaskRecord | None:
    row = tx.connection.execute(_STILL, {"wanted": task_id}).one_or_none()
    return None if row is None else task_record(row)


def _failure(predecessor: TaskRecord | None, task_id: str) -> Failure:
    """Names the predecessor, and the task with which it began where that is another."""
    error = (predecessor.error if predecessor else None) or {}
    code = str(error.get("code") or "")
    how = {"CANCELLED": "was cancelled", "DEADLINE_EXCEEDED": "expired"}.get(code, "failed")
    detail = {"predecessor": task_id, "code": code}
    message = f"Task {task_id}, which this one waited for, {how}"
    if how == "failed" and code:
        message += f" ({code})"
    if code == FailureCode.PREDECESSOR_FAILED:
        before = error.get("detail") or {}
        detail["root"] = before.get("root") or before.get("predecessor", "")
        detail["root_code"] = before.get("root_code") or before.get("code", "")
        message += f"; it began with task {detail['root']} ({detail['root_code']})"
    return Failure(FailureCode.PREDECESSOR_FAILED, f"{message}.", detail=detail)
