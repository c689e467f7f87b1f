"""The local pool: makes slot processes on this machine and keeps them ready.

One slot per visible CUDA device, or CPU slots where there is none. A slot is a place that outlives its processes;
when one dies, the pool puts a new one there. One supervisor thread starts and reaps, so that the kernel's
parent-death signal, which follows the thread that made a process, means the death of the service.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from app.health.gpu import holds_memory
from app.retry.classifier import classify_exit, name_exit
from app.retry.taxonomy import Failure, FailureCode
from app.tiers.tiers import DEVICES
from app.worker import wire
from app.worker.launch import CHILD, ChildSpec, Served
from app.worker.slot import OutputSink, SlotProcess
from app.worker.slots import Slot, SlotPlan, SlotState

log = structlog.get_logger(__name__)

_START_BACKOFF_S = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 60.0)
"""Waits before a slot's next start after that many failed ones in a row."""
_YIELDED = frozenset({FailureCode.CANCELLED, FailureCode.INTERRUPTED, FailureCode.DEADLINE_EXCEEDED})
"""Ends to which a healthy process yields: its device works."""
RECONFIGURED = "its tiers have changed"
_EXPECTED = frozenset({RECONFIGURED, *_YIELDED})
"""Reasons to replace a process that say nothing against the slot."""
_GHOST_CHECK_S = 1.0
"""How often a device whose dead process still holds memory is looked at."""
_IDLE_STOP_S = 3.0
"""An idle process asked to leave needs only its interpreter's exit."""


