"""When a device is to blame: the pure bookkeeping behind quarantine.

A process that dies may be the task's fault or the device's. A device is suspect when it reports itself lost, or when
the processes of two different tasks broke on it with no success between: one bad task alone cannot take a device down.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from app.retry.taxonomy import FAILURE_TABLE, FailureCode

TASKS_TO_SUSPECT = 2
"""Different tasks whose processes broke on one device (DESIGN section 7: "after 2 on one device")."""
BLAMED = frozenset({FailureCode.WORKER_CRASHED, FailureCode.WORKER_UNRESPONSIVE, FailureCode.WORKER_STALLED})
FIRST_S = 5.0
LONGEST_S = 300.0


@dataclass
class Suspicion:
    """What speaks against one device."""

    tasks: set[str] = field(default_factory=set)
    quarantines: int = 0
    """In a row, without a success between."""

    def broke(self, code: FailureCode, task_id: str) -> bool:
        """Count a failure of a process on this device; True when the device is to be quarantined."""
        if FAILURE_TABLE[code].device_suspect:
            return True
        if code in BLAMED:
            self.tasks.add(task_id)
        return len(self.tasks) >= TASKS_TO_SUSPECT

    def served(self) -> None:
        """An attempt on this device came to a proper end."""
        self.tasks.clear()
        self.quarantines = 0

    def quarantine(self) -> float:
        """Begin a quarantine; how long it lasts, seconds: doubling from `FIRST_S` to `LONGEST_S`."""
        self.tasks.clear()
        self.quarantines += 1
        return float(min(FIRST_S * 2 ** (self.quarantines - 1), LONGEST_S))
