"""Small state that must survive a restart, by name, beside the switch that pauses the queue."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, insert, select

from app.store.schema import settings
from app.store.transaction import Transaction


def keep(tx: Transaction, name: str, value: Any) -> None:
    """Remember `value`; None forgets it."""
    tx.connection.execute(delete(settings).where(settings.c.name == name))
    if value is not None:
        tx.connection.execute(insert(settings), {"name": name, "value": value})


def keep_first(tx: Transaction, name: str, value: Any) -> Any:
    """What is remembered under `name`: `value`, if nothing was before."""
    found = read(tx.connection, name)
    if found is not None:
        return found
    keep(tx, name, value)
    return value


def read(connection: Connection, name: str) -> Any:
    """What is remembered under `name`, or None."""
    return connection.execute(select(settings.c.value).where(settings.c.name == name)).scalar_one_or_none()
