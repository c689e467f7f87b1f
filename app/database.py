"""The database that the settings mean, and whether this machine's data folder and clock go with it.

Services on several machines share a PostgreSQL database and one data folder. One that came with another folder would
answer for videos that it does not have, and its janitor would remove those of tasks that it does not know. So the
database and its folder bear the same name: a row of the one, a file in the other.
"""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

import structlog

from app.config import ConfigError, Settings
from app.store.sql import SqlStore, open_store
from app.tasks.ids import new_id
from app.worker.publish import RESULTS

log = structlog.get_logger(__name__)

DATABASE = "greenroom.db"
FOLDER_FILE = "database-id"
"""In a data folder that belongs to a PostgreSQL database: that database's name."""
KEPT = "database-id"
"""The same in the database."""
CLOCK_WARN_S = 1.0


def open_database(settings: Settings, data_dir: Path) -> SqlStore:
    """Open the database. Raises `ConfigError`, `SchemaTooNew`, `StoreUnavailable`."""
    if settings.database_url is None:
        if (name := folder_name(data_dir)) is not None:
            raise ConfigError(
                f"The data folder {data_dir} belongs to a PostgreSQL database ({name}, says its file {FOLDER_FILE}): "
                "set database_url as the other services on it have it, or choose another data_dir."
            )
        return open_store(data_dir / DATABASE)
    try:
        store = open_store(settings.database_url.get_secret_value())
    except ValueError as error:
        raise ConfigError(f"database_url: {error}") from None
    try:
        _join(store, data_dir)
        _compare_clocks(store, settings.lease_s)
    except BaseException:
        store.close()
        raise
    return store


def folder_name(data_dir: Path) -> str | None:
    """The name of the database that a data folder belongs to; None where it says none."""
    try:
        return (data_dir / FOLDER_FILE).read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None


def why_foreign(known: str | None, data_dir: Path) -> str:
    """Why a data folder is not that of the database named `known` (None: one without a name yet); empty if it is."""
    here = folder_name(data_dir)
    if known is None:
        if any(data_dir.glob(f"{RESULTS}/*/*")) or any(data_dir.glob("blobs/??/*")):
            return (
                f"The database is new, but the data folder {data_dir} holds inputs or videos of another one, which "
                "would be removed as nobody's: choose an empty data_dir."
            )
        return ""
    if here is None:
        return (
            f"The data folder {data_dir} is not the one that the other services of this database share: it has no file "
            f"{FOLDER_FILE}. Mount that folder on this machine. (If it is the right one, restored without that file, "
            f"write {known} into it.)"
        )
    if here != known:
        return (
            f"The data folder {data_dir} belongs to another database ({here}, not {known}): set data_dir to the folder "
            "that the services of this database share, or correct database_url."
        )
    return ""


def _join(store: SqlStore, data_dir: Path) -> None:
    """See that folder and database belong together; the first service of a new database makes them so."""
    known = store.kept(KEPT)
    if reason := why_foreign(known, data_dir):
        raise ConfigError(reason)
    if known is not None:
        return
    # First the folder: a service that dies between the two has left an empty folder with a name, which is given then.
    made = _write_name(data_dir)
    here = folder_name(data_dir)
    known = store.keep_first(KEPT, here)
    if known != here:  # Another service was first, on another folder.
        if made:
            (data_dir / FOLDER_FILE).unlink(missing_ok=True)
        raise ConfigError(why_foreign(known, data_dir))


def _write_name(data_dir: Path) -> bool:
    """Give the folder a name if it has none; whether it was given this one. Of several services the first counts."""
    path = data_dir / FOLDER_FILE
    if path.exists():
        return False
    part = path.with_name(f"{FOLDER_FILE}.{secrets.token_hex(4)}")
    with part.open("x", encoding="utf-8") as file:
        file.write(new_id("db") + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    finally:
        part.unlink()
    return True


def _compare_clocks(store: SqlStore, lease_s: float) -> None:
    """Leases are written by one machine's clock and judged by another's."""
    ahead = store.clock_ahead(time.time)
    if abs(ahead) >= lease_s / 2:
        raise ConfigError(
            f"This machine's clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} that of the database "
            f"server, and leases last {lease_s:g} s: set both by NTP."
        )
    if abs(ahead) > CLOCK_WARN_S:
        log.warning("clocks_differ", ahead_s=round(ahead, 3), hint="Set this machine and the database server by NTP.")
