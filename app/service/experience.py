"""What this service learned from attempts that succeeded, and how far off the ends were that it had foretold."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, Protocol

from app.forecast.durations import Durations, Expected, Work, work_of
from app.store.figures import RenderedWork, WorkInputs

_KNOWN_MOST, _TEMPLATES_MOST, _TOLD_MOST = 4000, 10_000, 10_000


class ForecastObserver(Protocol):
    """What the forecasts tell the telemetry."""

    def eta_missed(self, told: str, ratio: float) -> None:
        """The end that was expected was off by this share of the time it took. `told`: at `submit` or at `start`."""


class Experience:
    """Learns each attempt once, however often it is shown. Safe to use from any thread."""

    def __init__(self, observer: ForecastObserver) -> None:
        self._observer = observer
        self._lock = threading.Lock()
        self._durations = Durations()
        self._templates: OrderedDict[str, None] = OrderedDict()
        self._known: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._told: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """When an end was foretold at first, and for when."""

    def learn(self, rendered: RenderedWork, *, observed: bool) -> None:
        """Take an attempt in; `observed`: compare it with what was expected."""
        name = rendered.task_id, rendered.attempt
        with self._lock:
            if name in self._known:
                return
            _keep(self._known, name, None, _KNOWN_MOST)
            seen = rendered.facts.get("analysis_cached", rendered.inputs.source_sha256 in self._templates)
            _keep(self._templates, rendered.inputs.source_sha256, None, _TEMPLATES_MOST)
        work = _work(rendered.tier, rendered.inputs, seen=bool(seen))
        took = max(rendered.ended_at - rendered.started_at, 1e-3)
        if observed:
            self._compare(rendered, took, self._durations.expect(work))
        last_frame_at = rendered.facts.get("last_frame_at")
        self._durations.learn(work, took, rendered.ended_at - last_frame_at if last_frame_at else None)

    def _compare(self, rendered: RenderedWork, took: float, expected: Expected | None) -> None:
        if expected is not None:
            self._observer.eta_missed("start", abs(expected.took.mid - took) / took)
        with self._lock:
            told = self._told.pop(rendered.task_id, None)
        if told is not None:
            at, eta_s = told
            lasted = max(rendered.ended_at - at, 1e-3)
            self._observer.eta_missed("submit", abs(eta_s - lasted) / lasted)

    def expect(self, tier: str, of: WorkInputs) -> Expected | None:
        """What is expected of an attempt on a tier; None where none of that tier ever succeeded."""
        with self._lock:
            seen = of.source_sha256 in self._templates
        return self._durations.expect(_work(tier, of, seen=seen))

    def told(self, task_id: str, at: float, eta_s: float) -> None:
        """A caller was told at `at` (epoch seconds) that a task ends in `eta_s`. The first word counts."""
        with self._lock:
            if task_id not in self._told:
                _keep(self._told, task_id, (at, eta_s), _TOLD_MOST)


def _work(tier: str, of: WorkInputs, *, seen: bool) -> Work:
    return work_of(tier, source=of.source, audio=of.audio, options=of.options, seen=seen)


def _keep(memory: OrderedDict[Any, Any], name: Any, value: Any, most: int) -> None:
    memory[name] = value
    memory.move_to_end(name)
    while len(memory) > most:
        memory.popitem(last=False)
