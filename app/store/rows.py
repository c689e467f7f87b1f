"""Between rows and records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import Row

from app.store.records import Artifact, AttemptRecord, Callback, EventRecord, InputRef, TaskRecord, UploadRecord
from app.store.schema import attempts, events, tasks, uploads
from app.tasks import chain
from app.tasks.route import join, split
from app.tasks.status import Status

_TASK_FIELDS = tuple(field.name for field in fields(TaskRecord) if field.name != "attempts")
_LATER_FIELDS = frozenset(
    {
        "started_at",
        "finished_at",
        "retry_at",
        "retry_reason",
        "cancel_requested_at",
        "error",
        "output",
        "served_by",
        "quality",
        "lease_owner",
        "lease_expires_at",
        "result_removed_at",
        "cached",
    }
)
_FIRST_FIELDS = tuple(name for name in _TASK_FIELDS if name not in _LATER_FIELDS)
_INPUT_FIELDS = tuple(field.name for field in fields(InputRef))
_ATTEMPT_FIELDS = tuple(field.name for field in fields(AttemptRecord))
_EVENT_FIELDS = tuple(field.name for field in fields(EventRecord))
_UPLOAD_FIELDS = tuple(field.name for field in fields(UploadRecord))

TASK = tuple(tasks.c[name] for name in _TASK_FIELDS)
"""The columns of a `TaskRecord`, in its order: select or return exactly these."""
ATTEMPT = tuple(attempts.c[name] for name in _ATTEMPT_FIELDS)
"""The columns of an `AttemptRecord`."""
EVENT = tuple(events.c[name] for name in _EVENT_FIELDS)
"""The columns of an `EventRecord`."""
UPLOAD = tuple(uploads.c[name] for name in _UPLOAD_FIELDS)
"""The columns of an `UploadRecord`."""


def task_record(row: Sequence[Any], attempt_rows: Sequence[Row[Any]] = ()) -> TaskRecord:
    """A row of the columns `TASK`, with its attempts' rows, as a record."""
    values = dict(zip(_TASK_FIELDS, row, strict=True))
    values["status"] = Status(values["status"])
    values["route"] = split(values["route"])
    values["cache_keys"] = split_keys(values["cache_keys"])
    values["after"] = chain.split(values["after"])
    if values["waits_for"] is not None:
        values["waits_for"] = chain.split(values["waits_for"])
    values["source"] = InputRef(**values["source"])
    values["audio"] = InputRef(**values["audio"])
    if values["output"] is not None:
        values["output"] = Artifact(**values["output"])
    if values["callback"] is not None:
        values["callback"] = Callback(**(values["callback"] | {"events": tuple(values["callback"]["events"])}))
    return TaskRecord(**values, attempts=tuple(attempt_record(row) for row in attempt_rows))


def attempt_record(row: Row[Any]) -> AttemptRecord:
    """A row of the columns `ATTEMPT` as a record."""
    return AttemptRecord(*tuple(row))


def event_record(row: Row[Any]) -> EventRecord:
    """A row of the columns `EVENT` as a record."""
    number, task_id, kind, status, attempt, at, payload = tuple(row)
    return EventRecord(number, task_id, kind, Status(status), attempt, at, payload)


def upload_record(row: Row[Any]) -> UploadRecord:
    """A row of the columns `UPLOAD` as a record."""
    return UploadRecord(*tuple(row))


def first_values(task: TaskRecord) -> dict[str, Any]:
    """A record of a new task as column values for an insert. What can only come later stays NULL."""
    values = {name: getattr(task, name) for name in _FIRST_FIELDS}
    values["status"] = task.status.value
    values["route"] = join(task.route)
    values["cache_keys"] = join_keys(task.cache_keys)
    values["after"] = chain.join(task.after)
    values["waits_for"] = None if task.waits_for is None else chain.join(task.waits_for)
    values["callback"] = None if task.callback is None else asdict(task.callback)
    return values | input_values(task.source, task.audio)


def input_values(source: InputRef, audio: InputRef) -> dict[str, Any]:
    """The inputs of a task as column values."""
    return {
        "source": _input_values(source),
        "audio": _input_values(audio),
        "source_sha256": source.sha256,
        "audio_sha256": audio.sha256,
    }


def join_keys(keys: Sequence[str]) -> str | None:
    """Cache keys as they are stored; None for none."""
    return ",".join(keys) or None


def split_keys(text: str | None) -> tuple[str, ...]:
    """Stored cache keys."""
    return tuple(text.split(",")) if text else ()


def _input_values(given: InputRef) -> dict[str, Any]:
    return {name: getattr(given, name) for name in _INPUT_FIELDS}
