"""Single flight: of equal tasks one leads and runs, the others follow it and are given its result.

A follower is QUEUED, with its own callback, deadlines and cancel, and is never claimed. It is found by its `twin_of`
for as long as it has not ended: whatever kills a service on the way, the next sweep of any service settles it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, exists, not_, or_, select, update

from app.retry.taxonomy import CALLERS_FAULT
from app.store import cache
from app.store.records import CachedResult, TaskRecord
from app.store.rows import TASK, join_keys, task_record
from app.store.schema import tasks
from app.store.transaction import Transaction
from app.store.transitions import finish
from app.tasks.status import CLAIMABLE, Status

_JOINABLE = [status.value for status in (*CLAIMABLE, Status.RUNNING)]
_LEADER = (
    select(tasks.c.id, tasks.c.rank, tasks.c.status)
    .where(
        tasks.c.cache_keys == bindparam("keys"),
        tasks.c.finished_at.is_(None),
        tasks.c.twin_of.is_(None),
        tasks.c.cancel_requested_at.is_(None),
        tasks.c.status.in_(_JOINABLE),
        # Whoever may start now does not wait for one that may not.
        or_(tasks.c.not_before.is_(None), tasks.c.not_before <= bindparam("now")),
    )
    .order_by(tasks.c.rank)
    .limit(1)
)
_LIFT = (
    update(tasks).where(tasks.c.id == bindparam("leader"), tasks.c.rank > bindparam("to")).values(rank=bindparam("to"))
)
_FOLLOWING = (tasks.c.twin_of.is_not(None), tasks.c.finished_at.is_(None))
_STARTED = (
    update(tasks).where(*_FOLLOWING, tasks.c.twin_of == bindparam("leader")).values(give_up_at=tasks.c.deadline_at)
)
_other = tasks.alias("leader")
_LEFT = (*_FOLLOWING, not_(exists().where(_other.c.id == tasks.c.twin_of, _other.c.finished_at.is_(None))))
_ANY_LEFT = select(exists().where(*_LEFT))


@dataclass(frozen=True, slots=True)
class Leader:
    """The task that another may follow."""

    id: str
    rank: float
    """Its place in the queue; lower goes first."""
    running: bool


def leader_of(tx: Transaction, keys: Sequence[str]) -> Leader | None:
    """A task that will have the result which a task with these keys wants, of those that may run now."""
    text = join_keys(keys)
    for row in tx.unwritten(tasks, "cache_keys", text):
        if row["twin_of"] is None and (row["not_before"] is None or row["not_before"] <= tx.now):
            return Leader(row["id"], row["rank"], running=False)
    found = tx.reading.execute(_LEADER, {"keys": text, "now": tx.now}).one_or_none()
    return None if found is None else Leader(found.id, found.rank, found.status == Status.RUNNING)


def lift(tx: Transaction, leader: Leader, rank: float) -> None:
    """Let the leader go as early as the most urgent of its followers would."""
    if rank < leader.rank:
        tx.connection.execute(_LIFT, {"leader": leader.id, "to": rank})


def started(tx: Transaction, leader: TaskRecord) -> None:
    """The leader runs: with it its followers have kept their start deadlines."""
    if leader.cache_keys:
        tx.connection.execute(_STARTED, {"leader": leader.id})


def any_left(connection: Connection) -> bool:
    """Whether there is a follower whose leader has ended or is gone."""
    return bool(connection.execute(_ANY_LEFT).scalar_one())


def settle(tx: Transaction, limit: int) -> list[TaskRecord]:
    """See `Store.settle_twins`; at most `limit` tasks, the most urgent first, since the first may have to lead."""
    rows = tx.connection.execute(
        select(*TASK, tasks.c.rank).where(*_LEFT).order_by(tasks.c.rank, tasks.c.id).limit(limit)
    ).all()
    leaders: dict[str, _Ended | None] = {}
    settled = []
    for *row, rank in rows:
        task = task_record(row)
        assert task.twin_of is not None
        if task.twin_of not in leaders:
            leaders[task.twin_of] = _ended(tx, task.twin_of)
        settled.append(_settle(tx, task, rank, leaders[task.twin_of]))
    return settled


@dataclass(frozen=True, slots=True)
class _Ended:
    """A leader that has ended, and its result if it left one."""

    task: TaskRecord
    result: CachedResult | None


def _ended(tx: Transaction, task_id: str) -> _Ended | None:
    row = tx.connection.execute(select(*TASK, tasks.c.result_key).where(tasks.c.id == task_id)).one_or_none()
    if row is None:
        return None
    *values, key = row
    task = task_record(values)
    there = key is not None and task.output is not None and task.result_removed_at is None
    result = (
        CachedResult(key, task.output, task.served_by or "", task.degraded, task.quality)
        if there and task.output
        else None
    )
    return _Ended(task, result)


def _settle(tx: Transaction, task: TaskRecord, rank: float, leader: _Ended | None) -> TaskRecord:
    if leader is not None and leader.result is not None and leader.result.key in task.cache_keys:
        return cache.serve(tx, task, leader.result)
    error = None if leader is None else leader.task.error
    if leader is not None and leader.task.status is Status.FAILED and error and error.get("code") in CALLERS_FAULT:
        told = error | {"message": _in_own_words(str(error.get("message", "")), leader.task, task)}
        return finish(tx, task, Status.FAILED, {"error": told}, error=told)
    found = cache.find(tx.connection, task.cache_keys, tx.now)
    if found is not None:
        return cache.serve(tx, task, found)
    return _go_on(tx, task, rank, was_started=leader is not None and leader.task.started_at is not None)


def _go_on(tx: Transaction, task: TaskRecord, rank: float, *, was_started: bool) -> TaskRecord:
    """Follow another equal task, or lead. No event: its status stays."""
    other = leader_of(tx, task.cache_keys)
    limits = (task.deadline_at, None if was_started else task.start_deadline_at)
    row = tx.connection.execute(
        update(tasks)
        .where(tasks.c.id == task.id)
        .values(
            twin_of=None if other is None else other.id,
            ready_at=tx.now if other is None else None,
            give_up_at=min((at for at in limits if at is not None), default=None),
        )
        .returning(*TASK)
    ).one()
    if other is not None:
        lift(tx, other, rank)
    return task_record(row)


def _in_own_words(message: str, leader: TaskRecord, task: TaskRecord) -> str:
    """The leader's caller has names of its own for the same contents, which are nobody else's business."""
    for theirs, own in ((leader.source, task.source), (leader.audio, task.audio)):
        message = message.replace(theirs.name, own.name) if theirs.name else message
    return message
