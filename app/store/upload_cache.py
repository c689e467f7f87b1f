"""Uploads that were read lately: the same portrait or template is often asked for many times a second."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from app.store.records import UploadRecord

FRESH_S = 1.0
"""How long a record is believed. It never changes, and none is deleted before it expires; should another process take
one out of the database all the same, this one notices after this long."""
ENTRIES = 4096


class UploadCache:
    """A bounded number of records. Safe to use from any thread."""

    def __init__(
        self, clock: Callable[[], float], *, monotonic: Callable[[], float] = time.monotonic, entries: int = ENTRIES
    ) -> None:
        """`clock` gives epoch seconds, as the records' times do."""
        self._clock = clock
        self._monotonic = monotonic
        self._entries = entries
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[float, UploadRecord]] = OrderedDict()

    def get(self, upload_id: str) -> UploadRecord | None:
        """An upload that was read within `FRESH_S` and has not expired."""
        with self._lock:
            entry = self._known.get(upload_id)
            if entry is None:
                return None
            read_at, record = entry
            if self._monotonic() - read_at < FRESH_S and record.expires_at > self._clock():
                return record
            del self._known[upload_id]
            return None

    def put(self, records: Iterable[UploadRecord]) -> None:
        """Remember what was just read."""
        read_at = self._monotonic()
        with self._lock:
            for record in records:
                self._known[record.id] = read_at, record
                self._known.move_to_end(record.id)
            while len(self._known) > self._entries:
                self._known.popitem(last=False)

    def forget(self, upload_ids: Iterable[str]) -> None:
        """Remember these no longer."""
        with self._lock:
            for upload_id in upload_ids:
                self._known.pop(upload_id, None)