class PoolObserver(Protocol):
    """What the pool tells the telemetry."""

    def worker_restarted(self, slot: str, reason: str) -> None:
        """A slot's process was replaced."""


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
        self._serves = {group: tuple(served) for group, served in serves.items()}
        self._run_dir = run_dir
        self._owner = owner
        self._start_timeout_s = start_timeout_s
        self._sink = sink
        self._observer = observer
        self._log_level = log_level
        self._module = module
        self._holds_gpu_memory = holds_gpu_memory
        self._condition = threading.Condition()
        self._wake_reader, self._wake_writer = os.pipe()
        self._stopping = False
        self._on_idle: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._supervise, name="pool", daemon=True)

    # -- for the dispatcher ---------------------------------------------------------------------------------------

    def start(self, on_idle: Callable[[], None]) -> None:
        """Start the processes; `on_idle` is called (from any thread) whenever a slot becomes idle."""
        self._on_idle = on_idle
        self._thread.start()

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
            changed = {group for group in now | self._serves if now.get(group) != self._serves.get(group)}
            self._serves = now
            wanted = {plan.name: plan for plan in plans}
            for slot in [*self._slots, *self._spares]:
                is_spare = slot in self._spares
                gone = not is_spare and wanted.get(slot.name) != slot.plan
                if gone or slot.plan.group in changed:
                    slot.retiring, slot.leaving = RECONFIGURED, gone
            staying = {slot.name for slot in self._slots if not slot.leaving}
            self._slots += [Slot(plan) for plan in plans if plan.name not in staying]
        self._wake()

    def release(self, slot: Slot, *, task_id: str, failure: Failure | None, poisoned: str = "") -> None:
        """Give a slot back after an attempt of `task_id` that ended with `failure` (None: it served).

        A slot whose process is `poisoned` (the reason), or dead, gets a new one; one whose device is suspect by now
        is quarantined.
        """
        with self._condition:
            process = slot.process
            if failure is None or (failure.code in _YIELDED and not poisoned):
                slot.suspicion.served()
            ended = poisoned or slot.retiring
            if not ended and process is not None and process.is_alive():
                slot.state = SlotState.IDLE
            else:
                self._replace(slot, ended or "died")
                has_device = slot.plan.group == DEVICES
                if failure is not None and has_device and slot.suspicion.broke(failure.code, task_id):
                    self._quarantine(slot, failure)
        if slot.state is SlotState.IDLE:
            self._on_idle()
        self._wake()

    def _quarantine(self, slot: Slot, failure: Failure) -> None:
        seconds = slot.suspicion.quarantine()
        slot.state = SlotState.QUARANTINED
        slot.last_failure = failure
        slot.start_at = time.monotonic() + seconds
        log.error("device_quarantined", slot=slot.name, device=slot.plan.device, code=failure.code, seconds=seconds)

    def put_back(self, slot: Slot) -> None:
        """Return an acquired slot that was not used after all; nobody is told."""
        with self._condition:
            slot.state = SlotState.IDLE
        self._wake()

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
                self._replace(slot, reason)
        self._wake()
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
        self._wake()
        if self._thread.is_alive():
            self._thread.join()
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
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    # -- the supervisor ---------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        os.write(self._wake_writer, b"x")

    def _replace(self, slot: Slot, reason: str) -> None:
        """Hand the slot's process to the supervisor for removal. Caller holds the condition."""
        slot.state = SlotState.DOWN
        slot.ready = None
        slot.retiring = ""
        slot.restarts += reason not in _EXPECTED
        self._observer.worker_restarted(slot.name, reason)

    def _supervise(self) -> None:
        while True:
            with self._condition:
                if self._stopping:
                    return
                now = time.monotonic()
                self._slots = [slot for slot in self._slots if not self._has_left(slot)]
                for slot in self._slots:
                    self._advance(slot, now)
                if self._spares_may_start():
                    for spare in self._wanted_spares():
                        self._advance(spare, now)
                watched, timeout = self._watched(now)
            ready = wait(watched, timeout)
            if self._wake_reader in ready:
                os.read(self._wake_reader, 4096)

    def _has_left(self, slot: Slot) -> bool:
        """Whether a slot that is no longer configured has no process any more. Caller holds the condition."""
        if not slot.leaving or slot.state is SlotState.BUSY:
            return False
        if slot.process is not None:
            slot.process.kill()
            slot.process.dispose()
            slot.process = None
        slot.state = SlotState.STOPPED
        return True

    def _wanted_spares(self) -> list[Slot]:
        """The spares of groups that serve some tier, and what is left of others."""
        return [spare for spare in self._spares if spare.plan.group in self._serves or spare.process is not None]

    def _spares_may_start(self) -> bool:
        """A spare is loaded when every slot has its process: it must not take their time to start."""
        return all(slot.state is not SlotState.STARTING for slot in self._slots)

    def _watched(self, now: float) -> tuple[list[int], float]:
        """File descriptors that tell of a change, and seconds until the next timed one."""
        watched: list[int] = [self._wake_reader]
        due = [now + 60.0]
        spares = self._wanted_spares() if self._spares_may_start() else []
        for slot in (*self._slots, *spares):
            if slot.process is None:
                due.append(slot.start_at)
            elif slot.state is SlotState.STARTING:
                watched += [slot.process.sentinel, slot.process.events.fileno()]
                due.append(slot.started_at + self._start_timeout_s)
            elif slot.state is SlotState.IDLE:
                watched.append(slot.process.sentinel)
        return watched, max(0.0, min(due) - now)

    def _advance(self, slot: Slot, now: float) -> None:
        """Move one slot on. Caller holds the condition; only a killed process is waited for, and that briefly."""
        if slot.retiring and slot.state in (SlotState.STARTING, SlotState.IDLE):
            self._replace(slot, slot.retiring)
        process = slot.process
        if slot.state in (SlotState.DOWN, SlotState.QUARANTINED) and process is not None:
            slot.ghost_pid = process.pid
            process.kill()
            process.dispose()
            slot.process = None
        elif slot.state is SlotState.STARTING and process is not None:
            self._await_ready(slot, process, now)
        elif slot.state is SlotState.IDLE and process is not None and not process.is_alive():
            log.warning("idle_worker_died", slot=slot.name, how=name_exit(process.exitcode))
            self._replace(slot, "died idle")
            self._advance(slot, now)
        served = slot.plan.group in self._serves
        if served and slot.process is None and now >= slot.start_at and not self._is_haunted(slot, now):
            if slot.state is SlotState.DOWN:
                self._adopt_spare(slot)
            if slot.process is None:
                self._start(slot, now)

    def _is_haunted(self, slot: Slot, now: float) -> bool:
        """Whether the dead process still holds memory of the GPU: then the device waits in quarantine."""
        device = slot.plan.cuda_visible_devices
        if not device or slot.ghost_pid is None or not self._holds_gpu_memory(device, slot.ghost_pid):
            slot.ghost_pid = None
            slot.device_held = False
            return False
        slot.device_held = True
        if slot.state is not SlotState.QUARANTINED:
            log.error("gpu_memory_not_returned", slot=slot.name, device=device, pid=slot.ghost_pid)
            slot.state = SlotState.QUARANTINED
        slot.start_at = now + _GHOST_CHECK_S
        return True

    def _adopt_spare(self, slot: Slot) -> None:
        """Put a loaded spare process in the slot's place: milliseconds, where a new process takes a model load."""
        for spare in self._spares:
            process = spare.process
            same = slot.plan.kind == spare.plan.kind
            if same and spare.state is SlotState.IDLE and process is not None and process.is_alive():
                process.slot = slot.name
                slot.process, slot.ready, slot.last_failure, slot.failures = process, spare.ready, None, 0
                spare.process, spare.ready, spare.state = None, None, SlotState.STARTING
                slot.state = SlotState.IDLE
                log.info("spare_took_over", slot=slot.name, pid=process.pid)
                self._on_idle()
                return

    def _start(self, slot: Slot, now: float) -> None:
        slot.generation += 1
        spec = ChildSpec(
            slot=slot.name,
            serves=self._serves.get(slot.plan.group, ()),
            device=slot.plan.device,
            cuda_visible_devices=slot.plan.cuda_visible_devices,
            threads=slot.plan.threads,
            stack_file=str(self._run_dir / f"{slot.name}-{slot.generation}.stacks"),
            log_level=self._log_level,
        )
        slot.started_at = now
        slot.state = SlotState.STARTING
        try:
            slot.process = SlotProcess(spec, self._sink, self._owner, module=self._module)
        except OSError as error:
            self._start_failed(
                slot, now, Failure(FailureCode.WORKER_START_FAILED, f"No process could be made: {error}")
            )
            return
        log.info("worker_started", slot=slot.name, pid=slot.process.pid, generation=slot.generation)

    def _await_ready(self, slot: Slot, process: SlotProcess, now: float) -> None:
        try:
            event = process.receive(0)
        except msgspec.DecodeError as error:
            message = f"A worker process sent a broken message at its start: {error}"
            self._start_failed(slot, now, Failure(FailureCode.WORKER_START_FAILED, message))
            return
        if isinstance(event, wire.Ready):
            slot.ready, slot.failures, slot.last_failure = event, 0, None
            slot.state = SlotState.IDLE
            log.info(
                "worker_ready", slot=slot.name, device=event.device, load_s=round(event.load_s, 2), **event.versions
            )
            if slot in self._slots:
                self._on_idle()
        elif isinstance(event, wire.StartFailed):
            self._start_failed(slot, now, Failure(FailureCode(event.code), event.message, event.hint, event.detail))
        elif not process.is_alive():
            died = classify_exit(process.exitcode, process.last_words())
            message = f"A worker process {name_exit(process.exitcode)} before it was ready."
            self._start_failed(slot, now, Failure(FailureCode.WORKER_START_FAILED, message, detail=died.detail))
        elif now - slot.started_at >= self._start_timeout_s:
            message = f"A worker process was not ready within {self._start_timeout_s:g} s."
            detail = {"stacks": process.stacks(), "last_words": process.last_words()}
            self._start_failed(slot, now, Failure(FailureCode.WORKER_START_FAILED, message, detail=detail))

    def _start_failed(self, slot: Slot, now: float, failure: Failure) -> None:
        slot.last_failure = failure
        slot.failures += 1
        wait_s = _START_BACKOFF_S[min(slot.failures, len(_START_BACKOFF_S) - 1)]
        slot.start_at = now + wait_s
        log.error(
            "worker_start_failed", slot=slot.name, code=failure.code, message=failure.message, hint=failure.hint,
            next_start_s=wait_s, detail=failure.detail,
        )  # fmt: skip
        self._replace(slot, "start failed")
        slot.state = SlotState.QUARANTINED
        if slot.process is not None:
            self._advance(slot, now)
