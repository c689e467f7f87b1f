"""The monitor thread of one running attempt.

Every few seconds it looks at both clocks and at the deadline, and renews the lease only while it is content.
It never touches the process: it tells its verdict to the attempt, which acts. What it saw it tells an observer, so that
its own mistakes can be counted: failed checks that a good one followed, and verdicts that the accused clock refuted.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

import structlog

from app.health.clocks import Health, Limits, Look, judge
from app.retry.taxonomy import Failure, FailureCode

log = structlog.get_logger(__name__)

HEARTBEAT, PROGRESS = "heartbeat", "progress"
CLOCKS = (HEARTBEAT, PROGRESS)
_ACCUSED = {FailureCode.WORKER_UNRESPONSIVE: HEARTBEAT, FailureCode.WORKER_STALLED: PROGRESS}
ACCUSATIONS = tuple(_ACCUSED)
"""Verdicts that a clock can refute."""
VERDICTS = (*ACCUSATIONS, FailureCode.DEADLINE_EXCEEDED, FailureCode.RENDER_TIMEOUT)
"""All that a monitor can find."""


class HealthObserver(Protocol):
    """What a monitor tells the telemetry; called from its thread. `slot` is where the attempt runs."""

    def health_checked(self, slot: str) -> None:
        """Both clocks were looked at."""

    def health_strike(self, slot: str, clock: str) -> None:
        """A check failed: the heartbeat stood since the last one, or the work for longer than its phase allows."""

    def health_recovered(self, slot: str) -> None:
        """A good check followed failed ones before they were too many: a false alarm that ended nothing."""

    def health_verdict(self, slot: str, code: str) -> None:
        """The attempt is to be ended for `code`."""

    def health_refuted(self, slot: str, code: str) -> None:
        """The accused clock moved after the verdict: a process was ended that was slow, not hung."""


class Monitor:
    """Watches one attempt from `start` to `stop`."""

    def __init__(
        self,
        *,
        name: str,
        look: Callable[[], Look],
        renew: Callable[[], None],
        verdict: Callable[[Failure], None],
        observer: HealthObserver,
        limits: Limits,
        interval_s: float,
        deadline: float | None,
        at_deadline: FailureCode = FailureCode.DEADLINE_EXCEEDED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`look` reads the clocks; `renew` renews the lease and may raise; `verdict` takes one failure, once.

        `name` is the slot's. `deadline` is on `clock`, in seconds; None means none. `at_deadline` names its
        passing.
        """
        self._slot = name
        self._look = look
        self._renew = renew
        self._verdict = verdict
        self._observer = observer
        self._limits = limits
        self._interval_s = interval_s
        self._deadline = deadline
        self._at_deadline = at_deadline
        self._clock = clock
        self._stop = threading.Event()
        # Its lines in the log are about what those of whoever makes it are about.
        watch = partial(contextvars.copy_context().run, self._run)
        self._thread = threading.Thread(target=watch, name=f"monitor-{name}", daemon=True)

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

    def _run(self) -> None:
        try:
            self._watch()
        except Exception as error:
            # Unwatched, an attempt that hangs would hang for ever.
            log.exception("monitor_failed")
            self._verdict(Failure(FailureCode.INTERNAL, f"Nobody watched over it any more: {error!r}"))

    def _watch(self) -> None:
        health = Health.begin(self._look())
        next_check = self._clock() + self._interval_s
        while not self._stop.wait(self._pause()):
            now = self._clock()
            if self._deadline is not None and now >= self._deadline:
                self._say(Failure(self._at_deadline))
                return
            if now < next_check:
                continue
            next_check = now + self._interval_s
            before, seen = health, self._look()
            health, failure = judge(before, seen, self._limits)
            self._observe(before, health, failure)
            if failure is not None:
                self._say(failure)
                self._reconsider(failure, seen)
                return
            if health.strikes:
                log.warning("health_strike", strikes=health.strikes, of=self._limits.strikes)
                continue
            try:
                self._renew()
            except Exception as error:  # noqa: BLE001 - a lease that cannot be renewed is retried until it expires
                log.warning("lease_not_renewed", error=repr(error))

    def _observe(self, before: Health, after: Health, failure: Failure | None) -> None:
        self._observer.health_checked(self._slot)
        if after.strikes:
            self._observer.health_strike(self._slot, HEARTBEAT)
        elif before.strikes:
            self._observer.health_recovered(self._slot)
            log.info("health_recovered", strikes=before.strikes)
        if failure is not None and _ACCUSED[failure.code] == PROGRESS:
            self._observer.health_strike(self._slot, PROGRESS)

    def _say(self, failure: Failure) -> None:
        self._observer.health_verdict(self._slot, failure.code.value)
        self._verdict(failure)

    def _reconsider(self, failure: Failure, accused: Look) -> None:
        """Once the attempt is over: did the clock that the verdict spoke of move after all?

        A wait that the signal for the stacks has ended counts as moved, too: waits that restart do not.
        """
        self._stop.wait()
        last = self._look()
        moved = last.beats != accused.beats if _ACCUSED[failure.code] == HEARTBEAT else last.moves != accused.moves
        if moved:
            self._observer.health_refuted(self._slot, failure.code.value)
            log.warning("health_verdict_refuted", code=failure.code)
