"""What others want of a running attempt: that it ends, or only that its thread looks again."""

from __future__ import annotations

import os
import threading

from app.retry.taxonomy import Failure

_ALL = 4096


class Orders:
    """Given from any thread, heeded by the attempt's own, which waits on `bell`."""

    def __init__(self) -> None:
        self.bell, self._writer = os.pipe()
        """A descriptor that becomes readable when something was ordered."""
        self._lock = threading.Lock()
        self._ending: Failure | None = None
        self._closed = False

    @property
    def ending(self) -> Failure | None:
        """Why the attempt is to end; None: it is not."""
        return self._ending

    def end(self, failure: Failure) -> None:
        """Order the end; the first order counts, and none does once the attempt is over. Returns at once."""
        with self._lock:
            if self._ending is None and not self._closed:
                self._ending = failure
                os.write(self._writer, b"x")

    def nudge(self) -> None:
        """Have the thread look again. Returns at once."""
        with self._lock:
            if not self._closed:
                os.write(self._writer, b"x")

    def heard(self) -> None:
        """Silence the bell, which must be ringing."""
        os.read(self.bell, _ALL)

    def close(self) -> None:
        """The attempt is over."""
        with self._lock:
            self._closed = True
            os.close(self.bell)
            os.close(self._writer)
