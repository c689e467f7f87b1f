"""Prometheus metrics, by Prometheus' naming conventions: base units, `_total` for counters, few labels.

Gauges of the queue and the slots are read when Prometheus scrapes, so that they are never stale.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    GCCollector,
    Histogram,
    Metric,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.registry import Collector

from app.telemetry.collectors import (
    HealthCollector,
    HealthSource,
    ListenerCollector,
    ListenerSource,
    StatisticsCollector,
)
from app.telemetry.families import buckets
from app.telemetry.families.notices import NoticeMetrics
from app.telemetry.families.tasks import TaskMetrics
from app.telemetry.families.tiers import TierMetrics
from app.telemetry.families.workers import WorkerMetrics
from app.telemetry.state import StateCollector, StateSource
from app.telemetry.statistics import Statistics


class Metrics:
    """All metrics of one service, in a registry of its own; each part of the service observes with its own family."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.tasks = TaskMetrics(self.registry)
        self.workers = WorkerMetrics(self.registry)
        self.tiers = TierMetrics(self.registry)
        self.notices = NoticeMetrics(self.registry)
        self._http = Histogram(
            "greenroom_http_request_duration_seconds",
            "Time from the first byte of a request to the last of its answer.",
            ["method", "route", "status"],
            buckets=buckets.CALLS,
            registry=self.registry,
        )

    def watch(self, source: StateSource) -> None:
        """Add the gauges of queue and slots."""
        self.registry.register(StateCollector(source))

    def watch_health(self, source: HealthSource) -> None:
        """Add resources and alarms."""
        self.registry.register(HealthCollector(source))

    def watch_statistics(self, source: Statistics) -> None:
        """Add the success rates."""
        self.registry.register(StatisticsCollector(source))

    def watch_listeners(self, source: ListenerSource) -> None:
        """Add the event streams."""
        self.registry.register(ListenerCollector(source))

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One finished HTTP request."""
        self._http.labels(method, route, str(status)).observe(seconds)

    def render(self) -> tuple[bytes, str]:
        """The page for a scrape and its content type."""
        return generate_latest(_WithoutBirthdays(self.registry)), CONTENT_TYPE_LATEST


class _WithoutBirthdays(Collector):
    """All families of a registry without the `_created` series of the client library, a gauge for every counter and
    histogram: in this format Prometheus has no use for them, and they were a fifth of the page.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family
