"""What a configuration promises: how often a failure is tried again, and within what time it is found and overcome."""

from __future__ import annotations

from dataclasses import dataclass

from app.config import Settings
from app.retry.taxonomy import FAILURE_TABLE, FailureCode

QUICK: dict[str, str] = {
    "health_interval_s": "1.5",
    "health_strikes": "3",
    **{f"phase_{phase}_s": "15" for phase in ("load", "fetch", "analyse", "render", "encode")},
    "backoff_cap_s": "1",
    "lease_s": "6",
    "webhook_schedule_s": "0,1,2,4",
}
"""Settings of a quick drill. A worker beats once a second: checks more often than that would find it still. And a
machine that is busy may need seconds to load torch, which is work that does not move."""

_LEEWAY_S = 15.0
"""For a machine that is busy with something else."""
_QUEUE_S = 60.0
"""How long tasks of a drill may wait for each other and for tasks that are not the drill's."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The promises. `start_s`: how long a fresh worker process takes to be ready, as far as the drill has seen."""

    settings: Settings
    start_s: float

    def attempts(self, code: FailureCode) -> int:
        """How many attempts a task gets that fails with `code` every time."""
        retries = FAILURE_TABLE[code].retries
        return 1 + min(self.settings.max_retries if retries is None else retries, self.settings.max_retries)

    def found_s(self, code: FailureCode) -> float:
        """The longest that a failure may go unseen."""
        settings = self.settings
        if code is FailureCode.WORKER_UNRESPONSIVE:
            return settings.health_interval_s * (settings.health_strikes + 1)
        if code is FailureCode.WORKER_STALLED:
            return settings.phase_render_s + 2 * settings.health_interval_s
        return 0.0

    def pause_s(self, code: FailureCode, retry: int = 1) -> float:
        """The longest pause before the `retry`-th retry, as long as the retry budget is not spent."""
        first = FAILURE_TABLE[code].first_delay_s
        return float(min(first * 2 ** (retry - 1), self.settings.backoff_cap_s))

    def recovered_s(self, code: FailureCode, paused_s: float) -> float:
        """From the start of an attempt that fails with `code` until the next one must have started.

        `paused_s` is the pause that the service announced.
        """
        return self.found_s(code) + paused_s + self.settings.cancel_grace_s + 2 * self.start_s + _LEEWAY_S

    def takeover_s(self) -> float:
        """From the death of a service until another one must have taken over its tasks."""
        return self.settings.lease_s + self.settings.health_interval_s + _LEEWAY_S

    def about_s(self, code: FailureCode, failures: int = 1) -> float:
        """About how long a rehearsal lasts that fails so often: for the person who waits."""
        pauses = sum(0.75 * self.pause_s(code, n) for n in range(1, min(failures, self.attempts(code) - 1) + 1))
        # Where a spare stands by, a killed process costs nothing; the next one may find none.
        replaced = self.start_s / 2 if FAILURE_TABLE[code].kills_process else 0.0
        return failures * (self.found_s(code) + replaced) + pauses + 2.0

    def restarted_s(self) -> float:
        """The longest that starting the service anew may take."""
        return 2 * self.start_s + _LEEWAY_S

    def patience_s(self, code: FailureCode | None = None, failures: int = 1) -> float:
        """How long to wait for the end of a rehearsal that fails so often, before it counts as hung."""
        if code is None:
            return _QUEUE_S + self.start_s
        longest = max(self.pause_s(code, failures), self.settings.backoff_cap_s)
        return _QUEUE_S + failures * self.recovered_s(code, longest)
