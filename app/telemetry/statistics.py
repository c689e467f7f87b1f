"""What became of attempts and tasks, per tier and in all, over the last minutes and since the start.

Counted from committed events alone, so that these figures, the counters on the metrics page and the rows of the store
are the same numbers. At the start the windows are filled from the rows of this node. Memory is bounded by the number of
tiers: the windows are made of slices of time, and latencies are sketches.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from app.retry.taxonomy import CALLERS_FAULT
from app.store.endings import attempt_ending, task_ending
from app.store.figures import AttemptEnding, TaskEnding
from app.store.interface import Store
from app.store.records import EventRecord
from app.telemetry.sketch import Sketch

SLICE_S = 5.0
"""A window ends now and begins with a whole slice: it is up to this much shorter than its name says."""
REBUILD_LIMIT = 100_000
"""Rows of each kind read at the start, the newest first: bounds the start of a service with a very busy last hour."""
_CUDA = "cuda"


class Window(StrEnum):
    """Over which time figures are asked for."""

    MINUTE = "1m"
    FIVE_MINUTES = "5m"
    HOUR = "1h"
    START = "start"
    """Since this process started: what the counters on the metrics page count."""


_SECONDS = {Window.MINUTE: 60.0, Window.FIVE_MINUTES: 300.0, Window.HOUR: 3600.0}
_SHARES = (0.5, 0.9, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Latency:
    """How long something took, seconds; each quantile is within 1 %. None where nothing was measured."""

    __pydantic_config__: ClassVar = {"use_attribute_docstrings": True}  # for OpenAPI

    count: int
    """How many were measured."""
    mean: float | None
    """Null, as all of these, where nothing was measured."""
    p50: float | None
    """Median."""
    p90: float | None
    """Nine of ten took no longer."""
    p95: float | None
    """95 of 100 took no longer."""
    p99: float | None
    """99 of 100 took no longer."""
    max: float | None
    """The longest."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one tier, or all of them, did in one window."""

    __pydantic_config__: ClassVar = {"use_attribute_docstrings": True}  # for OpenAPI

    attempts: dict[str, int]
    """By outcome, as in `AttemptRecord.outcome`."""
    tasks: dict[str, int]
    """By final status; of one tier: those that ended with an attempt of it."""
    failures: dict[str, int]
    """Failed attempts by the code of their failure."""
    success_rate: float | None
    """Succeeded attempts among those that succeeded or failed; None where there was neither."""
    service_success_rate: float | None
    """The same without failures that the input is to blame for: what the service or the tier itself is worth."""
    judged: int
    """How many attempts `service_success_rate` is a share of."""
    attempt_s: Latency
    """Of succeeded attempts, from claim to end."""
    task_s: Latency
    """Of succeeded tasks, from when their waiting counts to their end."""
    queue_s: Latency
    """Of ended tasks that ever started: how long they waited for their first attempt."""
    slot_s: float
    """Time that attempts held a slot."""
    gpu_s: float
    """The part of `slot_s` on a CUDA device."""


@dataclass
class _Tally:
    """One tier in one slice of time."""

    attempts: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    attempt_s: Sketch = field(default_factory=Sketch)
    task_s: Sketch = field(default_factory=Sketch)
    queue_s: Sketch = field(default_factory=Sketch)
    slot_s: float = 0.0
    gpu_s: float = 0.0

    def count_attempt(self, ending: AttemptEnding) -> None:
        spent = max(ending.ended_at - ending.started_at, 0.0)
        self.attempts[ending.outcome] += 1
        self.slot_s += spent
        if ending.device.startswith(_CUDA):
            self.gpu_s += spent
        if ending.outcome == "succeeded":
            self.attempt_s.add(spent)
        elif ending.outcome == "failed":
            self.failures[ending.code or ""] += 1

    def count_task(self, ending: TaskEnding) -> None:
        self.tasks[ending.status.value] += 1
        if ending.started_at is not None:
            self.queue_s.add(ending.started_at - ending.enqueued_at)
        if ending.status.value == "SUCCEEDED":
            self.task_s.add(ending.finished_at - ending.enqueued_at)

    def merge(self, other: _Tally) -> None:
        self.attempts.update(other.attempts)
        self.tasks.update(other.tasks)
        self.failures.update(other.failures)
        self.attempt_s.merge(other.attempt_s)
        self.task_s.merge(other.task_s)
        self.queue_s.merge(other.queue_s)
        self.slot_s += other.slot_s
        self.gpu_s += other.gpu_s

    def figures(self) -> Figures:
        good, bad = self.attempts["succeeded"], self.attempts["failed"]
        own = bad - sum(count for code, count in self.failures.items() if code in CALLERS_FAULT)
        return Figures(
            attempts=dict(self.attempts),
            tasks=dict(self.tasks),
            failures=dict(self.failures),
            success_rate=good / (good + bad) if good + bad else None,
            service_success_rate=good / (good + own) if good + own else None,
            judged=good + own,
            attempt_s=_latency(self.attempt_s),
            task_s=_latency(self.task_s),
            queue_s=_latency(self.queue_s),
            slot_s=self.slot_s,
            gpu_s=self.gpu_s,
        )


