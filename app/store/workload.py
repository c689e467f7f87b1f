"""What forecasts are made of, in one read: attempts that succeeded, those that run, and the head of the queue."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, and_, func, select

from app.store.figures import QueuedWork, RenderedWork, RunningWork, WorkInputs, Workload
from app.store.schema import attempts, tasks
from app.tasks.route import split

_SCAN = 4
"""So many ended attempts are looked at for each that is asked for: some of them failed."""
_RUNNING_MOST, _MORE_MOST = 500, 10_000
_a, _t = attempts.c, tasks.c
_INPUTS = (_t.source_sha256, _t.source, _t.audio, _t.options)


def read(connection: Connection, now: float, *, since: float, rendered: int, queued: int) -> Workload:
    """See `Store.workload`."""
    waiting, more = _queued(connection, now, queued)
    return Workload(
        at=now,
        rendered=_rendered(connection, since, rendered),
        running=_running(connection),
        queued=waiting,
        queued_more=more,
    )


def _rendered(connection: Connection, since: float, limit: int) -> tuple[RenderedWork, ...]:
    newest = (
        select(_a.task_id, _a.n)
        .where(_a.ended_at.is_not(None), _a.ended_at > since)
        .order_by(_a.ended_at.desc())
        .limit(limit * _SCAN)
        .subquery()
    )
    query = (
        select(_a.task_id, _a.n, _a.tier, _a.started_at, _a.ended_at, _a.facts, *_INPUTS)
        .select_from(newest)
        .join(attempts, and_(_a.task_id == newest.c.task_id, _a.n == newest.c.n))
        .join(tasks, _t.id == _a.task_id)
        .where(_a.outcome == "succeeded")
        .order_by(_a.ended_at.desc())
        .limit(limit)
    )
    found = [
        RenderedWork(task_id, n, tier, started_at, ended_at, facts or {}, _inputs(*inputs))
        for task_id, n, tier, started_at, ended_at, facts, *inputs in connection.execute(query)
    ]
    return tuple(reversed(found))


def _running(connection: Connection) -> tuple[RunningWork, ...]:
    query = (
        select(_t.id, _t.lease_owner, _a.tier, _a.started_at, *_INPUTS)
        .join(attempts, and_(_a.task_id == _t.id, _a.n == _t.attempt))
        .where(_t.lease_expires_at.is_not(None))
        .limit(_RUNNING_MOST)
    )
    return tuple(
        RunningWork(task_id, owner or "", tier, started_at, _inputs(*inputs))
        for task_id, owner, tier, started_at, *inputs in connection.execute(query)
    )


def _queued(connection: Connection, now: float, limit: int) -> tuple[tuple[QueuedWork, ...], int]:
    columns = (_t.rank, _t.id, _t.route, _t.client, *_INPUTS)
    found, all_ready = [], 0
    for waits in (_t.ready_at.is_not(None), _t.due_at <= now):
        query = select(*columns).where(waits).order_by(_t.rank, _t.id).limit(limit)
        found += [tuple(row) for row in connection.execute(query)]
        some = select(_t.id).where(waits).limit(_MORE_MOST).subquery()
        all_ready += connection.execute(select(func.count()).select_from(some)).scalar_one()
    found.sort(key=lambda row: (row[0], row[1]))
    queue = tuple(
        QueuedWork(rank, task_id, split(route), client, _inputs(*inputs))
        for rank, task_id, route, client, *inputs in found[:limit]
    )
    return queue, max(all_ready - len(queue), 0)


def _inputs(sha256: str, source: dict[str, Any], audio: dict[str, Any], options: dict[str, Any]) -> WorkInputs:
    return WorkInputs(sha256, source.get("media") or {}, audio.get("media") or {}, options)
