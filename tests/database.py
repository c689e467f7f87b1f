"""Databases for tests: a copy of one that was migrated once per process, since each migration takes half a second."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from app.store.sql import open_store


def empty_database(path: Path) -> Path:
    """Write a database without rows, with all its tables, to `path`."""
    path.write_bytes(_migrated())
    return path


@cache
def _migrated() -> bytes:
    with TemporaryDirectory(prefix="greenroom-database-") as folder:
        path = Path(folder) / "empty.db"
        open_store(path).close()
        return path.read_bytes()
