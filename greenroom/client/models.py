"""What the service answers, as typed dictionaries: exactly its JSON (docs/http.md), nothing renamed or lost."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

Status = Literal["QUEUED", "RUNNING", "RETRY_WAIT", "REVIEW", "SUCCEEDED", "FAILED", "CANCELLED"]


class Progress(TypedDict):
    """How far a task is; `total` 0 means unknown."""

    phase: str | None
    done: int
    total: int
    fraction: float | None
    eta_s: float | None


class TaskError(TypedDict):
    """Why a task failed; `message` and `hint` are never empty."""

    code: str
    message: str
    hint: str
    retryable: bool


class Output(TypedDict):
    """The finished video."""

    url: str
    sha256: str
    bytes: int
    duration_s: float
    width: int
    height: int
    fps: float


class Task(TypedDict):
    """A task."""

    id: str
    status: Status
    is_terminal: bool
    progress: Progress
    queue_position: int | None
    queue_wait_s: float | None
    wait_reason: str | None
    wait_until: str | None
    wait_cause: str | None
    waits_for: list[str]
    attempts: list[dict[str, Any]] | None
    served_by: str | None
    degraded: bool
    quality: dict[str, Any] | None
    error: TaskError | None
    output: Output | None
    links: dict[str, str | None]
    trace_id: str | None
    retry_of: str | None
    derived_from: str | None
    after: list[str]
    created_at: str
    started_at: str | None
    finished_at: str | None
    metadata: dict[str, Any]


class Upload(TypedDict):
    """A stored file; `uri` is what a task takes."""

    id: str
    uri: str
    sha256: str
    bytes: int
    name: str
    created_at: str
    expires_at: str
    """Until when it is kept at least."""


class Event(TypedDict):
    """One event of a stream. `id` is None for `task.progress` and `gap`, which are not kept."""

    id: int | None
    type: str
    data: dict[str, Any]
