"""Forgetting what has ended long ago: first that a result is there, later the whole task."""

from __future__ import annotations

from sqlalchemy import and_, delete, exists, not_, select, update

from app.store.records import TaskRecord
from app.store.rows import TASK, task_record
from app.store.schema import attempts, delivery_tries, dependencies, events, outbox, tasks
from app.store.schema import idempotency_keys as keys
from app.store.transaction import Transaction

_AWAITED = exists().where(dependencies.c.predecessor_id == tasks.c.id)
"""A task that waits still needs it, or its result."""


def expire_results(tx: Transaction, before: float, limit: int) -> list[TaskRecord]:
    """Mark up to `limit` results as removed. See `Store.expire_results`."""
    oldest = (
        select(tasks.c.id)
        .where(
            tasks.c.output.is_not(None),
            tasks.c.result_removed_at.is_(None),
            tasks.c.finished_at <= before,
            not_(_AWAITED),
        )
        .order_by(tasks.c.finished_at)
        .limit(limit)
        .scalar_subquery()
    )
    marked = update(tasks).where(tasks.c.id.in_(oldest)).values(result_removed_at=tx.now).returning(*TASK)
    return [task_record(row) for row in tx.connection.execute(marked).all()]


def purge_tasks(tx: Transaction, before: float, limit: int) -> list[TaskRecord]:
    """Delete up to `limit` tasks with all that belongs to them. See `Store.purge_tasks`."""
    needed = (
        exists().where(keys.c.task_id == tasks.c.id, keys.c.expires_at > tx.now),
        exists().where(outbox.c.task_id == tasks.c.id, outbox.c.state == "pending"),
        _AWAITED,
    )
    rows = tx.connection.execute(
        select(*TASK)
        # Only what has ended has a `finished_at`.
        .where(tasks.c.finished_at.is_not(None), tasks.c.finished_at <= before, and_(*(not_(use) for use in needed)))
        .order_by(tasks.c.finished_at)
        .limit(limit)
    ).all()
    purged = [task_record(row) for row in rows]
    ids = [task.id for task in purged]
    sent = select(outbox.c.event_id).where(outbox.c.task_id.in_(ids))
    tx.connection.execute(delete(delivery_tries).where(delivery_tries.c.event_id.in_(sent)))
    for table in (outbox, events, keys, attempts):
        tx.connection.execute(delete(table).where(table.c.task_id.in_(ids)))
    tx.connection.execute(delete(tasks).where(tasks.c.id.in_(ids)))
    for task in purged:
        tx.count(task.status, -1)
    return purged
