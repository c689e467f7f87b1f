"""Everything that depends on the database product: engines, durability, the write lock, kinds of errors.

SQLite now. PostgreSQL joins here: a URL, `FOR UPDATE SKIP LOCKED` is not needed as long as `begin_write` takes one
advisory lock (which also keeps event ids in commit order), and its own list of passing errors.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, StatementError
from sqlalchemy.pool import NullPool, QueuePool

BUSY_SLICE_S = 0.25
"""How long SQLite itself waits for a lock before it answers "locked"; the writer repeats within its own patience."""

READ_WAIT_S = 5.0
"""How long a read waits for a lock (only while the database is recovered after a crash) or for a pooled connection."""

EXTRA_READERS = 16
"""Further connections while the pool is exhausted: reads of many threads at once."""

CACHE_KIB = 16_384
"""Page cache of a connection: holds the upper levels of all indexes at a million tasks."""

_PASSING = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_INTERRUPT,
    }
)
"""Conditions of the database, not faults of a statement (primary result codes)."""


_STRICT = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


def strict_json(value: Any) -> str:
    """`value` as JSON text; raises ValueError or TypeError for what JSON does not have (NaN, bytes, sets ...)."""
    return _STRICT.encode(value)


def database_path(url_or_path: str | Path) -> Path:
    """The file of an SQLite database, given as a path or as `sqlite:///path`. ValueError for any other database."""
    text = str(url_or_path)
    if text.startswith("sqlite:///"):
        text = text.removeprefix("sqlite:///")
    elif "://" in text:
        raise ValueError(f"This version stores in SQLite only (a path or sqlite:///path), not in {text.split(':')[0]}.")
    if not text or text == ":memory:":
        raise ValueError("The store is durable and needs a file.")
    return Path(text)


def write_engine(path: Path) -> Engine:
    """An engine for the one writer: its transactions take the write lock at once, its commits reach the disk."""
    return _engine(path, read_only=False, readers=1)


def read_engine(path: Path, readers: int) -> Engine:
    """An engine with a pool of `readers` connections that cannot write and never wait for the writer."""
    return _engine(path, read_only=True, readers=readers)


def _engine(path: Path, *, read_only: bool, readers: int) -> Engine:
    pool = (
        {"poolclass": QueuePool, "pool_size": readers, "max_overflow": EXTRA_READERS, "pool_timeout": READ_WAIT_S}
        if read_only
        else {"poolclass": NullPool}
    )
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"timeout": READ_WAIT_S if read_only else BUSY_SLICE_S, "check_same_thread": False},
        json_serializer=strict_json,
        **pool,
    )

    @event.listens_for(engine, "connect")
    def prepare(dbapi: sqlite3.Connection, _record: object) -> None:
        dbapi.isolation_level = None  # we say BEGIN ourselves, below
        cursor = dbapi.cursor()
        if read_only:
            cursor.execute("PRAGMA query_only = ON")
        else:
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = FULL")  # every commit is on the disk before it is answered
            cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def is_unavailable(error: BaseException) -> bool:
    """Whether `error` tells of the database's condition (locked, read-only, full, broken) and not of a statement."""
    if not isinstance(error, DBAPIError):
        return False
    original = error.orig
    code = getattr(original, "sqlite_errorcode", None)
    if code is None:  # raised by the driver itself, e.g. on a closed connection
        return isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated
    return (code & 0xFF) in _PASSING


def plain(error: Exception) -> Exception:
    """What a value that cannot be stored raised (ValueError, TypeError), taken out of SQLAlchemy's wrapping."""
    if isinstance(error, StatementError) and not isinstance(error, DBAPIError) and isinstance(error.orig, Exception):
        return error.orig
    return error


def words(error: BaseException) -> str:
    """The database's own words about an error."""
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    name = getattr(original, "sqlite_errorname", None)
    text = str(original) or type(original).__name__
    return f"{text} ({name})" if name else text
