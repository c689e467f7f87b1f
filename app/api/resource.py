"""The task resource: what a caller sees of a task. A pure function of the record and of what runs at this moment."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from app.api.ports import LiveProgress
from app.api.task_schema import (
    AttemptError,
    AttemptResource,
    ErrorResource,
    OutputResource,
    Progress,
    ReviewLinks,
    TaskLinks,
    TaskResource,
)
from app.api.why_waiting import Holds, waiting
from app.forecast.outlook import Outlook
from app.retry.taxonomy import Failure, FailureCode
from app.store.records import Artifact, AttemptRecord, TaskRecord
from app.tasks.status import Status

UNFINISHED_FRACTION = 0.99
"""The most that a task shows before it is SUCCEEDED: completion is the status, never the progress."""


def task_resource(
    task: TaskRecord,
    *,
    now: float,
    live: LiveProgress | None = None,
    queue_position: int | None = None,
    holds: Holds | None = None,
    outlook: Outlook | None = None,
    with_attempts: bool = True,
) -> TaskResource:
    """`task` as a resource at the time `now`. A terminal task gives the same for ever."""
    terminal = task.status.is_terminal
    path = f"/tasks/{task.id}"
    finished = task.output if task.status is Status.SUCCEEDED else None
    wait = waiting(task, now, holds or Holds())
    return TaskResource(
        id=task.id,
        status=task.status,
        is_terminal=terminal,
        progress=_progress(task, live if task.status is Status.RUNNING else None, None if terminal else outlook),
        queue_position=None if terminal else queue_position,
        queue_wait_s=None if terminal or outlook is None else _rounded(outlook.wait_s),
        wait_reason=wait.reason,
        wait_until=_moment(wait.until),
        wait_cause=wait.cause,
        waits_for=[] if terminal else list(task.waits_for or ()),
        attempts=[_attempt(a) for a in task.attempts] if with_attempts else None,
        served_by=task.served_by,
        cached=task.cached,
        degraded=task.degraded,
        quality=task.quality,
        error=ErrorResource(**_error(task.error)) if task.error else None,
        output=_output(finished, path) if finished else None,
        links=TaskLinks(
            self=path,
            output=f"{path}/output" if finished else None,
            events=f"{path}/events",
            cancel=None if terminal else f"{path}/cancel",
            retry=f"{path}/retry" if task.status is Status.FAILED else None,
            retries=f"/tasks?retry_of={task.id}" if task.status is Status.FAILED else None,
            derive=f"{path}/derive",
            derived=f"/tasks?derived_from={task.id}",
            deliveries=f"{path}/deliveries" if task.callback is not None else None,
            review=_review_links(path) if task.status is Status.REVIEW else None,
        ),
        retry_of=task.retry_of,
        trace_id=task.trace_id or None,
        derived_from=task.derived_from,
        after=list(task.after),
        created_at=rfc3339(task.created_at),
        started_at=_moment(task.started_at),
        finished_at=_moment(task.finished_at),
        metadata=task.metadata,
    )


def _review_links(path: str) -> ReviewLinks:
    return ReviewLinks(
        output=f"{path}/output?review=true",
        approve=f"{path}/approve",
        reject=f"{path}/reject",
        rerender=f"{path}/rerender",
    )


def rfc3339(at: float) -> str:
    """Epoch seconds as UTC text with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _moment(at: float | None) -> str | None:
    return None if at is None else rfc3339(at)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)


def _progress(task: TaskRecord, live: LiveProgress | None, outlook: Outlook | None) -> Progress:
    if task.status is Status.SUCCEEDED:
        frames = task.output.frames if task.output else 0
        return Progress(phase="done", done=frames, total=frames, fraction=1.0, eta_s=0.0)
    if live is None:
        eta = None if outlook is None else _rounded(outlook.eta_s)
        return Progress(phase=None, done=0, total=0, fraction=None if task.status.is_terminal else 0.0, eta_s=eta)
    fraction = min(live.done / live.total, UNFINISHED_FRACTION) if live.total > 0 else None
    return Progress(phase=live.phase, done=live.done, total=live.total, fraction=fraction, eta_s=_rounded(live.eta_s))


def _attempt(attempt: AttemptRecord) -> AttemptResource:
    error = attempt.error
    return AttemptResource(
        n=attempt.n,
        tier=attempt.tier,
        slot=attempt.slot,
        started_at=rfc3339(attempt.started_at),
        ended_at=_moment(attempt.ended_at),
        outcome=attempt.outcome,
        error=AttemptError(**_error(error), detail=error.get("detail") or {}) if error else None,
        backoff_ms=attempt.backoff_ms,
        postmortem=attempt.postmortem,
        why=attempt.why,
        followed_by=attempt.followed_by,
    )


def _error(error: dict[str, Any]) -> dict[str, Any]:
    try:
        code = FailureCode(error.get("code", ""))
    except ValueError:
        # Written by a newer version of the service.
        text = error.get("message") or "The task failed for a reason that this version does not know."
        hint = error.get("hint") or "Ask a newer version of the service."
        return {
            "code": str(error.get("code") or FailureCode.INTERNAL),
            "message": text,
            "hint": hint,
            "retryable": False,
        }
    failure = Failure(code, error.get("message") or "", error.get("hint") or "")
    return {"code": code, "message": failure.message, "hint": failure.hint, "retryable": failure.policy.retryable}


def _output(artifact: Artifact, path: str) -> OutputResource:
    return OutputResource(
        url=f"{path}/output",
        sha256=artifact.sha256,
        bytes=artifact.bytes,
        duration_s=artifact.duration_s,
        width=artifact.width,
        height=artifact.height,
        fps=artifact.fps,
    )
