"""A bell: wakes a thread that waits on descriptors, however often and from wherever it is rung."""

from __future__ import annotations

import contextlib
import os
import threading

_ALL = 4096


class Bell:
    """Rung from any thread, waited for by one, on `handle`.

    No call waits: a pipe that is full of unheard rings rings already. After `close` a ring is nothing, where a bare
    descriptor would by then be some other file's.
    """

    def __init__(self) -> None:
        """Raises OSError where there is no descriptor to have."""
        self.handle, self._writer = os.pipe()
        """A descriptor that becomes readable when the bell was rung."""
        for end in (self.handle, self._writer):
            os.set_blocking(end, False)
        self._lock = threading.Lock()
        self._closed = False

    def ring(self) -> None:
        """Wake who waits, now or when it waits next."""
        with self._lock, contextlib.suppress(BlockingIOError):
            if not self._closed:
                os.write(self._writer, b"x")

    def silence(self) -> None:
        """Hear what was rung. For the thread that waits, before it looks at what it was rung for."""
        with self._lock, contextlib.suppress(BlockingIOError):
            if not self._closed:
                os.read(self.handle, _ALL)

    def close(self) -> None:
        """Nobody waits any more. Safe to repeat."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self.handle)
                os.close(self._writer)
