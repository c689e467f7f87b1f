"""PostgreSQL: one database for services of one or of several machines. Needs the extra `greenroom[postgresql]`.

The URL goes to libpq as it is, so all that libpq knows works: several hosts, TLS, a password file, Unix sockets.

One writer at a time, as with SQLite: a transaction of a writer begins with an advisory lock, which keeps event ids in
commit order and counters exact, and ends with the transaction, also where its holder vanishes.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.string import StrDumperUnknown
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.pool import NullPool, QueuePool

from app.store.dialect import EXTRA_READERS, READ_WAIT_S, strict_json
from app.store.errors import StoreUnavailable

LEAST_VERSION = 14
"""The oldest major version that its makers still mend."""

LOCK_WAIT_S = 2.0
"""How long the server lets a statement wait for a lock; the writer repeats within its own patience."""
IDLE_S = 4.0
"""How long a transaction of a writer may do nothing before the server ends it, and with it its lock. A service that is
stopped or unreachable in the middle of one holds up the others for less than their patience."""
STATEMENT_S = 30.0
"""How long a statement may take. Not a commit: where a standby must confirm it, it waits as long as that takes."""
_LOCK = 0x67726E72
"""The first half of the advisory lock's name; the second stands for the schema."""

_CONNECT = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds without an acknowledgement: then the connection counts as broken
    "target_session_attrs": "read-write",  # of several hosts the primary, also for reads: a standby may lag behind
    "application_name": "greenroom",
}
"""What a URL may say otherwise."""

_WRITER = f"""
SET lock_timeout = '{LOCK_WAIT_S}s';
SET statement_timeout = '{STATEMENT_S}s';
SET idle_in_transaction_session_timeout = '{IDLE_S}s';
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
"""
_READER = f"""
SET lock_timeout = '{READ_WAIT_S}s';
SET statement_timeout = '{STATEMENT_S}s';
SET default_transaction_read_only = on;
"""

_IDLE = "25P03"
"""The transaction did nothing for too long."""
_PASSING_CLASSES = frozenset({"08", "28", "53", "57", "58"})
"""Connections, log-in, resources, an operator's intervention, the system below."""
_PASSING = frozenset(
    {
        "25006",  # read-only: a standby that is about to take over
        _IDLE,
        "40001",  # serialization
        "40P01",  # deadlock
        "42501",  # rights that are missing
        "55P03",  # lock not available in time
        "XX001",  # data corrupted
        "XX002",  # index corrupted
    }
)


class _Text(StrDumperUnknown):
    """Text columns of PostgreSQL cannot hold NUL, which callers may send: they keep U+FFFD in its place."""

    def dump(self, obj: str) -> Buffer | None:
        return super().dump(obj.replace("\0", "\ufffd"))


def parameters_of(url: str) -> dict[str, Any]:
    """What libpq reads from a URL. Raises ValueError, whose text holds nothing of the URL."""
    try:
        found = dict(conninfo_to_dict(url))
    except psycopg.ProgrammingError:
        found = {}
    hosts, ports = (str(found.get(name) or "") for name in ("host", "port"))
    if not found or "@" in hosts or not all(port.isdigit() for port in ports.split(",") if port):
        raise ValueError(
            "this is no URL of a PostgreSQL database: postgresql://user:password@host:5432/database is wanted, with "
            "characters such as @ : / % in the password written as %40 %3A %2F %25"
        )
    return found


class Postgresql:
    """The database at a `postgresql://` URL. Implements `app.store.dialect.Dialect`."""

    def __init__(self, url: str) -> None:
        """Raises ValueError for a URL that cannot be read."""
        given = parameters_of(url)
        self._parameters = _CONNECT | given
        self._secrets = [str(value) for name in ("password", "sslpassword") if (value := given.get(name))]
        hosts = str(given.get("host") or "").split(",")
        ports = str(given.get("port") or "").split(",")
        ports += ports[-1:] * (len(hosts) - len(ports))
        servers = ", ".join(":".join(filter(None, pair)) for pair in zip(hosts, ports, strict=True))
        self._place = f"the PostgreSQL database {given.get('dbname') or ''!s} at {servers or 'the default server'}"

    @property
    def place(self) -> str:
        return self._place

    def require(self) -> None:
        """Nothing can be said before a connection is tried."""

    def write_engine(self) -> Engine:
        engine = self._engine(_WRITER, poolclass=NullPool)

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK}, hashtext(current_schema()))")

        return engine

    def read_engine(self, readers: int) -> Engine:
        return self._engine(
            _READER,
            poolclass=QueuePool,
            pool_size=readers,
            max_overflow=EXTRA_READERS,
            pool_timeout=READ_WAIT_S,
            isolation_level="REPEATABLE READ",
        )

    def prepare(self, connection: Connection) -> None:
        version = int(connection.exec_driver_sql("SHOW server_version_num").scalar_one()) // 10_000
        if version < LEAST_VERSION:
            raise StoreUnavailable(
                f"{self._named} runs on PostgreSQL {version}; Greenroom needs {LEAST_VERSION} or newer."
            )
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
        if encoding != "UTF8":
            raise StoreUnavailable(
                f"{self._named} is encoded in {encoding}; create one in UTF-8 "
                "(createdb --template=template0 --encoding=UTF8 --locale=C NAME)."
            )
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")

    def now(self, connection: Connection) -> float:
        return float(connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar_one())

    def is_passing(self, error: DBAPIError) -> bool:
        state = getattr(error.orig, "sqlstate", None)
        if state is None:  # raised by the driver itself: there is no connection, or a broken one
            return isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated
        return state[:2] in _PASSING_CLASSES or state in _PASSING

    def was_held_up(self, error: Exception) -> bool:
        return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == _IDLE

    def words(self, error: BaseException) -> str:
        original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        state = getattr(original, "sqlstate", None)
        told = original.diag.message_primary if isinstance(original, psycopg.Error) else None
        text = told or " ".join(str(original).split()) or type(original).__name__
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return f"{text} ({state})" if state else text

    @property
    def _named(self) -> str:
        return self._place[0].upper() + self._place[1:]

    def _engine(self, session: str, **options: Any) -> Engine:
        engine = create_engine("postgresql+psycopg://", json_serializer=strict_json, hide_parameters=True, **options)

        @event.listens_for(engine, "do_connect")
        def connect(
            _dialect: object, _record: object, _args: object, told: dict[str, Any]
        ) -> psycopg.Connection[tuple[Any, ...]]:
            connection = psycopg.connect(**(told | self._parameters), autocommit=True)
            try:
                connection.adapters.register_dumper(str, _Text)
                connection.execute(session)
                connection.autocommit = False
            except BaseException:
                connection.close()
                raise
            return connection

        return engine
