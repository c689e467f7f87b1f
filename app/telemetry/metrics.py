"""Prometheus metrics, by Prometheus' naming conventions: base units, `_total` for counters, few labels.

Gauges of the queue and the slots are read when Prometheus scrapes, so that they are never stale.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, get_args

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.health.monitor import ACCUSATIONS, CLOCKS, VERDICTS
from app.store.deliveries import OutboxStats, Verdict
from app.store.endings import attempt_ending, task_ending
from app.store.interface import StoreUnavailable
from app.store.records import CacheStats, EventRecord, QueueStats
from app.tasks.replay import EVENT_OF
from app.tasks.status import Status
from app.telemetry.collectors import (
    HealthCollector,
    HealthSource,
    ListenerCollector,
    ListenerSource,
    StatisticsCollector,
)
from app.telemetry.statistics import Statistics
from app.worker.judges import OUTCOMES

_HTTP_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BACKOFF_BUCKETS = (0.1, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300)
_CONFIDENCE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_ERROR_BUCKETS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5)
_WAIT_BUCKETS = (0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
_RENDER_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600, 1200, 1800, 3600)
_UNSETTLED = frozenset({"stale", "unsettled"})
"""Ends that did not become the attempt's: see `app.worker.settle`."""


_QUEUED = EVENT_OF[Status.QUEUED]
_BREAKER_STATES = {"closed": 0, "half_open": 1, "open": 2}


class StateSource(Protocol):
    """Where the scraped gauges come from."""

    def queue(self) -> QueueStats:
        """The queue now."""

    def outbox(self) -> OutboxStats:
        """How many notices wait, and how many were given up."""

    def cache(self) -> CacheStats:
        """How much the result cache holds."""

    def slot_states(self) -> Mapping[str, int]:
        """How many slots are in each state; every possible state is a key."""

    def judges_line(self) -> tuple[int, int]:
        """How many videos wait for a judge, and how many are being judged."""

    def disk_free_bytes(self) -> int | None:
        """Free bytes of the disk below the data directory; None where it does not tell."""


class _StateCollector(Collector):
    def __init__(self, source: StateSource) -> None:
        self._source = source

    def collect(self) -> Iterable[Metric]:
        slots = GaugeMetricFamily("greenroom_slots", "Slots by state.", labels=["state"])
        for state, count in self._source.slot_states().items():
            slots.add_metric([state], count)
        yield slots
        judging = GaugeMetricFamily("greenroom_judge_videos", "Videos of light slots at the judges.", labels=["state"])
        for state, count in zip(("waiting", "judging"), self._source.judges_line(), strict=True):
            judging.add_metric([state], count)
        yield judging
        free = self._source.disk_free_bytes()
        if free is not None:
            yield GaugeMetricFamily("greenroom_disk_free_bytes", "Free bytes below the data directory.", value=free)
        # A database that does not answer must not take the metrics of everything else away.
        try:
            stored = self._source.queue(), self._source.outbox(), self._source.cache()
        except StoreUnavailable:
            stored = None
        yield GaugeMetricFamily("greenroom_store_up", "1 while the database answers.", value=float(stored is not None))
        if stored is not None:
            queue, outbox, cache = stored
            yield from self._queue_metrics(queue)
            yield GaugeMetricFamily("greenroom_webhook_pending", "Notices still to be delivered.", value=outbox.pending)
            yield GaugeMetricFamily("greenroom_webhook_dead", "Notices that were given up.", value=outbox.dead)
            yield GaugeMetricFamily("greenroom_cache_results", "Results in the result cache.", value=cache.results)
            yield GaugeMetricFamily("greenroom_cache_bytes", "Bytes of results in the result cache.", value=cache.bytes)

    def _queue_metrics(self, queue: QueueStats) -> Iterable[Metric]:
        tasks = GaugeMetricFamily("greenroom_tasks", "Tasks in the store by status.", labels=["status"])
        for status in Status:
            tasks.add_metric([status.value], queue.by_status.get(status, 0))
        yield tasks
        depth = GaugeMetricFamily("greenroom_queue_depth", "Waiting tasks.", labels=["kind"])
        depth.add_metric(["runnable"], queue.runnable)
        depth.add_metric(["scheduled"], queue.scheduled)
        depth.add_metric(["joined"], queue.joined)
        depth.add_metric(["chained"], queue.chained)
        yield depth
        oldest = queue.oldest_runnable_at
        yield GaugeMetricFamily(
            "greenroom_queue_oldest_age_seconds",
            "How long the oldest runnable task has waited; 0 when none waits.",
            value=0.0 if oldest is None else max(0.0, time.time() - oldest),
        )
        yield GaugeMetricFamily("greenroom_queue_paused", "1 while the queue is paused.", value=float(queue.paused))


