"""The local pool: makes slot processes on this machine and keeps them ready.

One slot per visible CUDA device, or CPU slots where there is none. A slot is a place that outlives its processes;
when one dies, the pool puts a new one there. One supervisor thread starts and reaps, so that the kernel's
parent-death signal, which follows the thread that made a process, means the death of the service.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path

import structlog

from app.health.gpu import holds_memory
from app.retry.taxonomy import Failure
from app.tiers.tiers import DEVICES
from app.vital import VitalThread
from app.worker import wire
from app.worker.bell import Bell
from app.worker.launch import CHILD, Served
from app.worker.slot_lifecycle import RECONFIGURED, PoolObserver, SlotLifecycle
from app.worker.slot_process import OutputSink
from app.worker.slots import Slot, SlotPlan, SlotState

log = structlog.get_logger(__name__)

_IDLE_STOP_S = 3.0
"""An idle process asked to leave needs only its interpreter's exit."""
_ROUND_S = 45.0
"""How long a round of the supervisor may take when the pool stops: ending a process that does not die takes half."""
_FAULT_PAUSE_S = 1.0
"""Pause of a supervisor whose round raised."""


def _can_start(slot: Slot) -> bool:
    """Whether a slot could start a task now; its process may yet turn out to be dead."""
    return slot.state is SlotState.IDLE and not slot.retiring and not slot.leaving


