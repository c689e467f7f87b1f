"""Who waits for whom, kept as rows for as long as it matters: until the one that waits is released or has ended.

Whoever ends writes it to those that wait for it in its own transaction, with one statement, however many they are. So
nothing has to be searched for, and no kill between two commits can lose it: what is to be done about it is found in two
small indexes (`app.store.chains`).
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, delete, func, insert, literal, select, update

from app.store.errors import NoSuchPredecessor, PredecessorFailed
from app.store.rows import TASK, task_record
from app.store.schema import dependencies, tasks
from app.store.transaction import Transaction
from app.tasks.chain import Standing, standing
from app.tasks.status import Status

_BY_ID = select(*TASK).where(tasks.c.id == bindparam("wanted"))
_WAITING = tasks.c.id.in_(select(dependencies.c.task_id).where(dependencies.c.predecessor_id == bindparam("ended")))
_comma = literal(",")
_MET = (
    update(tasks)
    .where(_WAITING)
    .values(
        waits_for=func.trim(
            func.replace(_comma + tasks.c.waits_for + _comma, _comma + bindparam("ended") + _comma, _comma), _comma
        )
    )
)
_BROKEN = update(tasks).where(_WAITING).values(broken_by=func.coalesce(tasks.c.broken_by, bindparam("ended")))
_FORGET = delete(dependencies).where(dependencies.c.task_id == bindparam("of"))


def unfinished(tx: Transaction, task_ids: Sequence[str]) -> tuple[str, ...]:
    """Those of some predecessors that have not succeeded yet. Raises `NoSuchPredecessor`, `PredecessorFailed`."""
    found = []
    for task_id in task_ids:
        row = tx.connection.execute(_BY_ID, {"wanted": task_id}).one_or_none()
        if row is None:
            raise NoSuchPredecessor(task_id)
        task = task_record(row)
        match standing(task.status):
            case Standing.FAILED:
                raise PredecessorFailed(task)
            case Standing.UNFINISHED:
                found.append(task_id)
    return tuple(found)


def remember(tx: Transaction, task_id: str, predecessors: Sequence[str]) -> None:
    """A task, whose row is written, needs these."""
    rows = [{"task_id": task_id, "predecessor_id": predecessor} for predecessor in predecessors]
    tx.connection.execute(insert(dependencies), rows)


def ended(tx: Transaction, task_id: str, to: Status) -> bool:
    """Tell those that wait for a task that it ends like this; whether there are any."""
    tell = _MET if standing(to) is Standing.SUCCEEDED else _BROKEN
    return tx.connection.execute(tell, {"ended": task_id}).rowcount > 0


def forget(tx: Transaction, task_id: str) -> None:
    """A task needs nobody any more."""
    tx.connection.execute(_FORGET, {"of": task_id})
