"""Which database a path or a URL means."""

from __future__ import annotations

from pathlib import Path

from app.store.dialect import Dialect
from app.store.sqlite import Sqlite


def database_at(url_or_path: str | Path) -> Dialect:
    """The database at a path, or at `sqlite:///path`. Raises ValueError for one that is not supported."""
    text = str(url_or_path)
    if text.startswith("sqlite:///"):
        text = text.removeprefix("sqlite:///")
    elif "://" in text:
        raise ValueError(f"Greenroom stores in SQLite (a path or sqlite:///path), not in {text.split(':')[0]}.")
    if not text or text == ":memory:":
        raise ValueError("The store is durable and needs a file.")
    return Sqlite(Path(text))
