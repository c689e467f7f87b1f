"""The journal of a batch: what a run that is killed leaves for the next one."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from greenroom.client.manifest import Row
from greenroom.client.report import Outcome


class Journal:
    """What is on disk about a batch. Every line is written whole and flushed; a torn last line is left out."""

    def __init__(self, path: Path) -> None:
        self._requests: dict[str, tuple[str, dict[str, Any]]] = {}
        self._ended: dict[str, dict[str, Any]] = {}
        for entry in _entries(path):
            if "request" in entry:
                self._requests[entry["row"]] = (entry["key"], entry["request"])
                self._ended.pop(entry["row"], None)
            else:
                self._ended[entry["row"]] = entry["outcome"]
        self._file = path.open("a", encoding="utf-8")
        if _is_torn(path):
            self._file.write("\n")  # what follows a torn line would be lost with it

    def outcome(self, row: Row, out: Path, *, retry_failed: bool) -> Outcome | None:
        """How the row ended in an earlier run; None if it is to be run."""
        known = self._ended.get(_digest(row))
        if known is None:
            return None
        ended = Outcome(**known)
        if ended.state == "succeeded":
            return ended if (out / str(ended.output)).is_file() else None
        if retry_failed:
            self._requests.pop(_digest(row), None)  # that request has failed for good: another one is made
            return None
        return ended

    async def request(self, row: Row, address: Callable[[str], Awaitable[str]]) -> tuple[str, dict[str, Any]]:
        """The row's key and request, the same as in an earlier run that did not come to its end.

        `address` makes an input one that the service takes. Raises what it raises, and OSError.
        """
        digest = _digest(row)
        if digest not in self._requests:
            request = dict(row.request)
            for name in ("source", "audio"):
                request[name] = await address(request[name])
            self._requests[digest] = (f"batch-{uuid.uuid4()}", request)
            key, request = self._requests[digest]
            self._write({"row": digest, "key": key, "request": request})
        return self._requests[digest]

    def ended(self, row: Row, outcome: Outcome) -> None:
        """The row has come to its end."""
        self._write({"row": _digest(row), "outcome": asdict(outcome)})

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, entry: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(entry, separators=(",", ":")) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _digest(row: Row) -> str:
    """Names a row by what it asks for: a changed row is another one."""
    text = json.dumps([row.name, row.request], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _is_torn(path: Path) -> bool:
    """Whether the last line has no end: the batch was killed while it was written."""
    with path.open("rb") as file:
        return file.seek(0, os.SEEK_END) > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"


def _entries(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:  # the line that was being written when the batch was killed
            continue
    return entries
