"""Bringing a database to the revision that this version of the service knows."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, column, inspect, select, table

from app.store.errors import SchemaTooNew

HEAD = "0009"
"""The newest revision. Kept here as well as in `migrations/`, so that an ordinary start need not import alembic."""

KNOWN = frozenset({"0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", HEAD})
"""All revisions that this version can upgrade from."""

_VERSION = table("alembic_version", column("version_num"))


def revision(connection: Connection) -> str | None:
    """The revision of a database, None for an empty one."""
    if not inspect(connection).has_table(_VERSION.name):
        return None
    return connection.execute(select(_VERSION.c.version_num)).scalar_one_or_none()


def migrate(connection: Connection) -> None:
    """Upgrade to `HEAD` within the caller's transaction, which holds the write lock: of two processes one does it.

    Raises `SchemaTooNew` for a database that a newer version has written.
    """
    found = revision(connection)
    if found == HEAD:
        return
    if found is not None and found not in KNOWN:
        raise SchemaTooNew(found, HEAD)
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)
