"""The checks of `greenroom doctor` where the database is PostgreSQL: can it be used, will it keep what it is given, do
this machine's data folder and clock go with it. Nothing is written: a transaction that has a number and no content is
committed as durably as any.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.checks import Check
from app.cli.database_check import judge

if TYPE_CHECKING:
    from sqlalchemy import Connection

_UNSAFE = {
    "fsync": ("on", "a power cut of its machine can lose what was accepted, or the whole database"),
    "full_page_writes": ("on", "a power cut of its machine can damage the database"),
}
_HINT = "Is the server up, and do user, password and pg_hba.conf let this machine in? See docs/operations.md."


def postgresql_checks(url: str, data_dir: Path, lease_s: float) -> Iterator[Check]:
    """The database, the promises of its server, the data folder, the clock."""
    from sqlalchemy.exc import SQLAlchemyError

    from app.store.databases import database_at
    from app.store.errors import StoreUnavailable

    try:
        dialect = database_at(url)
    except ValueError as error:
        yield Check("database", "fail", f"database_url: {error}", "Correct database_url.")
        return
    engine = dialect.write_engine()
    try:
        with engine.connect() as connection:
            dialect.prepare(connection)
            started = time.monotonic()
            connection.exec_driver_sql("SELECT pg_current_xact_id()")
            connection.commit()
            took = time.monotonic() - started
        with engine.connect() as connection:
            yield from _look(connection, took, data_dir)
            yield _clock(dialect.now(connection), lease_s)
    except StoreUnavailable as error:
        yield Check("database", "fail", str(error), "Choose another server or database.")
    except SQLAlchemyError as error:
        yield Check("database", "fail", f"{dialect.place} cannot be used: {dialect.words(error)}", _HINT)
    finally:
        engine.dispose()


def _look(connection: Connection, took: float, data_dir: Path) -> Iterator[Check]:
    from app.database import KEPT, why_foreign
    from app.store import kept
    from app.store.migrate import revision

    found = revision(connection)
    if found is None:
        yield Check("database", "ok", f"a durable commit takes {1000 * took:.1f} ms; empty, made at the next start")
    else:
        yield judge(found, took)
    for name, (wanted, otherwise) in _UNSAFE.items():
        if (value := connection.exec_driver_sql(f"SHOW {name}").scalar_one()) != wanted:
            hint = f"Set {name} = {wanted} on the server."
            yield Check("durability", "warn", f"the server runs with {name} = {value}: {otherwise}", hint)
    reason = why_foreign(None if found is None else kept.read(connection, KEPT), data_dir)
    if reason:
        yield Check("data folder", "fail", reason, "All services of a database share one folder.")
    else:
        yield Check("data folder", "ok", "goes with the database")


def _clock(there: float | None, lease_s: float) -> Check:
    ahead = 0.0 if there is None else time.time() - there
    finding = f"{abs(ahead):.2f} s from the database server's"
    if abs(ahead) > 1.0:
        hint = "Set this machine and the database server by NTP: leases are written by one clock and judged by another."
        return Check("clock", "fail" if abs(ahead) >= lease_s / 2 else "warn", finding, hint)
    return Check("clock", "ok", finding)
