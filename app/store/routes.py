"""Routes of waiting tasks: which there are, and giving tasks another one."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, func, literal_column, not_, or_, select, update

from app.store.claiming import IS_PAUSED, PROMOTE_LIMIT
from app.store.records import ReadyRoute
from app.store.rows import join_keys
from app.store.schema import tasks
from app.store.transaction import Transaction
from app.tasks.route import join, split
from app.tasks.status import CLAIMABLE

_RUNNING = not_(IS_PAUSED.scalar_subquery())
_READY = tasks.c.ready_at.is_not(None)
_FIRST = select(func.min(tasks.c.route)).where(_READY)
# Hops along the index from one route to the next, so that the tasks of a route are not walked over.
_lines = select(_FIRST.scalar_subquery().label("route")).where(_RUNNING).cte("lines", recursive=True)
_next_line = _FIRST.where(tasks.c.route > _lines.c.route).correlate(_lines).scalar_subquery()
_lines = _lines.union_all(select(_next_line).where(_lines.c.route.is_not(None)))
_some_of_line = (
    select(tasks.c.id).where(_READY, tasks.c.route == _lines.c.route).limit(bindparam("most")).correlate(_lines)
)
_due = (
    select(tasks.c.route)
    .where(tasks.c.due_at <= bindparam("now"))
    .order_by(tasks.c.due_at)
    .limit(PROMOTE_LIMIT)
    .subquery("due")
)
_ROUTES = (
    select(_lines.c.route, select(func.count()).select_from(_some_of_line.subquery()).scalar_subquery())
    .where(_lines.c.route.is_not(None))
    .union_all(select(_due.c.route, literal_column("0")).where(_RUNNING).distinct())
)
_REROUTE = (
    update(tasks)
    .where(
        tasks.c.id == bindparam("task"),
        or_(*(tasks.c.status == status.value for status in CLAIMABLE)),
        tasks.c.waits_for.is_(None),  # It is given its route when it is released.
    )
    .values(route=bindparam("to"), cache_keys=bindparam("keys"))
)


def ready_routes(connection: Connection, now: float, count_to: int) -> list[ReadyRoute]:
    """See `Store.ready_routes`: one statement."""
    counted: dict[str, int] = {}
    for route, count in connection.execute(_ROUTES, {"now": now, "most": count_to}):
        counted[route] = counted.get(route, 0) + count
    return [ReadyRoute(split(route), count) for route, count in sorted(counted.items())]


def reroute(tx: Transaction, route: tuple[str, ...], task_ids: Sequence[str], cache_keys: tuple[str, ...] = ()) -> None:
    """See `Store.areroute`."""
    if task_ids:
        # One by one: with a list of ids SQLite prefers to walk over all tasks of these statuses.
        to = {"to": join(route), "keys": join_keys(cache_keys)}
        tx.connection.execute(_REROUTE, [{"task": task_id, **to} for task_id in task_ids])
