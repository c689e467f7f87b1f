"""Metrics of the notices' delivery."""

from __future__ import annotations

from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram

from app.store.deliveries import Verdict
from app.telemetry.families import buckets


class NoticeMetrics:
    """The observer of the deliverer."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._notices = Counter(
            "greenroom_webhook_deliveries_total",
            "Tries to deliver a notice, by what they led to.",
            ["outcome"],
            registry=registry,
        )
        self._notice_seconds = Histogram(
            "greenroom_webhook_duration_seconds",
            "Time of one try to deliver a notice.",
            ["outcome"],
            buckets=buckets.CALLS,
            registry=registry,
        )
        for outcome in get_args(Verdict):
            self._notices.labels(outcome)

    def notice_tried(self, outcome: str, seconds: float) -> None:
        """One try to deliver a notice is over."""
        self._notices.labels(outcome).inc()
        self._notice_seconds.labels(outcome).observe(seconds)
