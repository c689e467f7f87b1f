"""The circuit breaker of a tier: a tier that fails is left alone for a while, then tried with one task.

Two steps, since outcomes arrive minutes later: `allow` gives a ticket, `done` brings it back. A ticket of an older
generation (given before the breaker changed its state) says nothing about the tier as it is now and is ignored. The
one probe of a half-open breaker holds a lease, so that a hung probe cannot jam it. Pure: time is passed in.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

_JITTER = 0.1
"""Part of the open time that is added at random, so that many nodes do not probe at once."""


class BreakerState(StrEnum):
    """Whether calls go through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """Seconds and counts; see docs/tiers.md."""

    failures: int = 3
    open_s: float = 5.0
    open_max_s: float = 300.0
    window: int = 20
    rate: float = 0.5
    probe_lease_s: float = 3600.0
    """After this long a probe without an outcome no longer holds the place of the next one."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to one call, and what its outcome will count for."""

    generation: int
    probe: bool = False


@dataclass(frozen=True, slots=True)
class BreakerRecord:
    """What survives a restart. `until` in epoch seconds."""

    state: BreakerState
    generation: int
    openings: int
    until: float | None
    forced: bool = False


class Breaker:
    """The breaker of one tier. Not thread-safe: its owner holds a lock."""

    def __init__(
        self,
        settings: BreakerSettings,
        clock: Callable[[], float],
        *,
        record: BreakerRecord | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`clock` gives epoch seconds: the open time goes on while the service is down."""
        self._settings = settings
        self._clock = clock
        self._uniform = uniform
        self._outcomes: deque[bool] = deque(maxlen=settings.window)
        self._in_a_row = 0
        self._probe_until: float | None = None
        start = record or BreakerRecord(BreakerState.CLOSED, 0, 0, None)
        # A probe does not survive its process: half open is open whose time is up.
        self._state = BreakerState.OPEN if start.state is BreakerState.HALF_OPEN else start.state
        self._generation = start.generation
        self._openings = start.openings
        self._until = start.until if start.until is not None else 0.0
        self._forced = start.forced

    @property
    def state(self) -> BreakerState:
        """The state at this moment: an open breaker whose time is up is half open."""
        if self._state is BreakerState.OPEN and not self._forced and self._clock() >= self._until:
            return BreakerState.HALF_OPEN
        return self._state

    @property
    def until(self) -> float | None:
        """When an open breaker admits its probe (epoch seconds); None if it is not open, or by hand and for good."""
        return self._until if self.state is BreakerState.OPEN and not self._forced else None

    @property
    def record(self) -> BreakerRecord:
        """What to keep over a restart."""
        until = self._until if self._state is BreakerState.OPEN else None
        return BreakerRecord(self._state, self._generation, self._openings, until, self._forced)

    def would_allow(self) -> bool:
        """Whether `allow` would give a ticket now."""
        match self.state:
            case BreakerState.CLOSED:
                return True
            case BreakerState.HALF_OPEN:
                return self._probe_until is None or self._clock() >= self._probe_until
            case _:
                return False

    def allow(self) -> Ticket | None:
        """A ticket for one call, or None: the tier is left alone."""
        if not self.would_allow():
            return None
        if self._state is BreakerState.CLOSED:
            return Ticket(self._generation)
        self._generation += 1
        self._probe_until = self._clock() + self._settings.probe_lease_s
        return Ticket(self._generation, probe=True)

    def done(self, ticket: Ticket, ok: bool | None) -> bool:
        """Bring the outcome: served, failed, or None (says nothing: cancelled ...). True if the state changed."""
        if ticket.generation != self._generation:
            return False
        if ticket.probe:
            self._probe_until = None
            if ok is None:
                return False
            if ok:
                self._close()
            else:
                self._open()
            return True
        if ok is None or self._state is not BreakerState.CLOSED:
            return False
        self._outcomes.append(ok)
        self._in_a_row = 0 if ok else self._in_a_row + 1
        if self._in_a_row >= self._settings.failures or self._rate_is_over():
            self._open()
            return True
        return False

    def force(self, state: BreakerState) -> None:
        """By hand: closed, or open until it is closed by hand."""
        self._close()
        if state is BreakerState.OPEN:
            self._state, self._forced = BreakerState.OPEN, True

    def _rate_is_over(self) -> bool:
        full = len(self._outcomes) == self._settings.window
        return full and self._outcomes.count(False) / len(self._outcomes) >= self._settings.rate

    def _open(self) -> None:
        self._generation += 1
        self._openings += 1
        seconds = min(self._settings.open_s * 2.0 ** min(self._openings - 1, 30), self._settings.open_max_s)
        self._until = self._clock() + seconds * (1 + self._uniform(0.0, _JITTER))
        self._state = BreakerState.OPEN
        self._forget()

    def _close(self) -> None:
        self._generation += 1
        self._openings = 0
        self._state, self._forced = BreakerState.CLOSED, False
        self._forget()

    def _forget(self) -> None:
        self._outcomes.clear()
        self._in_a_row = 0
        self._probe_until = None
