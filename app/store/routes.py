"""Routes of waiting tasks: which there are, and giving tasks another one."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, func, select, update

from app.store.claims import PROMOTE_LIMIT
from app.store.records import ReadyRoute
from app.store.schema import tasks
from app.store.transaction import Transaction
from app.tasks.route import join, split
from app.tasks.status import CLAIMABLE

_READY = tasks.c.ready_at.is_not(None)
_FIRST = select(func.min(tasks.c.route)).where(_READY)
_NEXT = _FIRST.where(tasks.c.route > bindparam("before"))
_DUE = select(tasks.c.route).where(tasks.c.due_at <= bindparam("now")).order_by(tasks.c.due_at).limit(PROMOTE_LIMIT)
_COUNT = select(func.count()).select_from(
    select(tasks.c.id).where(_READY, tasks.c.route == bindparam("route")).limit(bindparam("most")).subquery()
)


def ready_routes(connection: Connection, now: float, count_to: int) -> list[ReadyRoute]:
    """See `Store.ready_routes`: hops along the index from one route to the next."""
    names = set(connection.execute(_DUE, {"now": now}).scalars())
    name = connection.execute(_FIRST).scalar_one()
    while name is not None:
        names.add(name)
        name = connection.execute(_NEXT, {"before": name}).scalar_one()
    return [
        ReadyRoute(split(name), connection.execute(_COUNT, {"route": name, "most": count_to}).scalar_one())
        for name in sorted(names)
    ]


def reroute(tx: Transaction, route: tuple[str, ...], task_ids: Sequence[str]) -> None:
    """See `Store.areroute`."""
    tx.connection.execute(
        update(tasks)
        .where(tasks.c.id.in_(task_ids), tasks.c.status.in_([status.value for status in CLAIMABLE]))
        .values(route=join(route))
    )
