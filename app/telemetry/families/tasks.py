"""Metrics of tasks and of their attempts' ends, counted from committed events; and of how well ends were foretold."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

from app.store.endings import attempt_ending, task_ending
from app.store.records import EventRecord
from app.tasks.replay import EVENT_OF
from app.tasks.status import Status
from app.telemetry.families import buckets

_QUEUED = EVENT_OF[Status.QUEUED]


class TaskMetrics:
    """What became of tasks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._finished = Counter(
            "greenroom_tasks_finished_total", "Tasks that ended, by final status.", ["status"], registry=registry
        )
        self._retries = Counter(
            "greenroom_retries_total",
            "Retries that were scheduled, by the failure and the tier it happened in; interruptions are none.",
            ["code", "tier"],
            registry=registry,
        )
        self._failovers = Counter(
            "greenroom_failovers_total",
            "Tasks that went on to another tier, by the failure and the tier that they left.",
            ["code", "tier"],
            registry=registry,
        )
        self._backoff = Histogram(
            "greenroom_retry_backoff_seconds",
            "How long tasks were told to wait before a retry.",
            buckets=buckets.BACKOFFS,
            registry=registry,
        )
        self._attempts = Histogram(
            "greenroom_attempt_duration_seconds",
            "Time of an attempt from its claim to its committed end.",
            ["tier", "outcome"],
            buckets=buckets.RENDERS,
            registry=registry,
        )
        self._confidence = Histogram(
            "greenroom_confidence",
            "How sure the quality gate is of finished videos, 0 to 1.",
            ["tier"],
            buckets=buckets.CONFIDENCES,
            registry=registry,
        )
        self._task_duration = Histogram(
            "greenroom_task_duration_seconds",
            "From when a task's waiting counts to its end.",
            ["status"],
            buckets=buckets.RENDERS,
            registry=registry,
        )
        self._queue_wait = Histogram(
            "greenroom_queue_wait_seconds",
            "How long ended tasks had waited for their first attempt.",
            buckets=buckets.WAITS,
            registry=registry,
        )
        self._eta_error = Histogram(
            "greenroom_eta_error_ratio",
            "How far off the expected end of a task was, as a share of the time that it took from then on.",
            ["told"],
            buckets=buckets.ERRORS,
            registry=registry,
        )
        for told in ("submit", "start"):
            self._eta_error.labels(told)
        self._compute = Counter(
            "greenroom_compute_seconds_total",
            "Time that attempts held a slot; kind gpu: the part of it on a CUDA device.",
            ["tier", "kind"],
            registry=registry,
        )
        self._cache = {
            "hit": Counter("greenroom_cache_hits_total", "Tasks that a cached result answered.", registry=registry),
            "miss": Counter(
                "greenroom_cache_misses_total", "Tasks that no cached result could answer.", registry=registry
            ),
            "join": Counter("greenroom_cache_joins_total", "Tasks that waited for an equal one.", registry=registry),
        }
        for status in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED):
            self._finished.labels(status.value)

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

    def eta_missed(self, told: str, ratio: float) -> None:
        """The end that was expected at `submit` or at the `start` of the attempt was off by this share."""
        self._eta_error.labels(told).observe(ratio)


def _confidence(event: EventRecord) -> float | None:
    """The confidence of the video that an attempt ended with; None if it ended without one."""
    error = event.data.get("error") or {}
    found = event.data.get("confidence", (error.get("detail") or {}).get("confidence"))
    return None if found is None else float(found)
