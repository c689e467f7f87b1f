"""Taking the best-ranked ready task: the statement that hands out an attempt, whose number is the fence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BindParameter, Row, bindparam, exists, func, insert, not_, or_, select, update

from app.store import twins
from app.store.announce import announce
from app.store.records import Claim, Offer, TaskRecord
from app.store.rows import TASK, task_record
from app.store.schema import attempts, settings, tasks
from app.store.transaction import Transaction
from app.tasks.replay import EVENT_OF
from app.tasks.route import join
from app.tasks.status import CLAIMABLE, Status, check_transition

PROMOTE_LIMIT = 500
"""Scheduled tasks made ready by one claim: bounds its time when very many fall due together."""

PAUSED = "paused"
"""Claiming is stopped while a setting of this name exists."""

_now: BindParameter[float] = bindparam("now")
_PROMOTE = (
    update(tasks)
    .where(
        tasks.c.id.in_(
            select(tasks.c.id)
            .where(tasks.c.due_at <= _now)
            .order_by(tasks.c.due_at, tasks.c.rank)
            .limit(PROMOTE_LIMIT)
            .scalar_subquery()
        )
    )
    .values(ready_at=tasks.c.due_at, due_at=None)
)
# Asked for by itself: as a condition of the search it would be tried on every task that waits.
IS_PAUSED = select(exists().where(settings.c.name == PAUSED))
_BEST = (
    select(tasks.c.rank, tasks.c.id)
    .where(
        tasks.c.ready_at.is_not(None),
        or_(tasks.c.give_up_at.is_(None), tasks.c.give_up_at > _now),
    )
    .order_by(tasks.c.rank, tasks.c.id)
    .limit(1)
)
_BEST_OF_ROUTE = _BEST.where(tasks.c.route == bindparam("in_route"))
_TAKE = (
    update(tasks)
    .where(or_(*(tasks.c.status == status.value for status in sorted(CLAIMABLE))))
    .values(
        status=Status.RUNNING.value,
        attempt=tasks.c.attempt + 1,
        started_at=func.coalesce(tasks.c.started_at, _now),
        ready_at=None,
        give_up_at=None,
        lease_owner=bindparam("holder"),
        lease_expires_at=bindparam("until"),
        last_event_id=bindparam("event"),
    )
    .returning(*TASK)
)
_TAKE_THIS = _TAKE.where(tasks.c.id == bindparam("wanted"))
_waiting = tasks.alias("waiting")
_TAKE_AT_ONCE = _TAKE.where(
    not_(exists().where(settings.c.name == PAUSED)),
    not_(exists().where(_waiting.c.due_at <= _now)),
)
"""Where nothing is paused and nothing is to be promoted, one statement looks and takes."""
_TAKE_BEST = _TAKE_AT_ONCE.where(tasks.c.id == _BEST.with_only_columns(tasks.c.id).scalar_subquery())
_TAKE_BEST_OF_ROUTE = _TAKE_AT_ONCE.where(tasks.c.id == _BEST_OF_ROUTE.with_only_columns(tasks.c.id).scalar_subquery())
_TAKE_FIRST = _TAKE_BEST.where(tasks.c.route == bindparam("in_route"))
_INSERT_ATTEMPT = insert(attempts)
_EARLIER_ERRORS = (
    select(attempts.c.error)
    .where(attempts.c.task_id == bindparam("task"), attempts.c.n < bindparam("fence"))
    .order_by(attempts.c.n)
)


def claim(
    tx: Transaction,
    owner: str,
    lease_s: float,
    slot: str,
    device: str,
    *,
    tier: str = "",
    offers: Mapping[tuple[str, ...], Offer] | None = None,
    first_only: bool = False,
) -> Claim | None:
    """Take the best-ranked ready task. See `Store.claim`."""
    until = tx.now + lease_s
    values = {"now": tx.now, "holder": owner, "until": until, "event": tx.next_event_id}
    routes = None if offers is None else [join(route) for route in offers]
    task = _take_first(tx, routes, values) if first_only else _take(tx, routes, values)
    if task is None:
        return None
    # Set when the task went to RETRY_WAIT and kept while the retry runs; the row shows no older status any more.
    before = Status.QUEUED if task.retry_at is None else Status.RETRY_WAIT
    check_transition(before, Status.RUNNING)
    tx.count(before, -1)
    tx.count(Status.RUNNING, +1)
    offer = Offer(tier) if offers is None else offers[task.route]
    where = {"tier": offer.tier, "slot": slot, "device": device, "owner": owner}
    tx.emit(task.id, EVENT_OF[Status.RUNNING], Status.RUNNING, task.attempt, where)
    tx.connection.execute(
        _INSERT_ATTEMPT,
        {"task_id": task.id, "n": task.attempt, "started_at": tx.now, "stages": {}, "facts": {}, "why": offer.why}
        | where,
    )
    twins.started(tx, task)
    announce(tx, task, EVENT_OF[Status.RUNNING])
    earlier = _earlier_failures(tx, task) if task.attempt > 1 else ()
    return Claim(task, task.attempt, owner, until, offer.tier, earlier)


def _take_first(tx: Transaction, routes: Sequence[str] | None, values: Mapping[str, Any]) -> TaskRecord | None:
    assert routes is not None
    (route,) = routes
    taken = tx.connection.execute(_TAKE_FIRST, {"in_route": route, **values}).one_or_none()
    return None if taken is None else task_record(taken)


def _take(tx: Transaction, routes: Sequence[str] | None, values: Mapping[str, Any]) -> TaskRecord | None:
    """The best-ranked ready task of these routes, or of any, now RUNNING."""
    taken = None
    if routes is None:
        taken = tx.connection.execute(_TAKE_BEST, values).one_or_none()
    elif len(routes) == 1:
        taken = tx.connection.execute(_TAKE_BEST_OF_ROUTE, {"in_route": routes[0], **values}).one_or_none()
    if taken is None:
        taken = _look_and_take(tx, routes, values)
    return None if taken is None else task_record(taken)


def _look_and_take(tx: Transaction, routes: Sequence[str] | None, values: Mapping[str, Any]) -> Row[Any] | None:
    if tx.connection.execute(IS_PAUSED).scalar_one():
        return None
    tx.connection.execute(_PROMOTE, {"now": tx.now})
    wanted = _best(tx, routes)
    if wanted is None:
        return None
    return tx.connection.execute(_TAKE_THIS, {"wanted": wanted, **values}).one_or_none()


def _best(tx: Transaction, routes: Sequence[str] | None) -> str | None:
    """The id of the best-ranked ready task of these routes, or of any."""
    if routes is None:
        row = tx.connection.execute(_BEST, {"now": tx.now}).one_or_none()
        return None if row is None else str(row.id)
    found = (
        tx.connection.execute(_BEST_OF_ROUTE, {"now": tx.now, "in_route": route}).one_or_none() for route in routes
    )
    return min(((row.rank, str(row.id)) for row in found if row is not None), default=(0.0, None))[1]


def _earlier_failures(tx: Transaction, task: TaskRecord) -> tuple[str, ...]:
    errors = tx.connection.execute(_EARLIER_ERRORS, {"task": task.id, "fence": task.attempt}).scalars()
    return tuple(error["code"] for error in errors if error)
