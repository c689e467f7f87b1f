"""The retry budget: keeps a fault that hits everything from turning into a storm of retries.

Retries may be at most a share of recent attempts. Over it, a retry is not refused (an accepted task is not lost) but
waits the longest backoff, so that the load of retries falls until the share is kept again.
"""

from __future__ import annotations

import threading
from collections import deque

SHARE = 0.2
WINDOW = 100
"""Attempts that count as recent."""
MIN_TRAFFIC = 20
"""Below so many recent attempts every retry is within the budget: a share of few means nothing."""


class RetryBudget:
    """Counts recent attempts of this node. Safe to use from any thread."""

    def __init__(self, share: float = SHARE, window: int = WINDOW, min_traffic: int = MIN_TRAFFIC) -> None:
        self._share = share
        self._min_traffic = min_traffic
        self._recent: deque[bool] = deque(maxlen=window)
        self._lock = threading.Lock()

    def attempt_ended(self, *, retried: bool) -> None:
        """One more attempt; `retried` if a retry was scheduled after it."""
        with self._lock:
            self._recent.append(retried)

    def allows(self) -> bool:
        """Whether one more retry keeps the share."""
        with self._lock:
            if len(self._recent) < self._min_traffic:
                return True
            return (sum(self._recent) + 1) <= self._share * (len(self._recent) + 1)
