"""Making tasks, at most once per idempotency key; cancelling them; ending those that waited too long."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import delete, exists, func, insert, select

from app.retry.taxonomy import Failure, FailureCode
from app.store import cache, dependencies, twins
from app.store.announce import announce
from app.store.errors import ClientQueueFull, IdempotencyConflict, QueueFull, UntrustedResult
from app.store.records import (
    UNCONDITIONAL,
    Admission,
    CachedResult,
    CancelOutcome,
    Created,
    IdempotencyKey,
    NewTask,
    TaskRecord,
)
from app.store.rows import TASK, first_values, task_record
from app.store.schema import idempotency_keys as keys
from app.store.schema import tasks
from app.store.transaction import Transaction
from app.store.transitions import finish, load
from app.store.twins import Leader
from app.tasks.ids import new_id
from app.tasks.rank import rank
from app.tasks.replay import CANCEL_REQUESTED, EVENT_OF
from app.tasks.status import CLAIMABLE, TERMINAL, Status


def create(
    tx: Transaction, new: NewTask, key: IdempotencyKey | None = None, admission: Admission = UNCONDITIONAL
) -> Created:
    """Write task, key and first event. See `Store.acreate`."""
    if key is not None:
        earlier = find_replay(tx, key)
        if earlier is not None:
            return Created(earlier, replayed=True)
    if new.waits_for:
        # Looked up first: whoever names a task that has failed is told so, also by a full queue.
        waits_for = dependencies.unfinished(tx, new.waits_for)
    later = new.not_before is not None and new.not_before > tx.now
    full = admission.max_waiting is not None and tx.waiting >= admission.max_waiting
    shares = bool(new.cache_keys) and not later and not new.waits_for
    if shares and (admission.cached_when_full or not full):
        result = cache.find(tx.reading, new.cache_keys, tx.now)
        if result is not None:
            if admission.trusts is not None and not admission.trusts(result):
                raise UntrustedResult(result)
            return Created(_served(tx, new, key, result), replayed=False)
    if admission.max_waiting is not None and full:
        raise QueueFull(admission.max_waiting)
    if admission.max_waiting_per_client is not None and _waiting_of(tx, new.client, admission.max_waiting_per_client):
        raise ClientQueueFull(new.client, admission.max_waiting_per_client, tx.waiting)
    deferred = admission.defer_above is not None and tx.waiting >= admission.defer_above
    if new.waits_for:
        return Created(_chained(tx, new, key, waits_for), replayed=False, deferred=deferred)
    leader = twins.leader_of(tx, new.cache_keys) if shares else None
    task, row = _begin(tx, new, key, leader)
    tx.put_off(tasks, row)
    announce(tx, task, EVENT_OF[Status.QUEUED])
    if leader is not None:
        twins.lift(tx, leader, row["rank"])
    return Created(task, replayed=False, deferred=deferred)


def _served(tx: Transaction, new: NewTask, key: IdempotencyKey | None, result: CachedResult) -> TaskRecord:
    """A new task that ends at once with a cached result."""
    task, row = _begin(tx, new, key, None, "hit")
    tx.connection.execute(insert(tasks), row)
    announce(tx, task, EVENT_OF[Status.QUEUED])
    return cache.serve(tx, task, result)


def _chained(tx: Transaction, new: NewTask, key: IdempotencyKey | None, waits_for: tuple[str, ...]) -> TaskRecord:
    """A new task that waits for others. It has no cache keys before it is released, so that no twin can follow it: it
    might be one of those that it waits for.
    """
    task, row = _begin(tx, replace(new, cache_keys=()), key, None, waits_for=waits_for)
    tx.connection.execute(insert(tasks), row)
    dependencies.remember(tx, task.id, new.waits_for)
    announce(tx, task, EVENT_OF[Status.QUEUED])
    return task


def _begin(
    tx: Transaction,
    new: NewTask,
    key: IdempotencyKey | None,
    leader: Leader | None,
    use: str | None = None,
    *,
    waits_for: tuple[str, ...] | None = None,
) -> tuple[TaskRecord, dict[str, Any]]:
    """A new task with its first event and its key, and its row, which is still to be written."""
    twin_of = None if leader is None else leader.id
    task = _first_record(new, tx.now, tx.next_event_id, twin_of=twin_of, waits_for=waits_for)
    links = {"retry_of": new.retry_of, "derived_from": new.derived_from}
    origin: dict[str, Any] = {name: task_id for name, task_id in links.items() if task_id is not None}
    if waits_for is not None:
        origin["waits_for"] = list(waits_for)
    if new.cache_keys:
        origin["cache"] = use or ("miss" if leader is None else "join")
    tx.emit(task.id, EVENT_OF[Status.QUEUED], Status.QUEUED, 0, origin)
    tx.count(Status.QUEUED, +1)
    if key is not None:
        tx.put_off(
            keys,
            {
                "client": key.client,
                "key": key.key,
                "fingerprint": key.fingerprint,
                "task_id": task.id,
                "expires_at": tx.now + key.ttl_s,
            },
        )
    later = new.not_before is not None and new.not_before > tx.now
    # With a leader that runs, the work has started in time.
    start_by = None if leader is not None and leader.running else new.start_deadline_at
    waits = leader is not None or waits_for is not None
    moments: dict[str, float | None] = {
        "ready_at": None if later or waits else tx.now,
        "due_at": new.not_before if later and not waits else None,
        "give_up_at": min((at for at in (start_by, new.deadline_at) if at is not None), default=None),
    }
    tx.due(*moments.values())
    if not later and not waits:
        tx.new_routes.add(task.route)
    return task, first_values(task) | moments | {"rank": rank(task.enqueued_at, task.priority)}


def _waiting_of(tx: Transaction, client: str, at_least: int) -> bool:
    """Whether so many tasks of a client wait. Walks over as many entries of an index, not more."""
    waiting = (
        select(tasks.c.status)
        .where(
            tasks.c.client == client,
            tasks.c.status.in_([status.value for status in CLAIMABLE]),
            tasks.c.finished_at.is_(None),
        )
        .limit(at_least)
        .subquery()
    )
    return tx.connection.execute(select(func.count()).select_from(waiting)).scalar_one() >= at_least


def find_replay(tx: Transaction, key: IdempotencyKey) -> TaskRecord | None:
    """The task of a key that is still good, None for an unknown one. A key past its time is forgotten on the way.

    Raises `IdempotencyConflict`.
    """
    row = tx.connection.execute(
        select(keys.c.fingerprint, keys.c.expires_at, *TASK)
        .join_from(keys, tasks, keys.c.task_id == tasks.c.id)
        .where(keys.c.client == key.client, keys.c.key == key.key)
    ).one_or_none()
    if row is None:
        return None
    fingerprint, expires_at, *_ = row
    task = task_record(row[2:])
    if expires_at <= tx.now and task.status.is_terminal:
        tx.connection.execute(delete(keys).where(keys.c.client == key.client, keys.c.key == key.key))
        return None
    if fingerprint != key.fingerprint:
        raise IdempotencyConflict(task.id)
    return task


def prune_keys(tx: Transaction, limit: int) -> int:
    """Delete up to `limit` keys past their time whose task has ended; how many they were."""
    ended = exists().where(tasks.c.id == keys.c.task_id, tasks.c.status.in_([status.value for status in TERMINAL]))
    gone = tx.connection.execute(
        select(keys.c.client, keys.c.key).where(keys.c.expires_at <= tx.now, ended).limit(limit)
    ).all()
    for client, key in gone:
        tx.connection.execute(delete(keys).where(keys.c.client == client, keys.c.key == key))
    return len(gone)


def cancel(tx: Transaction, task_id: str, reason: str) -> CancelOutcome:
    """Cancel at once what does not run; set the flag of what does."""
    task = load(tx, task_id)
    if task is None:
        return "unknown"
    if task.status.is_terminal:
        return "already_terminal"
    if task.status is not Status.RUNNING:
        finish(tx, task, Status.CANCELLED, {"reason": reason}, error=cancelled(reason), cancel_requested_at=tx.now)
        return "cancelled"
    if task.cancel_requested_at is None:
        event_id = tx.emit(task.id, CANCEL_REQUESTED, task.status, task.attempt, {"reason": reason})
        tx.connection.execute(
            tasks.update().where(tasks.c.id == task.id).values(cancel_requested_at=tx.now, last_event_id=event_id)
        )
    return "requested"


def expire_waiting(tx: Transaction, now: float | None, limit: int) -> list[TaskRecord]:
    """Fail up to `limit` waiting tasks whose start deadline or deadline has passed."""
    at = tx.now if now is None else now
    rows = tx.connection.execute(
        select(*TASK).where(tasks.c.give_up_at <= at).order_by(tasks.c.give_up_at).limit(limit)
    ).all()
    failed = []
    for row in rows:
        task = task_record(row)
        never_ran = task.attempt == 0
        message = "The task did not start before its deadline." if never_ran else ""
        hint = "Raise `start_deadline_s` or `deadline_s`, or add slots: all were busy until then." if never_ran else ""
        detail: dict[str, object] = {"waited_as": task.status.value, "last_failure": task.retry_reason}
        if task.waits_for is not None:
            others = ", ".join(task.waits_for) or "the inputs that its predecessors made"
            message = f"The task did not start before its deadline: it waited for {others}."
            hint = "Raise `start_deadline_s` or `deadline_s`: they count while a task waits for others, too."
            detail["waits_for"] = list(task.waits_for)
        error = as_error(Failure(FailureCode.DEADLINE_EXCEEDED, message, hint, detail))
        failed.append(finish(tx, task, Status.FAILED, {"error": error}, error=error))
    return failed


def cancelled(reason: str = "") -> dict[str, object]:
    """The error of a cancelled task."""
    return as_error(Failure(FailureCode.CANCELLED, message=reason))


def as_error(failure: Failure) -> dict[str, object]:
    """A failure as it is stored: `{code, message, hint, detail}`."""
    return {
        "code": failure.code.value,
        "message": failure.message,
        "hint": failure.hint,
        "detail": failure.detail,
    }


def _first_record(
    new: NewTask, now: float, event_id: int, *, twin_of: str | None, waits_for: tuple[str, ...] | None
) -> TaskRecord:
    return TaskRecord(
        id=new_id("task", now),
        status=Status.QUEUED,
        priority=new.priority,
        source=new.source,
        audio=new.audio,
        renderer=new.renderer,
        fallback=new.fallback,
        route=new.route,
        options=new.options,
        metadata=new.metadata,
        client=new.client,
        trace_id="" if new.trace is None else new.trace.trace_id,
        created_at=now,
        # A scheduled task queues up when its time comes: it has not aged before.
        enqueued_at=now if new.not_before is None else max(now, new.not_before),
        not_before=new.not_before,
        start_deadline_at=new.start_deadline_at,
        deadline_at=new.deadline_at,
        started_at=None,
        finished_at=None,
        attempt=0,
        retries=0,
        retry_at=None,
        retry_reason=None,
        cancel_requested_at=None,
        error=None,
        output=None,
        served_by=None,
        degraded=False,
        quality=None,
        lease_owner=None,
        lease_expires_at=None,
        last_event_id=event_id,
        retry_of=new.retry_of,
        callback=new.callback,
        cache_keys=new.cache_keys,
        twin_of=twin_of,
        span_id="" if new.trace is None else new.trace.span_id,
        sampled=new.trace is None or new.trace.sampled,
        use_cache=new.use_cache,
        derived_from=new.derived_from,
        after=new.after,
        waits_for=waits_for,
        default_deadline=new.default_deadline,
    )
