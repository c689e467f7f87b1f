"""The task resource: what a caller sees of a task. A pure function of the record and of what runs at this moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.api.described import Described
from app.api.ports import LiveProgress
from app.forecast.outlook import Outlook
from app.retry.taxonomy import Failure, FailureCode
from app.store.records import Artifact, AttemptRecord, TaskRecord
from app.tasks.status import CLAIMABLE, Status

UNFINISHED_FRACTION = 0.99
"""The most that a task shows before it is SUCCEEDED: completion is the status, never the progress."""


@dataclass(frozen=True, slots=True)
class Holds:
    """What keeps every waiting task from being started by this service."""

    draining: bool = False
    paused: bool = False
    no_ready_slot: bool = False
    """Every slot is starting, down or quarantined."""
    of_route: Callable[[Sequence[str]], tuple[str, float | None] | None] = lambda _route: None
    """Why no tier of a route can take a task, and until when; None if one can or is merely busy."""

    @property
    def reason(self) -> str:
        """The one that would have to go last; `slot` where there is none and it is a matter of turns."""
        if self.draining:
            return "draining"
        if self.paused:
            return "paused"
        return "no_ready_slot" if self.no_ready_slot else "slot"


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a task does not run, until when, and the code of the failure behind it."""

    reason: str | None = None
    until: float | None = None
    cause: str | None = None


class Progress(Described):
    """How far a task is. `fraction` 0 to 1 over the current phase's units; `total` 0 means unknown."""

    phase: str | None
    """`load`, `fetch`, `analyse`, `render` or `encode` while it runs, `done` once it has SUCCEEDED; else null."""
    done: int
    """Units of the phase that are done: frames, while it renders."""
    total: int
    """Units of the phase; 0 where they are not known."""
    fraction: float | None
    """Between 0 and 1, and 1 only of a task that has SUCCEEDED; null where nothing tells."""
    eta_s: float | None
    """Seconds until the task is expected to end, waiting included; null where nobody can know."""


class ErrorResource(Described):
    """Why a task or an attempt failed. `message` and `hint` are never empty."""

    code: str
    """What failed: a code of docs/failures.md."""
    message: str
    """What happened, for people."""
    hint: str
    """What to do about it."""
    retryable: bool
    """Whether the same may succeed later without a change."""


class AttemptError(ErrorResource):
    """Why an attempt failed, with facts that its code records."""

    detail: dict[str, Any]
    """Facts that the code records, such as limits and measured values."""


class AttemptResource(Described):
    """One attempt. `outcome` is null while it runs."""

    n: int
    """1 for the first."""
    tier: str
    """The tier that it ran on."""
    slot: str
    """The slot that it ran in."""
    started_at: str
    """When a slot took it."""
    ended_at: str | None
    """Null while it runs."""
    outcome: str | None
    """`succeeded`, `failed`, `cancelled` or `interrupted` (the service ended, or lost it: free of charge); null
    while it runs.
    """
    error: AttemptError | None
    """Why it failed, was cancelled or interrupted."""
    backoff_ms: int | None
    """Where a retry follows: the pause before it, in milliseconds."""
    postmortem: dict[str, Any] | None
    """Of a process that died or was ended: what was seen of it, as its signal, last output and memory."""
    why: dict[str, Any] | None
    """Why it ran on this tier: `reason`, and how each tier stood (`considered`)."""
    followed_by: str | None
    """What was decided when it had failed."""


