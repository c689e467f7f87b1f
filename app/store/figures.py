"""What a store tells of many tasks at once: how queue and cache stand, what ended, and what forecasts learn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.tasks.status import Status


@dataclass(frozen=True, slots=True)
class AttemptEnding:
    """What statistics need of an attempt that has ended."""

    tier: str
    device: str
    outcome: str
    """As in `AttemptRecord`."""
    code: str | None
    """The failure's code; None for a success."""
    started_at: float
    ended_at: float


@dataclass(frozen=True, slots=True)
class TaskEnding:
    """What statistics need of a task that has ended."""

    tier: str
    """That of the attempt with which it ended; empty where it ended waiting."""
    status: Status
    enqueued_at: float
    started_at: float | None
    """When its first attempt began, None if none did."""
    finished_at: float


@dataclass(frozen=True, slots=True)
class WorkInputs:
    """What goes into a render, as far as it tells how long that takes."""

    source_sha256: str
    source: dict[str, Any]
    """What the probe found (`app.media.info.MediaInfo` as a dict)."""
    audio: dict[str, Any]
    """The same of the speech."""
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RenderedWork:
    """What forecasts learn from: an attempt that succeeded."""

    task_id: str
    attempt: int
    tier: str
    started_at: float
    ended_at: float
    facts: dict[str, Any]
    inputs: WorkInputs


@dataclass(frozen=True, slots=True)
class RunningWork:
    """An attempt that holds a lease now, on whichever node."""

    task_id: str
    owner: str
    tier: str
    started_at: float
    inputs: WorkInputs


@dataclass(frozen=True, slots=True)
class QueuedWork:
    """A task that could start now."""

    rank: float
    task_id: str
    route: tuple[str, ...]
    client: str
    inputs: WorkInputs


@dataclass(frozen=True, slots=True)
class Workload:
    """What was done, what runs and what waits, at one moment."""

    at: float
    rendered: tuple[RenderedWork, ...]
    """Oldest first."""
    running: tuple[RunningWork, ...]
    queued: tuple[QueuedWork, ...]
    """The head of the queue, in its order."""
    queued_more: int
    """How many wait behind it, counted up to 10,000."""


@dataclass(frozen=True, slots=True)
class QueueStats:
    """The queue at one moment."""

    by_status: dict[Status, int]
    runnable: int
    """QUEUED or due RETRY_WAIT tasks that could start now."""
    scheduled: int
    """QUEUED tasks whose `not_before` lies ahead, and RETRY_WAIT tasks not yet due."""
    joined: int
    """QUEUED tasks that wait for an equal one."""
    oldest_runnable_at: float | None
    """Since when the longest waiting runnable task could have started (a retry counts from when it fell due)."""
    paused: bool
    chained: int = 0
    """QUEUED tasks that wait for their predecessors."""


@dataclass(frozen=True, slots=True)
class CacheStats:
    """How much the cache holds."""

    results: int
    bytes: int
