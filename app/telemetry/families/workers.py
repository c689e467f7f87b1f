"""Metrics of slots, of what runs in them, and of their health checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

from app.health.monitor import ACCUSATIONS, CLOCKS, VERDICTS
from app.telemetry.families import buckets
from app.worker.judges import OUTCOMES

_UNSETTLED = frozenset({"stale", "unsettled"})
"""Ends that did not become the attempt's: see `app.worker.settle`."""


class WorkerMetrics:
    """The observer of pools, attempts, judges and monitors."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._unsettled = Counter(
            "greenroom_attempts_unsettled_total",
            "Attempts whose end this service could not write: another one had taken over, or no database.",
            ["tier", "reason"],
            registry=registry,
        )
        self._phases = Histogram(
            "greenroom_attempt_phase_duration_seconds",
            "Time that successful attempts spent per phase; phases overlap.",
            ["tier", "phase"],
            buckets=buckets.RENDERS,
            registry=registry,
        )
        self._frames = Counter(
            "greenroom_frames_rendered_total", "Frames of successful attempts.", ["tier"], registry=registry
        )
        self._upstream = Histogram(
            "greenroom_upstream_duration_seconds",
            "Time of a renderer's calls to the server behind its tier.",
            ["tier", "call"],
            buckets=buckets.CALLS,
            registry=registry,
        )
        self._restarts = Counter(
            "greenroom_worker_restarts_total",
            "Slot processes that were replaced.",
            ["slot"],
            registry=registry,
        )
        self._checks = Counter(
            "greenroom_health_checks_total", "Health checks of running attempts.", ["slot"], registry=registry
        )
        self._strikes = Counter(
            "greenroom_health_strikes_total",
            "Failed health checks, by the clock that stood.",
            ["slot", "clock"],
            registry=registry,
        )
        self._recoveries = Counter(
            "greenroom_health_recoveries_total",
            "Rows of failed health checks that a good one ended: false alarms without consequence.",
            ["slot"],
            registry=registry,
        )
        self._verdicts = Counter(
            "greenroom_health_verdicts_total",
            "Attempts that their monitor ordered to end, by failure.",
            ["slot", "code"],
            registry=registry,
        )
        self._refuted = Counter(
            "greenroom_health_verdicts_refuted_total",
            "Verdicts after which the clock that had stood moved: false alarms that ended an attempt.",
            ["slot", "code"],
            registry=registry,
        )
        self._judgements = Histogram(
            "greenroom_judgement_duration_seconds",
            "Time of a judge with one video of a light slot, by what came of it.",
            ["outcome"],
            buckets=buckets.RENDERS,
            registry=registry,
        )
        self._judge_wait = Histogram(
            "greenroom_judge_wait_seconds",
            "How long videos of light slots waited for a judge.",
            buckets=buckets.WAITS,
            registry=registry,
        )
        for judged in OUTCOMES:
            self._judgements.labels(judged)

    def expect_slots(self, names: Sequence[str]) -> None:
        """Show the counters of these slots from the start, as 0: an alert on their increase sees the first one."""
        for name in names:
            self._restarts.labels(name)
            self._checks.labels(name)
            self._recoveries.labels(name)
            for clock in CLOCKS:
                self._strikes.labels(name, clock)
            for code in VERDICTS:
                self._verdicts.labels(name, code.value)
            for code in ACCUSATIONS:
                self._refuted.labels(name, code.value)

    def attempt_ended(self, tier: str, outcome: str, stages: Mapping[str, float], frames: int) -> None:
        """An attempt's thread is done; what was committed of its end is counted from the event."""
        if outcome in _UNSETTLED:
            self._unsettled.labels(tier, outcome).inc()
        if outcome == "succeeded":
            for phase, spent in stages.items():
                self._phases.labels(tier, phase).observe(spent)
            self._frames.labels(tier).inc(frames)

    def upstream_called(self, tier: str, call: str, seconds: float) -> None:
        """A renderer called the server behind its tier."""
        self._upstream.labels(tier, call).observe(seconds)

    def video_judged(self, outcome: str, waited_s: float, seconds: float) -> None:
        """A judge is done with a video of a light slot."""
        self._judgements.labels(outcome).observe(seconds)
        self._judge_wait.observe(waited_s)

    def worker_restarted(self, slot: str, reason: str) -> None:  # noqa: ARG002 - the reason stands in the log
        """One slot process was replaced."""
        self._restarts.labels(slot).inc()

    def health_checked(self, slot: str) -> None:
        """One health check of a running attempt."""
        self._checks.labels(slot).inc()

    def health_strike(self, slot: str, clock: str) -> None:
        """One failed check."""
        self._strikes.labels(slot, clock).inc()

    def health_recovered(self, slot: str) -> None:
        """Failed checks came to nothing."""
        self._recoveries.labels(slot).inc()

    def health_verdict(self, slot: str, code: str) -> None:
        """One attempt is ended by its monitor."""
        self._verdicts.labels(slot, code).inc()

    def health_refuted(self, slot: str, code: str) -> None:
        """One verdict was wrong."""
        self._refuted.labels(slot, code).inc()
