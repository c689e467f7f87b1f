"""Gauges of the queue, the slots, the judges' line and the disk, read when Prometheus scrapes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Protocol

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.store.deliveries import OutboxStats
from app.store.errors import StoreUnavailable
from app.store.figures import CacheStats, QueueStats
from app.tasks.status import Status


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


class StateCollector(Collector):
    """The state of the service now."""

    def __init__(self, source: StateSource) -> None:
        self._source = source

    def collect(self) -> Iterable[Metric]:
        """The metrics now."""
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
