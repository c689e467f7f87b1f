"""What goes into the store and what comes out of it: plain immutable records, times in epoch seconds (UTC)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from app.tasks.status import Status
from app.tasks.trace import TraceContext, span_id


@dataclass(frozen=True, slots=True)
class InputRef:
    """One input of a task: a file in the content-addressed blob store, and what the probe found in it."""

    uri: str
    """What the caller wrote (`upload:...`, `file:///...`, `https://...`) or `multipart:<file name>`."""
    sha256: str
    """Empty while it is the result of a task that has not finished (`task:...`)."""
    bytes: int
    name: str
    """A file name for people; never used as a path."""
    media: dict[str, Any] = field(default_factory=dict)
    """`app.media.info.MediaInfo` as a dict."""


@dataclass(frozen=True, slots=True)
class Callback:
    """Where a task's notices go, and which of them."""

    url: str
    events: tuple[str, ...]
    """Types of events, of `app.tasks.notices.NOTICES`."""
    secret: str | None = field(default=None, repr=False)
    """What the caller wants its notices signed with; None: the service's own."""
    closed: bool = False
    """The endpoint said that it is gone for good: nothing more is sent by itself."""

    @property
    def endpoint(self) -> str:
        """Scheme, host and port: what is slow or dead together."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}".lower()


@dataclass(frozen=True, slots=True)
class NewTask:
    """A checked request, ready to be written."""

    source: InputRef
    audio: InputRef
    renderer: str | None = None
    fallback: str = "any"
    route: tuple[str, ...] = ()
    """The tiers that may serve it, best first."""
    options: dict[str, Any] = field(default_factory=dict)
    priority: int = 5
    not_before: float | None = None
    start_deadline_at: float | None = None
    deadline_at: float | None = None
    default_deadline: bool = False
    """Whether `deadline_at` is the service's own, for want of one of the caller's."""
    metadata: dict[str, Any] = field(default_factory=dict)
    client: str = ""
    trace: TraceContext | None = None
    """The request that made it."""
    retry_of: str | None = None
    """The FAILED task that this one tries again."""
    callback: Callback | None = None
    cache_keys: tuple[str, ...] = ()
    """Results of which keys would do, best first; empty: it takes no part in the cache."""
    use_cache: bool = True
    """Whether its caller lets it take part in the cache."""
    derived_from: str | None = None
    """The task that it was made from with changes."""
    after: tuple[str, ...] = ()
    """All its predecessors: those that it was to wait for, and those whose results it uses."""
    waits_for: tuple[str, ...] = ()
    """Those of `after` that may not have ended; with any, it waits until it is released (`Store.arelease`)."""


@dataclass(frozen=True, slots=True)
class Release:
    """What a task whose predecessors have succeeded is to do: known only now, since it depends on their results."""

    source: InputRef
    audio: InputRef
    route: tuple[str, ...]
    cache_keys: tuple[str, ...] = ()
    default_deadline_s: float | None = None
    """Seconds from now, or from its `not_before`, for a task that has no deadline."""


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A caller's key and the fingerprint (SHA-256, hex) of the request that came with it."""

    key: str
    client: str
    fingerprint: str
    ttl_s: float = 86_400.0