class OutputResource(Described):
    """The finished video."""

    url: str
    """Where to fetch it."""
    sha256: str
    """Of the file, in hexadecimal: what `ETag` and `Repr-Digest` say, too."""
    bytes: int
    """Length of the file."""
    duration_s: float
    """Length of the video."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    fps: float
    """Frames a second."""


class ReviewLinks(Described):
    """What a person does about a video in review."""

    output: str
    """The video that is to be judged."""
    approve: str
    """POST here: it is good."""
    reject: str
    """POST here: it is not, and the task fails."""
    rerender: str
    """POST here to have it made again."""


class TaskLinks(Described):
    """Addresses that apply to the task as it is now; null where one does not (yet)."""

    self: str
    """The task."""
    output: str | None
    """The video; of a task that has SUCCEEDED."""
    events: str | None
    """What happens to it, as it happens."""
    cancel: str | None
    """POST here to cancel it; until it has ended."""
    retry: str | None
    """Of a FAILED task: POST here to try it again, as a new task."""
    retries: str | None
    """Of a FAILED task: the tasks that try it again. An address and no list, since what has ended never changes."""
    derive: str
    """POST here to make a new task of this one with changes."""
    derived: str
    """The tasks that were made like that."""
    deliveries: str | None
    """Of a task with a callback: its notices, and what became of them."""
    review: ReviewLinks | None
    """Of a task in REVIEW: where to see the video, and where to decide."""


class TaskResource(Described):
    """A task."""

    id: str
    """Its name in all addresses."""
    status: Status
    """Where it stands. SUCCEEDED, FAILED and CANCELLED are for ever."""
    is_terminal: bool
    """Whether it has ended: then it reads the same for ever."""
    progress: Progress
    """How far it is."""
    queue_position: int | None
    """Runnable tasks that go first; null in listings, in the answer to a submission, and where it does not wait."""
    queue_wait_s: float | None
    """Seconds until it is expected to start; null where it does not wait, or nobody can know."""
    wait_reason: str | None
    """`predecessor` (until the tasks in `waits_for` have succeeded), `inputs` (they have; their results are taken in),
    `scheduled`, `twin` (an equal task is on its way, and its result will do), `retry_backoff`, `draining`, `paused`,
    `no_ready_slot`, `no_tier` (none that is configured now may serve it), `breaker_open` (of every tier that may),
    `slot`, `review`, `cancelling`."""
    wait_until: str | None
    """When `scheduled`, `retry_backoff` and `breaker_open` end."""
    wait_cause: str | None
    """With `retry_backoff`: the code of the failure."""
    waits_for: list[str]
    """With `predecessor`: the tasks of `after` that have not succeeded yet."""
    attempts: list[AttemptResource] | None
    """Null in listings."""
    served_by: str | None
    """The tier that made the result."""
    cached: bool
    """Its result was made for an equal task."""
    degraded: bool
    """Whether that tier is a stopgap, whose lips need not move."""
    quality: dict[str, Any] | None
    """What the quality gate found: `confidence`, each check, and who decided in a review. Null where none has
    looked.
    """
    error: ErrorResource | None
    """Why it failed or was cancelled, or what a review is about."""
    output: OutputResource | None
    """The video, once it has SUCCEEDED."""
    links: TaskLinks
    """Where to go from here."""
    retry_of: str | None
    """The FAILED task that this one tries again."""
    trace_id: str | None
    """The trace of the request that made it: what its log lines, attempts, notices and calls carry."""
    derived_from: str | None
    """The task that this one was made from with changes."""
    after: list[str]
    """The tasks that had to succeed before it could start, those whose results it uses among them."""
    created_at: str
    """When it was accepted."""
    started_at: str | None
    """When its first attempt began."""
    finished_at: str | None
    """When it ended."""
    metadata: dict[str, Any]
    """What its caller gave with it."""


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


def waiting(task: TaskRecord, now: float, holds: Holds) -> Wait:
    """Why the task does not run: its own reason first, then what holds all tasks."""
    if task.status.is_terminal:
        return Wait()
    if task.cancel_requested_at is not None:
        return Wait("cancelling")
    if task.status is Status.REVIEW:
        return Wait("review")
    if task.waits_for is not None:
        return Wait("predecessor" if task.waits_for else "inputs")
    if task.status is Status.QUEUED and task.not_before is not None and task.not_before > now:
        return Wait("scheduled", task.not_before)
    if task.status is Status.QUEUED and task.twin_of is not None:
        return Wait("twin")
    if task.status is Status.RETRY_WAIT and task.retry_at is not None and task.retry_at > now:
        return Wait("retry_backoff", task.retry_at, task.retry_reason)
    if task.status not in CLAIMABLE:
        return Wait()
    if holds.reason == "slot" and (held := holds.of_route(task.route)) is not None:
        return Wait(*held)
    return Wait(holds.reason)


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
