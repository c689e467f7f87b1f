"""Writes notices into the outbox, in the transaction of the event that they tell of.

A notice keeps what of the task can change as it was after that event (`SNAPSHOT`); the rest is read from the task when
it is sent. Tasks without a callback cost nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import bindparam, select

from app.store.records import Artifact, AttemptRecord, TaskRecord
from app.store.rows import ATTEMPT, attempt_record
from app.store.schema import attempts
from app.store.transaction import Transaction
from app.tasks.notices import PROGRESS
from app.tasks.status import Status

_FIXED = frozenset(
    {
        "id", "priority", "source", "audio", "renderer", "fallback", "options", "metadata", "client", "trace_id",
        "created_at", "enqueued_at", "not_before", "start_deadline_at", "deadline_at", "retry_of", "callback",
        "cache_keys", "span_id", "sampled", "use_cache", "derived_from", "after", "attempts",
    }
)  # fmt: skip
"""What a task keeps from its creation to its end, and what is written in another form."""

SNAPSHOT = tuple(field.name for field in fields(TaskRecord) if field.name not in _FIXED)
"""The fields of a task that a notice keeps."""

_ATTEMPT_FIELDS = frozenset(field.name for field in fields(AttemptRecord))
_ATTEMPTS = select(*ATTEMPT).where(attempts.c.task_id == bindparam("of")).order_by(attempts.c.n)


def announce(tx: Transaction, task: TaskRecord, kind: str, progress: Mapping[str, Any] | None = None) -> None:
    """Have `task`'s last event, of type `kind`, told to its callback if that asked for it.

    Call it when all that the event changes is written: the task as it was given and its attempts are what is told.
    """
    callback = task.callback
    if callback is None or callback.closed or kind not in callback.events:
        return
    rows = tx.connection.execute(_ATTEMPTS, {"of": task.id}).all()
    snapshot: dict[str, Any] = {name: getattr(task, name) for name in SNAPSHOT}
    snapshot["status"] = task.status.value
    snapshot["output"] = None if task.output is None else asdict(task.output)
    snapshot["attempts"] = [asdict(attempt_record(row)) for row in rows]
    if progress is not None:
        snapshot["progress"] = dict(progress)
    tx.notify(
        {
            "event_id": task.last_event_id,
            "task_id": task.id,
            "type": kind,
            "at": tx.now,
            "endpoint": callback.endpoint,
            "snapshot": snapshot,
        },
        outdates_progress=PROGRESS in callback.events,
    )


def as_it_was(task: TaskRecord, snapshot: Mapping[str, Any]) -> TaskRecord:
    """`task` as a notice's snapshot has it. Fields that an older version did not keep are as they are now."""
    values: dict[str, Any] = {name: snapshot[name] for name in SNAPSHOT if name in snapshot}
    values["status"] = Status(values["status"])
    for name in ("route", "waits_for"):
        if values.get(name) is not None:
            values[name] = tuple(values[name])
    if values["output"] is not None:
        values["output"] = Artifact(**values["output"])
    kept = [{name: value for name, value in one.items() if name in _ATTEMPT_FIELDS} for one in snapshot["attempts"]]
    fixed = {name: getattr(task, name) for name in (*_FIXED, *SNAPSHOT) if name != "attempts"}
    return TaskRecord(**(fixed | values), attempts=tuple(AttemptRecord(**one) for one in kept))
