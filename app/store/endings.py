"""Ends of attempts and of tasks, as statistics count them: the same from a committed event as from the rows.

An event says of the attempt that it ended what the attempt's row says, so that nobody needs a second read, and whoever
counts events counts what the tables hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Select, and_, select

from app.store.figures import AttemptEnding, TaskEnding
from app.store.records import EventRecord
from app.store.schema import attempts, tasks
from app.tasks.replay import EVENT_OF
from app.tasks.status import Status

ATTEMPT_ENDED = "attempt_ended"
"""The key, in the data of an event, of the attempt that ended with it."""


def attempt_ending(event: EventRecord) -> AttemptEnding | None:
    """The attempt that ended with this event, None if none did."""
    told = event.data.get(ATTEMPT_ENDED)
    return None if told is None else AttemptEnding(**told, ended_at=event.at)


def task_ending(event: EventRecord) -> TaskEnding | None:
    """The task that ended with this event, None if it goes on."""
    if not event.status.is_terminal or event.type != EVENT_OF[event.status]:
        return None
    told = event.data.get(ATTEMPT_ENDED)
    return TaskEnding(
        tier="" if told is None else told["tier"],
        status=event.status,
        enqueued_at=event.data["enqueued_at"],
        started_at=event.data["started_at"],
        finished_at=event.at,
    )


def list_attempt_endings(connection: Connection, owner: str, since: float, limit: int) -> list[AttemptEnding]:
    """Attempts of `owner` that ended after `since`, newest first, at most `limit`."""
    a = attempts.c
    query = (
        select(a.tier, a.device, a.outcome, a.error, a.started_at, a.ended_at)
        .where(a.ended_at.is_not(None), a.ended_at > since, a.owner == owner)
        .order_by(a.ended_at.desc())
        .limit(limit)
    )
    # The code is taken out of the error here: PostgreSQL will not look into JSON that holds a NUL.
    return [
        AttemptEnding(tier, device, outcome, None if error is None else error.get("code"), *times)
        for tier, device, outcome, error, *times in _rows(connection, query)
    ]


def list_task_endings(connection: Connection, owner: str, since: float, limit: int) -> list[TaskEnding]:
    """Tasks that ended after `since`, in an attempt of `owner` or waiting; newest first, at most `limit`."""
    t, a = tasks.c, attempts.c
    ended_with = and_(a.task_id == t.id, a.n == t.attempt, a.ended_at == t.finished_at, a.outcome != "interrupted")
    query = (
        select(a.owner, a.tier, t.status, t.enqueued_at, t.started_at, t.finished_at)
        .select_from(tasks.outerjoin(attempts, ended_with))
        .where(t.finished_at.is_not(None), t.finished_at > since)
        .order_by(t.finished_at.desc())
        .limit(limit)
    )
    return [
        TaskEnding(tier or "", Status(status), *times)
        for holder, tier, status, *times in _rows(connection, query)
        if holder in (None, owner)
    ]


def _rows(connection: Connection, query: Select[Any]) -> Iterator[tuple[Any, ...]]:
    return (tuple(row) for row in connection.execute(query))
