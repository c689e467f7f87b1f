"""The database check of `greenroom doctor`: a write that is read back, and a look at the service's own database."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from pathlib import Path

from app.cli.checks import Check, existing_parent

DATABASE = "greenroom.db"
LOCK_WITHIN_S = 5.0
"""A healthy service holds its write lock for milliseconds."""
_LOCAL_DISK = "Keep the data directory on a local disk: SQLite needs working locks and shared memory maps."


def database_check(data_dir: Path) -> Check:
    """A scratch database on the same file system is made, written and read; the service's own one is only looked at.

    The service's own is never migrated or written here: its service may be running, in another version.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from app.store.errors import StoreUnavailable

    try:
        took = _write_and_read(existing_parent(data_dir))
    except (OSError, SQLAlchemyError, StoreUnavailable) as error:
        return Check("database", "fail", f"a database at {data_dir} cannot be written: {error}", _LOCAL_DISK)
    database = data_dir / DATABASE
    if not database.exists():
        return Check("database", "ok", f"opens and writes (a durable commit in {1000 * took:.1f} ms); none there yet")
    try:
        revision = _look_at(database)
    except sqlite3.Error as error:
        hint = "Is it damaged or in use by another program? See docs/operations.md for restoring a backup."
        return Check("database", "fail", f"{database} cannot be read and locked: {error}", hint)
    return judge(revision, took)


def judge(revision: str | None, took: float) -> Check:
    """What the schema of a database at `revision` means, which takes `took` seconds for a durable commit."""
    from app.store.migrate import HEAD, KNOWN

    if revision is not None and revision not in KNOWN:
        hint = "Start the newer version, or restore the backup from before the upgrade."
        return Check("database", "fail", f"schema {revision} is newer than this version's {HEAD}", hint)
    schema = f"schema {revision}" + ("" if revision == HEAD else f", to be upgraded to {HEAD} at the next start")
    return Check("database", "ok", f"opens and writes (a durable commit in {1000 * took:.1f} ms); {schema}")


def _write_and_read(place: Path) -> float:
    """Seconds of one durable commit through the store's own code."""
    from app.store.errors import StoreUnavailable
    from app.store.sql import open_store

    with tempfile.TemporaryDirectory(dir=place, prefix=".greenroom-doctor-") as folder:
        store = open_store(Path(folder) / DATABASE)
        try:
            started = time.monotonic()
            store.set_paused(True)
            took = time.monotonic() - started
            if not store.queue().paused:
                raise StoreUnavailable("what was written is not there when it is read")
        finally:
            store.close()
    return took


def _look_at(database: Path) -> str | None:
    """The schema's revision. Takes the write lock for a moment and writes nothing."""
    connection = sqlite3.connect(database, timeout=LOCK_WITHIN_S, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError:
            row = None
        connection.execute("ROLLBACK")
    finally:
        connection.close()
    return str(row[0]) if row else None
