"""The watermark of the disk: below it nothing new is taken in, so that what was accepted can still be finished."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

FRESH_S = 1.0
"""How long a measurement is good for: requests come faster than a disk fills."""


def free_bytes(folder: Path) -> int:
    """Bytes that this process may still write to the disk of `folder`. Raises OSError."""
    return shutil.disk_usage(folder).free


class DiskWatch:
    """How much room there is below one folder. Safe to ask from any thread, as often as one likes."""

    def __init__(
        self,
        folder: Path,
        low_bytes: int,
        *,
        measure: Callable[[Path], int] = free_bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """With less than `low_bytes` free the disk counts as low; 0 never does."""
        self.low_bytes = low_bytes
        self._folder = folder
        self._measure = measure
        self._clock = clock
        self._last: tuple[float, int | None] = (float("-inf"), None)

    def free(self) -> int | None:
        """Free bytes, at most `FRESH_S` old; None where the disk does not tell."""
        measured_at, found = self._last
        now = self._clock()
        if now - measured_at >= FRESH_S:
            try:
                found = self._measure(self._folder)
            except OSError:
                found = None
            self._last = (now, found)
        return found

    def is_low(self) -> bool:
        """Whether the watermark is passed. A disk that does not tell is not low: a write will say what is wrong."""
        found = self.free()
        return found is not None and found < self.low_bytes
