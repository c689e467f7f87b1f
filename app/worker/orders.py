"""What others want of a running attempt: that it ends, or only that its thread looks again."""

from __future__ import annotations

import threading

from app.retry.taxonomy import Failure
from app.worker.bell import Bell


class Orders:
    """Given from any thread, heeded by the attempt's own, which waits on `bell`. No call waits."""

    def __init__(self) -> None:
        """Raises OSError where there is no descriptor to have."""
        self._bell = Bell()
        self._lock = threading.Lock()
        self._ending: Failure | None = None
        self._closed = False

    @property
    def bell(self) -> int:
        """A descriptor that becomes readable when something was ordered."""
        return self._bell.handle

    @property
    def ending(self) -> Failure | None:
        """Why the attempt is to end; None: it is not."""
        return self._ending

    def end(self, failure: Failure) -> None:
        """Order the end; the first order counts, and none does once the attempt is over."""
        with self._lock:
            if self._ending is None and not self._closed:
                self._ending = failure
        self._bell.ring()

    def nudge(self) -> None:
        """Have the thread look again."""
        self._bell.ring()

    def heard(self) -> None:
        """Silence the bell."""
        self._bell.silence()

    def close(self) -> None:
        """The attempt is over."""
        with self._lock:
            self._closed = True
        self._bell.close()