class Metrics:
    """All metrics of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._http = Histogram(
            "greenroom_http_request_duration_seconds",
            "Time from the first byte of a request to the last of its answer.",
            ["method", "route", "status"],
            buckets=_HTTP_BUCKETS,
            registry=self.registry,
        )
        self._finished = Counter(
            "greenroom_tasks_finished_total", "Tasks that ended, by final status.", ["status"], registry=self.registry
        )
        self._retries = Counter(
            "greenroom_retries_total",
            "Retries that were scheduled, by the failure and the tier it happened in; interruptions are none.",
            ["code", "tier"],
            registry=self.registry,
        )
        self._failovers = Counter(
            "greenroom_failovers_total",
            "Tasks that went on to another tier, by the failure and the tier that they left.",
            ["code", "tier"],
            registry=self.registry,
        )
        self._backoff = Histogram(
            "greenroom_retry_backoff_seconds",
            "How long tasks were told to wait before a retry.",
            buckets=_BACKOFF_BUCKETS,
            registry=self.registry,
        )
        self._attempts = Histogram(
            "greenroom_attempt_duration_seconds",
            "Time of an attempt from its claim to its committed end.",
            ["tier", "outcome"],
            buckets=_RENDER_BUCKETS,
            registry=self.registry,
        )
        self._confidence = Histogram(
            "greenroom_confidence",
            "How sure the quality gate is of finished videos, 0 to 1.",
            ["tier"],
            buckets=_CONFIDENCE_BUCKETS,
            registry=self.registry,
        )
        self._task_duration = Histogram(
            "greenroom_task_duration_seconds",
            "From when a task's waiting counts to its end.",
            ["status"],
            buckets=_RENDER_BUCKETS,
            registry=self.registry,
        )
        self._queue_wait = Histogram(
            "greenroom_queue_wait_seconds",
            "How long ended tasks had waited for their first attempt.",
            buckets=_WAIT_BUCKETS,
            registry=self.registry,
        )
        self._eta_error = Histogram(
            "greenroom_eta_error_ratio",
            "How far off the expected end of a task was, as a share of the time that it took from then on.",
            ["told"],
            buckets=_ERROR_BUCKETS,
            registry=self.registry,
        )
        for told in ("submit", "start"):
            self._eta_error.labels(told)
        self._compute = Counter(
            "greenroom_compute_seconds_total",
            "Time that attempts held a slot; kind gpu: the part of it on a CUDA device.",
            ["tier", "kind"],
            registry=self.registry,
        )
        self._unsettled = Counter(
            "greenroom_attempts_unsettled_total",
            "Attempts whose end this service could not write: another one had taken over, or no database.",
            ["tier", "reason"],
            registry=self.registry,
        )
        self._phases = Histogram(
            "greenroom_attempt_phase_duration_seconds",
            "Time that successful attempts spent per phase; phases overlap.",
            ["tier", "phase"],
            buckets=_RENDER_BUCKETS,
            registry=self.registry,
        )
        self._frames = Counter(
            "greenroom_frames_rendered_total", "Frames of successful attempts.", ["tier"], registry=self.registry
        )
        self._upstream = Histogram(
            "greenroom_upstream_duration_seconds",
            "Time of a renderer's calls to the server behind its tier.",
            ["tier", "call"],
            buckets=_HTTP_BUCKETS,
            registry=self.registry,
        )
        self._restarts = Counter(
            "greenroom_worker_restarts_total",
            "Slot processes that were replaced.",
            ["slot"],
            registry=self.registry,
        )
        self._checks = Counter(
            "greenroom_health_checks_total", "Health checks of running attempts.", ["slot"], registry=self.registry
        )
        self._strikes = Counter(
            "greenroom_health_strikes_total",
            "Failed health checks, by the clock that stood.",
            ["slot", "clock"],
            registry=self.registry,
        )
        self._recoveries = Counter(
            "greenroom_health_recoveries_total",
            "Rows of failed health checks that a good one ended: false alarms without consequence.",
            ["slot"],
            registry=self.registry,
        )
        self._verdicts = Counter(
            "greenroom_health_verdicts_total",
            "Attempts that their monitor ordered to end, by failure.",
            ["slot", "code"],
            registry=self.registry,
        )
        self._refuted = Counter(
            "greenroom_health_verdicts_refuted_total",
            "Verdicts after which the clock that had stood moved: false alarms that ended an attempt.",
            ["slot", "code"],
            registry=self.registry,
        )
        self._judgements = Histogram(
            "greenroom_judgement_duration_seconds",
            "Time of a judge with one video of a light slot, by what came of it.",
            ["outcome"],
            buckets=_RENDER_BUCKETS,
            registry=self.registry,
        )
        self._judge_wait = Histogram(
            "greenroom_judge_wait_seconds",
            "How long videos of light slots waited for a judge.",
            buckets=_WAIT_BUCKETS,
            registry=self.registry,
        )
        for judged in OUTCOMES:
            self._judgements.labels(judged)
        self._notices = Counter(
            "greenroom_webhook_deliveries_total",
            "Tries to deliver a notice, by what they led to.",
            ["outcome"],
            registry=self.registry,
        )
        self._notice_seconds = Histogram(
            "greenroom_webhook_duration_seconds",
            "Time of one try to deliver a notice.",
            ["outcome"],
            buckets=_HTTP_BUCKETS,
            registry=self.registry,
        )
        for outcome in get_args(Verdict):
            self._notices.labels(outcome)
        self._breakers = Gauge(
            "greenroom_breaker_state",
            "The breaker of a tier: 0 closed, 1 half open, 2 open.",
            ["tier"],
            registry=self.registry,
        )
        self._breaker_changes = Counter(
            "greenroom_breaker_changes_total",
            "Changes of a tier's breaker, by the state that it changed to.",
            ["tier", "state"],
            registry=self.registry,
        )
        self._cache = {
            "hit": Counter(
                "greenroom_cache_hits_total", "Tasks that a cached result answered.", registry=self.registry
            ),
            "miss": Counter(
                "greenroom_cache_misses_total", "Tasks that no cached result could answer.", registry=self.registry
            ),
            "join": Counter(
                "greenroom_cache_joins_total", "Tasks that waited for an equal one.", registry=self.registry
            ),
        }
        for status in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED):
            self._finished.labels(status.value)

    def watch(self, source: StateSource) -> None:
        """Add the gauges of queue and slots."""
        self.registry.register(_StateCollector(source))

    def watch_health(self, source: HealthSource) -> None:
        """Add resources and alarms."""
        self.registry.register(HealthCollector(source))

    def watch_statistics(self, source: Statistics) -> None:
        """Add the success rates."""
        self.registry.register(StatisticsCollector(source))

    def watch_listeners(self, source: ListenerSource) -> None:
        """Add the event streams."""
        self.registry.register(ListenerCollector(source))

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

    def breaker_changed(self, tier: str, state: str) -> None:
        """The breaker of a tier changed to `state`."""
        self._breakers.labels(tier).set(_BREAKER_STATES[state])
        self._breaker_changes.labels(tier, state).inc()

    def eta_missed(self, told: str, ratio: float) -> None:
        """The end that was expected at `submit` or at the `start` of the attempt was off by this share."""
        self._eta_error.labels(told).observe(ratio)

    def expect_tiers(self, states: Mapping[str, str]) -> None:
        """Show the breakers of these tiers (name -> state) from the start."""
        for tier, state in states.items():
            self._breakers.labels(tier).set(_BREAKER_STATES[state])
            for other in _BREAKER_STATES:
                self._breaker_changes.labels(tier, other)

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One finished HTTP request."""
        self._http.labels(method, route, str(status)).observe(seconds)

    def count_events(self, events: Sequence[EventRecord]) -> None:
        """Events that this service has committed."""
        for event in events:
            if event.type == _QUEUED and (used := self._cache.get(event.data.get("cache", ""))) is not None:
                used.inc()
            attempt, task = attempt_ending(event), task_ending(event)
            if attempt is not None:
                spent = max(attempt.ended_at - attempt.started_at, 0.0)
                self._attempts.labels(attempt.tier, attempt.outcome).observe(spent)
                self._compute.labels(attempt.tier, "slot").inc(spent)
                if attempt.device.startswith("cuda"):
                    self._compute.labels(attempt.tier, "gpu").inc(spent)
                if (confidence := _confidence(event)) is not None:
                    self._confidence.labels(attempt.tier).observe(confidence)
                if event.type == EVENT_OF[Status.RETRY_WAIT] and "failover_to" in event.data:
                    self._failovers.labels(attempt.code or "", attempt.tier).inc()
                elif event.type == EVENT_OF[Status.RETRY_WAIT]:
                    self._retries.labels(attempt.code or "", attempt.tier).inc()
                    self._backoff.observe((event.data.get("backoff_ms") or 0) / 1000)
            if task is not None:
                self._finished.labels(task.status.value).inc()
                self._task_duration.labels(task.status.value).observe(max(task.finished_at - task.enqueued_at, 0.0))
                if task.started_at is not None:
                    self._queue_wait.observe(max(task.started_at - task.enqueued_at, 0.0))

    def attempt_ended(self, tier: str, outcome: str, seconds: float, stages: Mapping[str, float], frames: int) -> None:  # noqa: ARG002
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

    def notice_tried(self, outcome: str, seconds: float) -> None:
        """One try to deliver a notice is over."""
        self._notices.labels(outcome).inc()
        self._notice_seconds.labels(outcome).observe(seconds)

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

    def render(self) -> tuple[bytes, str]:
        """The page for a scrape and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


def _confidence(event: EventRecord) -> float | None:
    """The confidence of the video that an attempt ended with; None if it ended without one."""
    error = event.data.get("error") or {}
    found = event.data.get("confidence", (error.get("detail") or {}).get("confidence"))
    return None if found is None else float(found)


RenderMetrics = Callable[[], tuple[bytes, str]]
