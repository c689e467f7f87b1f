"""Which database a path or a URL means."""

from __future__ import annotations

from pathlib import Path

from app.store.dialect import Dialect
from app.store.sqlite import Sqlite

POSTGRESQL = ("postgresql://", "postgres://")


def database_at(url_or_path: str | Path) -> Dialect:
    """The database at a path, at `sqlite:///path` or at `postgresql://...`.

    Raises ValueError for one that is not supported, or whose driver is not installed.
    """
    text = str(url_or_path)
    if text.startswith(POSTGRESQL):
        try:
            from app.store.postgresql import Postgresql
        except ImportError as error:
            raise ValueError(
                f"PostgreSQL needs its driver ({error}): install greenroom[postgresql], e.g. with "
                "pip install 'psycopg[binary]'."
            ) from error
        return Postgresql(text)
    if text.startswith("sqlite:///"):
        text = text.removeprefix("sqlite:///")
    elif "://" in text:
        raise ValueError(f"Greenroom stores in SQLite or PostgreSQL, not in {text.split(':')[0]}.")
    if not text or text == ":memory:":
        raise ValueError("The store is durable and needs a file.")
    return Sqlite(Path(text))
