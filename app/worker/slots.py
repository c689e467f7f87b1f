"""Slots as places: where one lives, what it is doing, and what speaks against its device.

A slot outlives its processes; when one dies, the pool puts a new one there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum

from app.health.suspicion import Suspicion
from app.retry.taxonomy import Failure
from app.tiers.tiers import DEVICES
from app.worker import wire
from app.worker.slot_process import SlotProcess


class SlotState(StrEnum):
    """What a slot is doing."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    DOWN = "down"
    """Its process ended; a new one follows."""
    QUARANTINED = "quarantined"
    """Its device is suspect: it is tried again later, with a real render, before it takes a task."""
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class SlotPlan:
    """Where a slot lives: its name, its device and the threads that it may use."""

    name: str
    device: str
    cuda_visible_devices: str | None
    threads: int
    group: str = DEVICES
    """Which tiers it serves: those of the devices, or the one light tier of that name."""

    @property
    def kind(self) -> tuple[str, str, str | None, int]:
        """What a process must match to serve in this slot."""
        return self.group, self.device, self.cuda_visible_devices, self.threads


class Slot:
    """A place for one process. Its fields are guarded by the pool's condition."""

    def __init__(self, plan: SlotPlan) -> None:
        self.plan = plan
        self._state = SlotState.STARTING
        self.since = time.time()
        self.process: SlotProcess | None = None
        self.ready: wire.Ready | None = None
        self.failures = 0
        """Failed starts in a row."""
        self.start_at = 0.0
        """When the next process may start, monotonic seconds."""
        self.started_at = 0.0
        self.last_failure: Failure | None = None
        self.generation = 0
        self.ghost_pid: int | None = None
        """The last process, until its device is seen to be free of it."""
        self.clear_at = 0.0
        """When its last process is next seen to, monotonic seconds: ended, or its device asked whether it is free."""
        self.suspicion = Suspicion()
        self.device_held = False
        """`ghost_pid` was seen to hold memory of the device."""
        self.restarts = 0
        """Processes that were replaced, less those that only yielded too late to a cancel, a deadline or a shutdown."""
        self.retiring = ""
        """Why its process is to be replaced once its current job is done; empty: it is not."""
        self.leaving = False
        """It is no longer configured: it goes when its task has ended."""

    @property
    def state(self) -> SlotState:
        """What the slot is doing, since `since` (epoch seconds)."""
        return self._state

    @state.setter
    def state(self, state: SlotState) -> None:
        self._state = state
        self.since = time.time()

    @property
    def name(self) -> str:
        """The slot's name, e.g. `cpu-0`."""
        return self.plan.name
