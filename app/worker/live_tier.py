"""One tier at work, as one node has measured it: its breaker, what runs on it, how its last attempts ended."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field

from app.retry.breaker import Breaker
from app.retry.taxonomy import Failure

_REMEMBERED = 20
"""Attempts per tier that latency and success are measured over."""


@dataclass
class LiveTier:
    """Guarded by the board's lock."""

    breaker: Breaker
    running: dict[int, float] = field(default_factory=dict)
    """Start, monotonic seconds, by attempt."""
    outcomes: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    """Seconds, and whether it served."""

    @property
    def latency_s(self) -> float | None:
        """The median of the attempts that served; None if none did."""
        served = [seconds for seconds, ok in self.outcomes if ok]
        return statistics.median(served) if served else None

    @property
    def success(self) -> float:
        """The share of attempts that served, 1 before the first."""
        return sum(ok for _, ok in self.outcomes) / len(self.outcomes) if self.outcomes else 1.0


def verdict(failure: Failure | None) -> bool | None:
    """Served, failed, or neither: the caller's own mistake and our own interruption say nothing of the tier."""
    if failure is None:
        return True
    return False if failure.policy.next_tier_after is not None else None


def breaker_verdict(failure: Failure | None) -> bool | None:
    """The same for the breaker, which counts fewer failures."""
    if failure is None:
        return True
    return False if failure.policy.counts_on_breaker else None
