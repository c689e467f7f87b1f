"""SQLite: one file, for services of one machine."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.pool import NullPool, QueuePool

from app.store.dialect import EXTRA_READERS, READ_WAIT_S, strict_json
from app.store.errors import StoreUnavailable

BUSY_SLICE_S = 0.25
"""How long SQLite itself waits for a lock before it answers "locked"; the writer repeats within its own patience."""

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


class Sqlite:
    """The database in the file `path`. Implements `app.store.dialect.Dialect`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def place(self) -> str:
        return str(self._path)

    def require(self) -> None:
        if not self._path.parent.is_dir():
            raise StoreUnavailable(f"Cannot open {self._path}: its folder does not exist.")

    def write_engine(self) -> Engine:
        return self._engine(read_only=False, readers=1)

    def read_engine(self, readers: int) -> Engine:
        return self._engine(read_only=True, readers=readers)

    def prepare(self, _connection: Connection) -> None:
        """Nothing: Python brings an SQLite that can do all that is needed, and its statements have no time limits."""

    def now(self, _connection: Connection) -> None:
        """This machine's clock is the only one."""

    def is_passing(self, error: DBAPIError) -> bool:
        code = getattr(error.orig, "sqlite_errorcode", None)
        if code is None:  # raised by the driver itself, e.g. on a closed connection
            return isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated
        return (code & 0xFF) in _PASSING

    def was_held_up(self, _error: Exception) -> bool:
        return False  # it has no such limit

    def words(self, error: BaseException) -> str:
        original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        name = getattr(original, "sqlite_errorname", None)
        text = str(original) or type(original).__name__
        return f"{text} ({name})" if name else text

    def _engine(self, *, read_only: bool, readers: int) -> Engine:
        pool = (
            {"poolclass": QueuePool, "pool_size": readers, "max_overflow": EXTRA_READERS, "pool_timeout": READ_WAIT_S}
            if read_only
            else {"poolclass": NullPool}
        )
        engine = create_engine(
            URL.create("sqlite", database=str(self._path)),
            # Reads wait for a lock only while the database is recovered after a crash.
            connect_args={"timeout": READ_WAIT_S if read_only else BUSY_SLICE_S, "check_same_thread": False},
            json_serializer=strict_json,
            hide_parameters=True,
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
