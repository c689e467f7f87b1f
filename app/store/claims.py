"""What the holder of a claim may write: renewals, results, ends. The attempt number is the fence."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import bindparam, select, update

from app.retry.taxonomy import Failure, FailureCode
from app.store import cache
from app.store.creation import as_error, cancelled
from app.store.errors import StaleClaim
from app.store.records import Artifact, AttemptEnd, Claim, KeepFor, TaskRecord
from app.store.rows import TASK, task_record
from app.store.schema import tasks
from app.store.transaction import Transaction
from app.store.transitions import close_attempt, finish, load, wait
from app.tasks.route import join
from app.tasks.status import Status

_HELD = (
    tasks.c.id == bindparam("task"),
    tasks.c.attempt == bindparam("fence"),
    tasks.c.status == Status.RUNNING.value,
    tasks.c.lease_owner == bindparam("holder"),
)
_RENEW = update(tasks).where(*_HELD).values(lease_expires_at=bindparam("until")).returning(*TASK)


def renew(tx: Transaction, held: Claim, lease_s: float) -> TaskRecord:
    """Push the lease further. See `Store.renew`."""
    row = tx.connection.execute(
        _RENEW,
        {"task": held.task.id, "fence": held.attempt, "holder": held.owner, "until": tx.now + lease_s},
    ).one_or_none()
    if row is None:
        raise _stale(held)
    return task_record(row)


def succeed(
    tx: Transaction,
    held: Claim,
    artifact: Artifact,
    *,
    served_by: str,
    degraded: bool,
    quality: dict[str, Any] | None,
    stages: dict[str, float] | None,
    facts: dict[str, Any] | None,
    keep: KeepFor | None = None,
) -> TaskRecord:
    """RUNNING -> SUCCEEDED. See `Store.succeed`."""
    task = held_task(tx, held)
    ended = close_attempt(tx, task, "succeeded", stages=stages or {}, facts=facts or {})
    succeeded = finish(
        tx,
        task,
        Status.SUCCEEDED,
        {"served_by": served_by, "degraded": degraded, "confidence": (quality or {}).get("confidence")} | ended,
        output=asdict(artifact),
        served_by=served_by,
        degraded=degraded,
        quality=quality,
        error=None,
        result_key=None if keep is None else keep.key,
    )
    if keep is not None:
        cache.remember(tx, succeeded, keep)
    return succeeded


def end_attempt(
    tx: Transaction,
    held: Claim,
    end: AttemptEnd,
    *,
    error: dict[str, Any] | None,
    retry_at: float | None,
    backoff_ms: int | None,
    postmortem: dict[str, Any] | None,
    route: tuple[str, ...] | None = None,
    followed_by: str | None = None,
) -> TaskRecord:
    """Close the attempt without a result. See `Store.end_attempt`."""
    task = held_task(tx, held)
    if task.cancel_requested_at is not None and end in ("retry", "failover", "requeue"):
        end = "cancel"
    ended = close_attempt(
        tx,
        task,
        _OUTCOME[end],
        error=error,
        backoff_ms=backoff_ms if end == "retry" else None,
        postmortem=postmortem,
        followed_by=followed_by,
    )
    to = task.route if route is None else route
    match end:
        case "retry":
            return _retry(tx, task, error, tx.now if retry_at is None else retry_at, backoff_ms, to, ended)
        case "failover":
            return _failover(tx, task, error, to, ended)
        case "requeue":
            return _requeue(tx, task, "interrupted", ended, until=retry_at)
        case "fail":
            return finish(tx, task, Status.FAILED, {"error": error} | ended, error=error)
        case "cancel":
            return finish(tx, task, Status.CANCELLED, ended, error=cancelled())


def rescue_expired(tx: Transaction, limit: int) -> list[TaskRecord]:
    """Requeue up to `limit` tasks whose lease ran out."""
    rows = tx.connection.execute(
        select(*TASK).where(tasks.c.lease_expires_at <= tx.now).order_by(tasks.c.lease_expires_at).limit(limit)
    ).all()
    return [_give_back(tx, task_record(row), "lease_expired") for row in rows]


def take_back(tx: Transaction, owner: str, limit: int) -> list[TaskRecord]:
    """Requeue up to `limit` tasks leased to `owner`."""
    rows = tx.connection.execute(
        select(*TASK).where(tasks.c.lease_expires_at.is_not(None), tasks.c.lease_owner == owner).limit(limit)
    ).all()
    return [_give_back(tx, task_record(row), "taken_back") for row in rows]


def _requeue(
    tx: Transaction, task: TaskRecord, reason: str, ended: dict[str, Any], *, until: float | None = None
) -> TaskRecord:
    """Back to QUEUED, no retry charged."""
    return wait(tx, task, Status.QUEUED, {"reason": reason} | ended, until=until, retry_at=None, retry_reason=None)


def _retry(
    tx: Transaction,
    task: TaskRecord,
    error: dict[str, Any] | None,
    at: float,
    backoff_ms: int | None,
    route: tuple[str, ...],
    ended: dict[str, Any],
) -> TaskRecord:
    retries = task.retries + 1
    return wait(
        tx,
        task,
        Status.RETRY_WAIT,
        {"retry_at": at, "backoff_ms": backoff_ms, "retries": retries, "error": error} | ended,
        until=at,
        retries=retries,
        retry_at=at,
        retry_reason=None if error is None else error.get("code"),
        route=join(route),
    )


def _failover(
    tx: Transaction,
    task: TaskRecord,
    error: dict[str, Any] | None,
    route: tuple[str, ...],
    ended: dict[str, Any],
) -> TaskRecord:
    """On to the next tier: at once, and no retry is charged."""
    return wait(
        tx,
        task,
        Status.RETRY_WAIT,
        {"retry_at": tx.now, "retries": task.retries, "error": error, "failover_to": list(route)} | ended,
        until=None,
        retry_at=tx.now,
        retry_reason=None if error is None else error.get("code"),
        route=join(route),
    )


def _give_back(tx: Transaction, task: TaskRecord, reason: str) -> TaskRecord:
    """What happens to a running task whose holder is gone."""
    if task.cancel_requested_at is not None:
        ended = close_attempt(tx, task, "cancelled")
        return finish(tx, task, Status.CANCELLED, {"reason": reason} | ended, error=cancelled())
    error = as_error(Failure(FailureCode.INTERRUPTED, detail={"reason": reason}))
    return _requeue(tx, task, reason, close_attempt(tx, task, "interrupted", error=error))


def held_task(tx: Transaction, held: Claim) -> TaskRecord:
    """The task of a claim that is still current. Raises `StaleClaim`."""
    task = load(tx, held.task.id)
    if (
        task is None
        or task.status is not Status.RUNNING
        or task.attempt != held.attempt
        or task.lease_owner != held.owner
    ):
        raise _stale(held)
    return task


def _stale(held: Claim) -> StaleClaim:
    return StaleClaim(f"Attempt {held.attempt} of task {held.task.id} by {held.owner} is no longer the current one.")


_OUTCOME: dict[AttemptEnd, str] = {
    "retry": "failed",
    "failover": "failed",
    "fail": "failed",
    "requeue": "interrupted",
    "cancel": "cancelled",
}