class LocalPool:
    """Slots on this machine."""

    def __init__(
        self,
        plans: Sequence[SlotPlan],
        *,
        serves: Mapping[str, Sequence[Served]],
        run_dir: Path,
        owner: str,
        start_timeout_s: float,
        sink: OutputSink,
        observer: PoolObserver,
        spares: Mapping[SlotPlan, int] | None = None,
        holds_gpu_memory: Callable[[str, int], bool] = holds_memory,
        log_level: str = "info",
        module: str = CHILD,
    ) -> None:
        """`serves`: by group of slots, the tiers that its processes serve; the first is loaded at the start.

        `owner`: the node.
        `spares`: how many loaded processes stand by for slots of the same group, device and threads as that plan.
        `module`: what the processes run.
        """
        self._slots = [Slot(plan) for plan in plans]
        self._spares = [
            Slot(replace(plan, name=f"spare-{plan.name}-{index}"))
            for plan, count in (spares or {}).items()
            for index in range(count)
        ]
        self._lifecycle = SlotLifecycle(
            serves,
            run_dir=run_dir,
            owner=owner,
            start_timeout_s=start_timeout_s,
            sink=sink,
            observer=observer,
            on_idle=self._became_idle,
            holds_gpu_memory=holds_gpu_memory,
            log_level=log_level,
            module=module,
        )
        self._condition = threading.Condition()
        self._bell = Bell()
        self._stopping = False
        self._on_idle: Callable[[], None] = lambda: None
        self._thread = VitalThread(self._supervise, "pool")

    # -- for the dispatcher ---------------------------------------------------------------------------------------

    def start(self, on_idle: Callable[[], None]) -> None:
        """Start the processes; `on_idle` is called (from any thread) whenever a slot becomes idle."""
        self._on_idle = on_idle
        self._thread.start()

    @property
    def fault(self) -> str:
        """See `Vital.fault`."""
        return self._thread.fault

    def acquire(self, group: str = DEVICES) -> Slot | None:
        """An idle slot of a group, now the caller's, or None."""
        with self._condition:
            for slot in self._slots:
                if slot.plan.group == group and _can_start(slot) and slot.process and slot.process.is_alive():
                    slot.state = SlotState.BUSY
                    return slot
        return None

    def any_idle(self) -> bool:
        """Whether some slot could start a task now."""
        with self._condition:
            return any(_can_start(slot) for slot in self._slots)

    def group_size(self, group: str) -> tuple[int, int, int]:
        """Of a group: slots that could start a task now, slots that work or soon will, all slots."""
        with self._condition:
            slots = [slot for slot in self._slots if slot.plan.group == group and not slot.retiring]
        free = sum(_can_start(slot) for slot in slots)
        return free, sum(slot.state is not SlotState.QUARANTINED for slot in slots), len(slots)

    def reconfigure(self, plans: Sequence[SlotPlan], serves: Mapping[str, Sequence[Served]]) -> None:
        """Have these slots and tiers from now on. A task that runs ends where it runs.

        A slot that stays, and whose group serves the same as before, keeps its process.
        """
        with self._condition:
            now = {group: tuple(served) for group, served in serves.items()}
            before, self._lifecycle.serves = self._lifecycle.serves, now
            changed = {group for group in now | before if now.get(group) != before.get(group)}
            wanted = {plan.name: plan for plan in plans}
            for slot in [*self._slots, *self._spares]:
                is_spare = slot in self._spares
                gone = not is_spare and wanted.get(slot.name) != slot.plan
                if gone or slot.plan.group in changed:
                    slot.retiring, slot.leaving = RECONFIGURED, gone
            staying = {slot.name for slot in self._slots if not slot.leaving}
            self._slots += [Slot(plan) for plan in plans if plan.name not in staying]
        self._bell.ring()

    def release(self, slot: Slot, *, task_id: str, failure: Failure | None, poisoned: str = "") -> None:
        """Give a slot back after an attempt of `task_id` that ended with `failure` (None: it served).

        A slot whose process is `poisoned` (the reason), or dead, gets a new one; one whose device is suspect by now
        is quarantined.
        """
        with self._condition:
            self._lifecycle.job_ended(slot, task_id, failure, poisoned)
        if slot.state is SlotState.IDLE:
            self._on_idle()
        self._bell.ring()

    def put_back(self, slot: Slot) -> None:
        """Return an acquired slot that was not used after all; nobody is told."""
        with self._condition:
            slot.state = SlotState.IDLE
        self._bell.ring()

    def retire(self, pid: int, reason: str) -> bool:
        """Replace a process that works but should not go on, after its current job; False if it is gone already."""
        with self._condition:
            slot = next((s for s in self._slots if s.process is not None and s.process.pid == pid), None)
            if slot is None or slot.state not in (SlotState.IDLE, SlotState.BUSY):
                return False
            if not slot.retiring:
                log.warning("worker_retires", slot=slot.name, pid=pid, reason=reason, busy=slot.state is SlotState.BUSY)
            slot.retiring = reason
            if slot.state is SlotState.IDLE:
                self._lifecycle.replace(slot, reason)
        self._bell.ring()
        return True

    def slots(self) -> list[Slot]:
        """All slots, for views."""
        with self._condition:
            return list(self._slots)

    def spare_pids(self) -> list[int]:
        """The processes that stand by, loaded."""
        with self._condition:
            return [s.process.pid for s in self._spares if s.state is SlotState.IDLE and s.process is not None]

    def ready_count(self) -> int:
        """How many slots have a process that can take work or does."""
        with self._condition:
            return sum(slot.state in (SlotState.IDLE, SlotState.BUSY) for slot in self._slots)

    def stop(self) -> None:
        """Stop all processes and the supervisor. Busy slots are killed: their attempts must have been ended before."""
        with self._condition:
            if self._stopping:
                return
            self._stopping = True
        self._bell.ring()
        self._thread.wind_up(_ROUND_S)
        everything = [*self._slots, *self._spares]
        for slot in everything:
            if slot.process is not None:
                slot.process.send(wire.Stop())
        for slot in everything:
            if slot.process is not None:
                slot.process.stop(_IDLE_STOP_S)
                slot.process.dispose()
                slot.process = None
            slot.state = SlotState.STOPPED
        self._bell.close()

    # -- the supervisor ---------------------------------------------------------------------------------------------

    def _became_idle(self, slot: Slot) -> None:
        if slot not in self._spares:
            self._on_idle()

    def _supervise(self) -> None:
        going = True
        while going:
            try:
                going = self._round()
            except Exception:
                # With this thread all its processes would die, and none would follow.
                log.exception("pool_error")
                wait([self._bell.handle], _FAULT_PAUSE_S)

    def _round(self) -> bool:
        """Move all slots on and wait for something to do; False once the pool stops."""
        with self._condition:
            if self._stopping:
                return False
            now = time.monotonic()
            self._slots = [slot for slot in self._slots if not self._lifecycle.has_left(slot)]
            for slot in self._slots:
                self._advance(slot, now, self._spares)
            if self._spares_may_start():
                for spare in self._wanted_spares():
                    self._advance(spare, now, ())
            unclean = [s for s in (*self._slots, *self._spares) if self._lifecycle.is_unclean(s) and s.clear_at <= now]
            watched, timeout = self._watched(now)
        for slot in unclean:
            self._clear(slot)
        ready = [] if unclean else wait(watched, timeout)
        if self._bell.handle in ready:
            self._bell.silence()
        return True

    def _advance(self, slot: Slot, now: float, spares: Sequence[Slot]) -> None:
        try:
            self._lifecycle.advance(slot, now, spares)
        except Exception as error:  # noqa: BLE001 - one slot's fault must not keep the others waiting
            self._lifecycle.faulted(slot, error)

    def _clear(self, slot: Slot) -> None:
        """End the process that a slot is done with, and see whether its device is free.

        Without the condition: a wedged device holds its process, and its driver whoever asks, for as long as it likes.
        Nobody else touches a process that is done with.
        """
        process = slot.process
        pid = slot.ghost_pid if process is None else process.pid
        assert pid is not None
        try:
            if process is not None:
                process.kill()
                process.dispose()
            held = self._lifecycle.is_held(slot, pid)
        except Exception as error:  # noqa: BLE001 - as above
            with self._condition:
                self._lifecycle.faulted(slot, error)
            return
        with self._condition:
            self._lifecycle.cleared(slot, pid, held=held)

    def _wanted_spares(self) -> list[Slot]:
        """The spares of groups that serve some tier, and what is left of others."""
        serves = self._lifecycle.serves
        return [spare for spare in self._spares if spare.plan.group in serves or spare.process is not None]

    def _spares_may_start(self) -> bool:
        """A spare is loaded when every slot has its process: it must not take their time to start."""
        return all(slot.state is not SlotState.STARTING for slot in self._slots)

    def _watched(self, now: float) -> tuple[list[int], float]:
        """File descriptors that tell of a change, and seconds until the next timed one."""
        watched: list[int] = [self._bell.handle]
        due = [now + 60.0]
        spares = self._wanted_spares() if self._spares_may_start() else []
        for slot in (*self._slots, *spares):
            if self._lifecycle.is_unclean(slot):
                due.append(slot.clear_at)
            elif slot.process is None:
                due.append(slot.start_at)
            elif slot.state is SlotState.STARTING:
                watched += [slot.process.sentinel, slot.process.events.fileno()]
                due.append(slot.started_at + self._lifecycle.start_timeout_s)
            elif slot.state is SlotState.IDLE:
                watched.append(slot.process.sentinel)
        return watched, max(0.0, min(due) - now)
