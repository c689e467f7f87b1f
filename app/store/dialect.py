"""What the store asks of a database product, beyond SQL that all of them read: see `Dialect`.

A product joins with a module of its own (`app.store.sqlite`, `app.store.postgresql`), a line in `app.store.databases`,
and by passing the conformance suite.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, StatementError

READ_WAIT_S = 5.0
"""How long a read waits for a pooled connection."""

EXTRA_READERS = 16
"""Further connections while the pool is exhausted: reads of many threads at once."""

_STRICT = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


class Dialect(Protocol):
    """One database of one product: how to reach it, what makes its commits durable, which of its errors pass."""

    @property
    def place(self) -> str:
        """Where the database is, for messages. Never with credentials."""

    def require(self) -> None:
        """Raise `StoreUnavailable` for what no patience mends, e.g. a folder that is not there."""

    def write_engine(self) -> Engine:
        """An engine for the one writer of a store.

        Its transactions hold the write lock from their beginning, so that writers of all processes take turns and
        event ids are in the order of commits. Its commits are durable before they return.
        """

    def read_engine(self, readers: int) -> Engine:
        """An engine with a pool of `readers` connections that cannot write and never wait for a writer.

        All reads of one transaction see the database as it was at one moment.
        """

    def prepare(self, connection: Connection) -> None:
        """Look at the database and make a transaction of the writer fit for a migration.

        Raises `StoreUnavailable` for a database that cannot be used, e.g. a version that is too old.
        """

    def now(self, connection: Connection) -> float | None:
        """Epoch seconds of the database server's clock; None where it is that of this machine."""

    def is_passing(self, error: DBAPIError) -> bool:
        """Whether an error tells of the database's condition (locked, away, full, broken), not of a statement."""

    def was_held_up(self, error: Exception) -> bool:
        """Whether a passing error says that this process did nothing for too long in the middle of a transaction."""

    def words(self, error: BaseException) -> str:
        """The database's own words about an error. Never with credentials."""


def is_unavailable(dialect: Dialect, error: BaseException) -> bool:
    """Whether `error` is one of a database that cannot be used now."""
    return isinstance(error, DBAPIError) and dialect.is_passing(error)


def strict_json(value: Any) -> str:
    """`value` as JSON text; raises ValueError or TypeError for what JSON does not have (NaN, bytes, sets ...)."""
    return _STRICT.encode(value)


def plain(error: Exception) -> Exception:
    """What a value that cannot be stored raised (ValueError, TypeError), taken out of SQLAlchemy's wrapping."""
    if isinstance(error, StatementError) and not isinstance(error, DBAPIError) and isinstance(error.orig, Exception):
        return error.orig
    return error
