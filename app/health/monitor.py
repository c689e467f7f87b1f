"""The monitor thread of one running attempt.

Every few seconds it looks at both clocks and at the deadline, and renews the lease only while it is content.
It never touches the process: it tells its verdict to the attempt, which acts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from app.health.clocks import Health, Limits, Look, judge
from app.retry.taxonomy import Failure, FailureCode

log = structlog.get_logger(__name__)


class Monitor:
    """Watches one attempt from `start` to `stop`."""

    def __init__(
        self,
        *,
        name: str,
        look: Callable[[], Look],
        renew: Callable[[], None],
        verdict: Callable[[Failure], None],
        limits: Limits,
        interval_s: float,
        deadline: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`look` reads the clocks; `renew` renews the lease and may raise; `verdict` takes one failure, once.

        `deadline` is on `clock`, in seconds; None means none.
        """
        self._look = look
        self._renew = renew
        self._verdict = verdict
        self._limits = limits
        self._interval_s = interval_s
        self._deadline = deadline
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"monitor-{name}", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it. Safe to repeat, and from the monitor's own verdict."""
        self._stop.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def _pause(self) -> float:
        if self._deadline is None:
            return self._interval_s
        return max(0.0, min(self._interval_s, self._deadline - self._clock()))

    def _watch(self) -> None:
        health = Health.begin(self._look())
        next_check = self._clock() + self._interval_s
        while not self._stop.wait(self._pause()):
            now = self._clock()
            if self._deadline is not None and now >= self._deadline:
                self._verdict(Failure(FailureCode.DEADLINE_EXCEEDED))
                return
            if now < next_check:
                continue
            next_check = now + self._interval_s
            health, failure = judge(health, self._look(), self._limits)
            if failure is not None:
                self._verdict(failure)
                return
            if health.strikes:
                log.warning("health_strike", strikes=health.strikes, of=self._limits.strikes)
                continue
            try:
                self._renew()
            except Exception as error:  # noqa: BLE001 - a lease that cannot be renewed is retried until it expires
                log.warning("lease_not_renewed", error=repr(error))