class Statistics:
    """Counts the ends of attempts and tasks. Safe to use from any thread."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives epoch seconds, as the store's."""
        self._clock = clock
        self._lock = threading.Lock()
        self._slices: dict[int, dict[str, _Tally]] = {}
        self._totals: dict[str, _Tally] = {}
        self.since = clock()
        """When this process began to count, epoch seconds."""

    def rebuild(self, store: Store, owner: str) -> None:
        """Fill the windows with what ended before this process. Call once, before events are counted.

        Raises `StoreUnavailable`.
        """
        since = self._clock() - _SECONDS[Window.HOUR]
        attempts = store.attempt_endings(owner, since=since, limit=REBUILD_LIMIT)
        tasks = store.task_endings(owner, since=since, limit=REBUILD_LIMIT)
        with self._lock:
            for attempt in attempts:
                self._in_slice(attempt.tier, attempt.ended_at).count_attempt(attempt)
            for task in tasks:
                self._in_slice(task.tier, task.finished_at).count_task(task)

    def count_events(self, events: Sequence[EventRecord]) -> None:
        """Events that this service has committed."""
        with self._lock:
            for event in events:
                if (attempt := attempt_ending(event)) is not None:
                    for tally in self._counting(attempt.tier, event.at):
                        tally.count_attempt(attempt)
                if (task := task_ending(event)) is not None:
                    for tally in self._counting(task.tier, event.at):
                        tally.count_task(task)

    def of(self, tier: str | None, window: Window) -> Figures:
        """The figures of one tier, or of all (None), over a window."""
        total = _Tally()
        with self._lock:
            for tiers in self._within(window):
                for name, tally in tiers.items():
                    if tier is None or name == tier:
                        total.merge(tally)
        return total.figures()

    def tiers(self) -> list[str]:
        """The tiers of which there is anything to tell."""
        with self._lock:
            names = set(self._totals).union(*self._within(Window.HOUR))
        return sorted(names - {""})

    def _within(self, window: Window) -> Iterable[dict[str, _Tally]]:
        if window is Window.START:
            return [self._totals]
        after = self._clock() - _SECONDS[window]
        return [tiers for index, tiers in self._slices.items() if index * SLICE_S >= after]

    def _counting(self, tier: str, at: float) -> tuple[_Tally, _Tally]:
        return self._in_slice(tier, at), self._totals.setdefault(tier, _Tally())

    def _in_slice(self, tier: str, at: float) -> _Tally:
        index = int(at // SLICE_S)
        if index not in self._slices:
            oldest = (self._clock() - _SECONDS[Window.HOUR]) // SLICE_S
            for gone in [known for known in self._slices if known < oldest]:
                del self._slices[gone]
            self._slices[index] = {}
        return self._slices[index].setdefault(tier, _Tally())


def _latency(sketch: Sketch) -> Latency:
    if not sketch.count:
        return Latency(0, None, None, None, None, None, None)
    p50, p90, p95, p99 = sketch.quantiles(_SHARES)
    return Latency(sketch.count, sketch.total / sketch.count, p50, p90, p95, p99, sketch.largest)