@dataclass(frozen=True, slots=True)
class Artifact:
    """A published result file. `path` is relative to the data directory."""

    path: str
    sha256: str
    bytes: int
    duration_s: float
    width: int
    height: int
    fps: float
    frames: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who decided about a video in review, and why."""

    who: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """What a task is to be rendered with: the part of a request that a reviewer may change, and the tiers for it."""

    renderer: str | None
    fallback: str
    options: dict[str, Any]
    route: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt as it is kept: started, ended, and why it ended."""

    n: int
    tier: str
    slot: str
    device: str
    started_at: float
    ended_at: float | None = None
    outcome: str | None = None
    """`succeeded`, `failed`, `cancelled`, `interrupted`, or None while it runs."""
    error: dict[str, Any] | None = None
    """`{code, message, hint, detail}`."""
    backoff_ms: int | None = None
    postmortem: dict[str, Any] | None = None
    stages: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    why: dict[str, Any] | None = None
    """Why it ran on this tier: `{reason, considered}`."""
    followed_by: str | None = None
    """What was decided after it failed, in words."""


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task as the store knows it."""

    id: str
    status: Status
    priority: int
    source: InputRef
    audio: InputRef
    renderer: str | None
    fallback: str
    route: tuple[str, ...]
    """The tiers that may serve it in this round, best first: those that failed in it are gone."""
    options: dict[str, Any]
    metadata: dict[str, Any]
    client: str
    trace_id: str
    created_at: float
    enqueued_at: float
    """From when its waiting counts: `created_at`, or `not_before` where that is later."""
    not_before: float | None
    start_deadline_at: float | None
    deadline_at: float | None
    started_at: float | None
    """When its first attempt began."""
    finished_at: float | None
    attempt: int
    """Number of the current or last attempt, 0 before the first: the fence."""
    retries: int
    """Retries charged so far (interruptions are free)."""
    retry_at: float | None
    """In RETRY_WAIT: when it may run again. Kept while that retry runs."""
    retry_reason: str | None
    """The failure code that led to the retry, as long as `retry_at` stands."""
    cancel_requested_at: float | None
    error: dict[str, Any] | None
    output: Artifact | None
    served_by: str | None
    degraded: bool
    quality: dict[str, Any] | None
    lease_owner: str | None
    lease_expires_at: float | None
    last_event_id: int
    retry_of: str | None = None
    """The FAILED task that this one tries again. That one does not know: what has ended never changes."""
    result_removed_at: float | None = None
    """When retention removed the result file; `output` still tells what it was."""
    callback: Callback | None = None
    cache_keys: tuple[str, ...] = ()
    """Results of which keys would do, best first; empty: it takes no part in the cache."""
    twin_of: str | None = None
    """The equal task that it waits for, or waited for when it ended."""
    cached: bool = False
    """Its result was made for another task."""
    span_id: str = ""
    """In the trace `trace_id`: the span of the request that made it."""
    sampled: bool = True
    """Whether that trace is recorded."""
    use_cache: bool = True
    """Whether its caller lets it take part in the cache."""
    derived_from: str | None = None
    """The task that it was made from with changes."""
    after: tuple[str, ...] = ()
    """All its predecessors."""
    waits_for: tuple[str, ...] | None = None
    """Its predecessors that have not succeeded; none left: it is about to be released. None: it waits for nobody."""
    default_deadline: bool = False
    """Whether `deadline_at` is the service's own, for want of one of the caller's."""
    attempts: tuple[AttemptRecord, ...] = ()
    """Only `get` and a replay found with `afind_replay` fill this in."""

    @property
    def trace(self) -> TraceContext | None:
        """The request that made it, None for a task that no request made."""
        return TraceContext(self.trace_id, self.span_id or span_id(self.id), self.sampled) if self.trace_id else None


@dataclass(frozen=True, slots=True)
class Admission:
    """On what terms a new task is accepted. See `Tasks.acreate`."""

    max_waiting: int | None = None
    max_waiting_per_client: int | None = None
    defer_above: int | None = None
    cached_when_full: bool = False
    trusts: Callable[[CachedResult], bool] | None = None


UNCONDITIONAL = Admission()


@dataclass(frozen=True, slots=True)
class Created:
    """The answer to a create: `replayed` when the idempotency key already had this task."""

    task: TaskRecord
    replayed: bool
    deferred: bool = False
    """It was accepted beyond the limit up to which tasks are taken for soon."""


@dataclass(frozen=True, slots=True)
class CachedResult:
    """A result that may be served to equal tasks."""

    key: str
    output: Artifact
    served_by: str
    degraded: bool
    quality: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class KeepFor:
    """How a result is kept for equal tasks."""

    key: str
    ttl_s: float
    max_bytes: int
    """Of all cached results together."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a node would run the next task of one route on, and why."""

    tier: str
    why: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """What a commit made wait."""

    at: float
    """When the first of these tasks is to be looked at: it may start, or its deadline passes; epoch seconds."""
    new: frozenset[tuple[str, ...]] = frozenset()
    """The routes of those that are new and may start at once."""


@dataclass(frozen=True, slots=True)
class ReadyRoute:
    """A route with tasks that are ready; `tasks` is counted up to a limit."""

    route: tuple[str, ...]
    tasks: int


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run one attempt of one task. Every write of the attempt carries it."""

    task: TaskRecord
    attempt: int
    owner: str
    lease_expires_at: float
    tier: str = ""
    """The tier that the attempt runs on."""
    earlier: tuple[str, ...] = ()
    """The failure codes of the task's attempts before this one, in their order."""


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One durable event. `id` grows over all tasks; `status` is the task's status after it."""

    id: int
    task_id: str
    type: str
    status: Status
    attempt: int
    at: float
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks to list; None means any."""

    status: tuple[Status, ...] | None = None
    renderer: str | None = None
    client: str | None = None
    retry_of: str | None = None
    derived_from: str | None = None
    waits_for: str | None = None
    """Those that wait now for this task: as one of their predecessors, or as the equal one that leads."""
    created_after: float | None = None
    created_before: float | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing, newest first; `next_cursor` is None on the last."""

    tasks: tuple[TaskRecord, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """A stored upload. Several ids may share one content."""

    id: str
    sha256: str
    bytes: int
    name: str
    created_at: float
    expires_at: float


CancelOutcome = Literal["cancelled", "requested", "already_terminal", "unknown"]
AttemptEnd = Literal["retry", "failover", "fail", "requeue", "cancel"]
