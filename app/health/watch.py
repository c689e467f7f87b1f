"""The one thread that looks at the service as a whole: reads resources, judges, tells, and heals what it can.

What can be healed: a worker that holds too much memory is replaced after its current job, and a disk that fills is
swept at once instead of at the janitor's next round.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

import structlog

from app.health.alarms import Alarms, Change
from app.health.resources import ResourceReader, Resources
from app.health.rules import DISK_FILLING, DISK_LOW, SCALE_OUT, WORKER_MEMORY_HIGH, Look, Rules, Thresholds
from app.vital import VitalThread

log = structlog.get_logger(__name__)

_STOP_S = 5.0
"""How long a look may hold up the end of the service."""
RETIRE_REASON = "memory over the limit"


class Surroundings(Protocol):
    """What the watch may see and do."""

    def processes(self) -> Sequence[tuple[str, int]]:
        """The slots that have a process, and its id."""

    def look(self, resources: Resources) -> Look | None:
        """The service now; None while it stops, when slots that end are no alarm. May block as long as the store."""

    def retire(self, pid: int, reason: str) -> bool:
        """Replace a worker process after its current job."""

    def sweep_soon(self) -> None:
        """Have what is past its time removed now."""


class HealthWatch:
    """Runs from `start` to `stop`. What it knows may be read from any thread."""

    def __init__(
        self,
        surroundings: Surroundings,
        reader: ResourceReader,
        thresholds: Thresholds,
        *,
        interval_s: float,
    ) -> None:
        self.alarms = Alarms()
        self.resources: Resources | None = None
        """The last reading; None before the first."""
        self._surroundings = surroundings
        self._reader = reader
        self._thresholds = thresholds
        self._rules = Rules(thresholds)
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = VitalThread(self._run, "health-watch")

    def start(self) -> None:
        """Look now and then once per interval, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. One that a driver does not answer is left behind: what runs must be settled all the same."""
        self._stop.set()
        self._thread.wind_up(_STOP_S)

    @property
    def fault(self) -> str:
        """See `Vital.fault`."""
        return self._thread.fault

    def scale_out(self) -> list[str]:
        """The alarms against which another service would help; empty where none is needed."""
        return sorted({alarm.name for alarm in self.alarms.active()} & SCALE_OUT)

    def look(self) -> None:
        """One round."""
        self.resources = resources = self._reader.read(self._surroundings.processes())
        seen = self._surroundings.look(resources)
        if seen is None:
            return
        for change in self.alarms.update(self._rules.judge(seen), resources.at):
            _tell(change)
            if change.what == "fired" and change.alarm.name in (DISK_FILLING.name, DISK_LOW.name):
                self._surroundings.sweep_soon()
        self._retire(resources, len(seen.processes))

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
            except Exception:
                log.exception("health_watch_failed")
            self._stop.wait(self._interval_s)

    def _retire(self, resources: Resources, slots: int) -> None:
        high = {alarm.subject for alarm in self.alarms.active() if alarm.name == WORKER_MEMORY_HIGH.name}
        limit = self._thresholds.worker_limit(resources.host.memory_total, slots)
        for worker in resources.workers:
            if worker.slot in high and worker.memory > limit:
                self._surroundings.retire(worker.pid, RETIRE_REASON)


def _tell(change: Change) -> None:
    alarm = change.alarm
    say = log.warning if change.what == "fired" else log.info
    say(
        f"alarm_{change.what}", alarm=alarm.name, severity=alarm.severity.value, subject=alarm.subject,
        value=alarm.value, threshold=alarm.threshold, message=alarm.message, hint=alarm.hint,
    )  # fmt: skip
