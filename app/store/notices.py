"""The statements of the outbox; what each does, its namesake in `app.store.outbox` says."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from app.store.announce import announce, as_it_was
from app.store.claims import held_task
from app.store.deliveries import Delivery, DeliveryState, Notice, OutboxStats, Try, Verdict
from app.store.records import Claim
from app.store.rows import TASK, task_record
from app.store.schema import delivery_tries, events, outbox, tasks
from app.store.transaction import Transaction
from app.tasks.notices import PROGRESS

log = logging.getLogger(__name__)

LIST_LIMIT = 1000
"""Notices of one task that are listed, the newest."""

_o = outbox.c
_ENDED: dict[Verdict, DeliveryState] = {"delivered": "delivered", "dead": "dead", "gone": "disabled"}
_SENT = (_o.event_id, _o.type, _o.at, _o.endpoint, _o.snapshot, _o.tries, _o.taken)
_SHOWN = (_o.event_id, _o.task_id, _o.type, _o.at, _o.state, _o.next_at, _o.ended_at, _o.lease_owner)


def next_at(connection: Connection, full: Collection[str]) -> float | None:
    """See `Outbox.anext_at`."""
    query = select(func.min(_o.next_at)).where(_o.next_at.is_not(None))
    if full:
        query = query.where(_o.endpoint.not_in(full))
    earliest: float | None = connection.execute(query).scalar_one()
    return earliest


def take(
    tx: Transaction, *, owner: str, lease_s: float, limit: int, per_endpoint: int, in_flight: Mapping[str, int]
) -> list[Notice]:
    """See `Outbox.atake`."""
    counts = dict(in_flight)
    taken: list[Notice] = []
    while len(taken) < limit:
        full = [endpoint for endpoint, count in counts.items() if count >= per_endpoint]
        query = select(*_SENT, *TASK).join_from(outbox, tasks, _o.task_id == tasks.c.id).where(_o.next_at <= tx.now)
        if full:
            query = query.where(_o.endpoint.not_in(full))
        rows = tx.connection.execute(query.order_by(_o.next_at, _o.event_id).limit(limit - len(taken))).all()
        if not rows:
            break
        for row in rows:
            if counts.get(row.endpoint, 0) < per_endpoint and (notice := _taken(tx, row, owner, lease_s)) is not None:
                counts[row.endpoint] = counts.get(row.endpoint, 0) + 1
                taken.append(notice)
    return taken


def _taken(tx: Transaction, row: Any, owner: str, lease_s: float) -> Notice | None:
    """The notice, taken; None for one that cannot be read: it is given up, so that it does not stop all others."""
    event_id, kind, at, _endpoint, snapshot, tries, taken = row[: len(_SENT)]
    task = task_record(row[len(_SENT) :])
    try:
        assert task.callback is not None
        told, progressed = as_it_was(task, snapshot), snapshot.get("progress")
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        log.exception("Notice %s of task %s cannot be read and is given up", event_id, task.id)
        _give_up(tx, event_id, task.id, f"The notice as it was stored cannot be read: {error!r}")
        return None
    tx.connection.execute(
        update(outbox)
        .where(_o.event_id == event_id)
        .values(next_at=tx.now + lease_s, lease_owner=owner, taken=taken + 1)
    )
    return Notice(event_id, kind, at, told, task.callback, tries, taken + 1, progressed)


def _give_up(tx: Transaction, event_id: int, task_id: str, message: str) -> None:
    """A notice is dead without having been sent."""
    ended = update(outbox).where(_o.event_id == event_id)
    ended = ended.values(state="dead", next_at=None, lease_owner=None, ended_at=tx.now, total_tries=_o.total_tries + 1)
    n = tx.connection.execute(ended.returning(_o.total_tries)).scalar_one()
    _write_try(tx, event_id, n, Try(tx.now, 0.0, None, "INTERNAL", message))
    _let_the_next_go(tx, task_id)


def _write_try(tx: Transaction, event_id: int, n: int, tried: Try) -> None:
    tx.connection.execute(
        insert(delivery_tries).values(
            event_id=event_id,
            n=n,
            at=tried.at,
            seconds=tried.seconds,
            status=tried.status,
            error=tried.error,
            message=tried.message,
        )
    )


def settle(
    tx: Transaction, *, notice: Notice, owner: str, tried: Try, verdict: Verdict, retry_at: float | None
) -> bool:
    """See `Outbox.asettle`."""
    held = (_o.event_id == notice.event_id, _o.lease_owner == owner, _o.taken == notice.taken)
    row = tx.connection.execute(select(_o.total_tries).where(*held)).one_or_none()
    if row is None:
        return False
    n = row.total_tries + 1
    state = _ENDED.get(verdict, "pending")
    if state == "pending" and notice.type == PROGRESS:
        state = "dropped"  # The next notice says more than this one would.
    over = state != "pending"
    tx.connection.execute(
        update(outbox)
        .where(*held)
        .values(
            state=state,
            next_at=None if over else max(retry_at or tx.now, tx.now),
            lease_owner=None,
            tries=notice.tries + 1,
            total_tries=n,
            ended_at=tx.now if over else None,
        )
    )
    _write_try(tx, notice.event_id, n, tried)
    if verdict == "gone":
        _close(tx, notice.task.id)
    elif over:
        _let_the_next_go(tx, notice.task.id)
    return True


def release(tx: Transaction, owner: str) -> int:
    """See `Outbox.arelease`."""
    freed = tx.connection.execute(
        update(outbox).where(_o.lease_owner == owner).values(next_at=tx.now, lease_owner=None).returning(_o.event_id)
    )
    return len(freed.all())


def progress(tx: Transaction, *, held: Claim, done: int, total: int, phase: str, at_least_s: float) -> bool:
    """See `Outbox.progress`."""
    task = held_task(tx, held)
    last = tx.connection.execute(
        select(events.c.at, events.c.data)
        .where(events.c.task_id == task.id, events.c.type == PROGRESS)
        .order_by(events.c.id.desc())
        .limit(1)
    ).one_or_none()
    fraction = done / total
    if last is not None and (tx.now - last.at < at_least_s or fraction <= last.data["fraction"]):
        return False
    data = {"phase": phase, "done": done, "total": total, "fraction": fraction}
    event_id = tx.emit(task.id, PROGRESS, task.status, task.attempt, data)
    changed = update(tasks).where(tasks.c.id == task.id).values(last_event_id=event_id).returning(*TASK)
    announce(tx, task_record(tx.connection.execute(changed).one()), PROGRESS, data)
    return True


def replay(tx: Transaction, task_id: str, event_id: int | None) -> list[int]:
    """See `Outbox.areplay`."""
    which = _o.type != PROGRESS if event_id is None else _o.event_id == event_id
    found = tx.connection.execute(
        update(outbox)
        .where(_o.task_id == task_id, which, _o.lease_owner.is_(None))
        .values(state="pending", tries=0, ended_at=None, next_at=None)
        .returning(_o.event_id)
    )
    ids = sorted(found.scalars())
    if ids:
        _set_closed(tx, task_id, False)
        tx.connection.execute(
            update(outbox)
            .where(_o.task_id == task_id, _o.state == "pending", _o.lease_owner.is_(None))
            .values(next_at=None)
        )
        _let_the_next_go(tx, task_id)
        tx.noticed()
    return ids


def _let_the_next_go(tx: Transaction, task_id: str) -> None:
    """Give the earliest pending notice of a task its time."""
    first = select(func.min(_o.event_id)).where(_o.task_id == task_id, _o.state == "pending").scalar_subquery()
    freed = tx.connection.execute(
        update(outbox).where(_o.event_id == first, _o.next_at.is_(None)).values(next_at=tx.now).returning(_o.event_id)
    )
    if freed.all():
        tx.noticed()


def _close(tx: Transaction, task_id: str) -> None:
    """Send nothing more of a task: its endpoint is gone."""
    _set_closed(tx, task_id, True)
    tx.connection.execute(
        update(outbox)
        .where(_o.task_id == task_id, _o.state == "pending", _o.lease_owner.is_(None))
        .values(state="disabled", next_at=None, ended_at=tx.now)
    )


def _set_closed(tx: Transaction, task_id: str, closed: bool) -> None:
    callback = tx.connection.execute(select(tasks.c.callback).where(tasks.c.id == task_id)).scalar_one()
    if callback["closed"] != closed:
        changed = update(tasks).where(tasks.c.id == task_id).values(callback=callback | {"closed": closed})
        tx.connection.execute(changed)


def of_task(connection: Connection, task_id: str) -> list[Delivery]:
    """See `Outbox.adeliveries`."""
    query = select(*_SHOWN).where(_o.task_id == task_id).order_by(_o.event_id.desc()).limit(LIST_LIMIT)
    return _with_tries(connection, connection.execute(query).all())[::-1]


def in_state(connection: Connection, state: DeliveryState, before: int | None, limit: int) -> list[Delivery]:
    """See `Outbox.alist`."""
    query = select(*_SHOWN).where(_o.state == state).order_by(_o.event_id.desc()).limit(limit)
    if before is not None:
        query = query.where(_o.event_id < before)
    return _with_tries(connection, connection.execute(query).all())


def stats(connection: Connection) -> OutboxStats:
    """See `Outbox.stats`."""
    counted = select(_o.state, func.count()).where(_o.state.in_(("pending", "dead"))).group_by(_o.state)
    counts = dict(tuple(row) for row in connection.execute(counted))
    return OutboxStats(counts.get("pending", 0), counts.get("dead", 0))


def _with_tries(connection: Connection, rows: Any) -> list[Delivery]:
    tries: dict[int, list[Try]] = {}
    t = delivery_tries.c
    for start in range(0, len(rows), _IN_LIMIT):
        ids = [row.event_id for row in rows[start : start + _IN_LIMIT]]
        columns = (t.event_id, t.at, t.seconds, t.status, t.error, t.message)
        for event_id, *one in connection.execute(select(*columns).where(t.event_id.in_(ids)).order_by(t.event_id, t.n)):
            tries.setdefault(event_id, []).append(Try(*one))
    return [
        Delivery(
            row.event_id, row.task_id, row.type, row.at, row.state,
            row.next_at if row.lease_owner is None else None,
            row.ended_at, tuple(tries.get(row.event_id, ())),
        )
        for row in rows
    ]  # fmt: skip


_IN_LIMIT = 500
"""Values of one IN list: databases bound the parameters of a statement."""
