"""Videos that a person decides about: put up, approved, rejected, made again."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from app.retry.taxonomy import Failure, FailureCode
from app.store.claims import held_task
from app.store.creation import as_error, cancelled
from app.store.errors import NotInReview
from app.store.records import Artifact, Claim, Order, TaskRecord, Verdict
from app.store.transaction import Transaction
from app.store.transitions import close_attempt, finish, load, move, wait
from app.tasks.route import join
from app.tasks.status import Status


def put_up(
    tx: Transaction,
    held: Claim,
    artifact: Artifact,
    *,
    error: dict[str, Any],
    served_by: str,
    degraded: bool,
    quality: dict[str, Any],
    stages: dict[str, float],
    facts: dict[str, Any],
    result_key: str | None = None,
) -> TaskRecord:
    """RUNNING -> REVIEW. See `Store.put_up_for_review`."""
    task = held_task(tx, held)
    if task.cancel_requested_at is not None:
        ended = close_attempt(tx, task, "cancelled")
        return finish(tx, task, Status.CANCELLED, ended, error=cancelled())
    ended = close_attempt(tx, task, "failed", error=error, stages=stages, facts=facts)
    return move(
        tx,
        task,
        Status.REVIEW,
        {"error": error, "served_by": served_by, "degraded": degraded, "confidence": quality.get("confidence")} | ended,
        output=asdict(artifact),
        served_by=served_by,
        degraded=degraded,
        quality=quality,
        error=error,
        result_key=result_key,
        ready_at=None,
        due_at=None,
        # It was rendered in time; how long the person takes is not the caller's deadline.
        give_up_at=None,
        retry_at=None,
        retry_reason=None,
        lease_owner=None,
        lease_expires_at=None,
    )


def approve(tx: Transaction, task_id: str, verdict: Verdict) -> TaskRecord | None:
    """REVIEW -> SUCCEEDED. See `Store.aapprove`."""
    task = _in_review(tx, task_id)
    if task is None:
        return None
    told = {"review": _told("approved", verdict), "served_by": task.served_by, "degraded": task.degraded}
    quality = (task.quality or {}) | {"review": _told("approved", verdict)}
    return finish(tx, task, Status.SUCCEEDED, told, error=None, quality=quality)


def reject(tx: Transaction, task_id: str, verdict: Verdict) -> TaskRecord | None:
    """REVIEW -> FAILED. See `Store.areject`."""
    task = _in_review(tx, task_id)
    if task is None:
        return None
    detail = {"review": _told("rejected", verdict)}
    message = f"The video was rejected by {verdict.who}: {verdict.reason}"
    error = as_error(
        Failure(FailureCode.LOW_CONFIDENCE, message, "Submit it again with other inputs or options.", detail)
    )
    quality = (task.quality or {}) | detail
    return finish(tx, task, Status.FAILED, {"error": error} | detail, error=error, quality=quality, output=None)


def rerender(tx: Transaction, task_id: str, verdict: Verdict, order: Order) -> TaskRecord | None:
    """REVIEW -> QUEUED. See `Store.arerender`."""
    task = _in_review(tx, task_id)
    if task is None:
        return None
    ordered = {"renderer": order.renderer, "options": order.options}
    return wait(
        tx,
        task,
        Status.QUEUED,
        {"reason": "rerender", "review": _told("rerender", verdict) | ordered},
        until=None,
        **ordered,
        fallback=order.fallback,
        route=join(order.route),
        # What it will be is not what equal tasks have asked for.
        cache_keys=None,
        use_cache=False,
        result_key=None,
        retries=0,
        retry_at=None,
        retry_reason=None,
        error=None,
        output=None,
        quality=None,
        served_by=None,
        degraded=False,
    )


def _in_review(tx: Transaction, task_id: str) -> TaskRecord | None:
    task = load(tx, task_id)
    if task is not None and task.status is not Status.REVIEW:
        raise NotInReview(task.status)
    return task


def _told(what: str, verdict: Verdict) -> dict[str, Any]:
    return {"verdict": what, "who": verdict.who, "reason": verdict.reason}
