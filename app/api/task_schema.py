"""The task resource as a schema: what each of its fields tells."""

from __future__ import annotations

from typing import Any

from app.api.described import Described
from app.tasks.status import Status


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
