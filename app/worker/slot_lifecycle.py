"""The life of one slot on this machine, step by step: a process started, proven ready, replaced; a device that waits.

`LocalPool` owns the slots and calls every method with its condition held, which guards them; but for `is_held`, which
asks a driver and may take its time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from app.retry.classifier import classify_exit, name_exit
from app.retry.taxonomy import Failure, FailureCode
from app.tiers.tiers import DEVICES
from app.worker import wire
from app.worker.launch import ChildSpec, Served
from app.worker.slot_process import OutputSink, SlotProcess
from app.worker.slots import Slot, SlotState

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
_FAULT_PAUSE_S = 1.0
"""Pause after a step that raised, so that what stays broken does not keep a core busy."""


class PoolObserver(Protocol):
    """What the pool tells the telemetry."""

    def worker_restarted(self, slot: str, reason: str) -> None:
        """A slot's process was replaced."""


class SlotLifecycle:
    """What becomes of slots. What has to be waited for, the end of a process and its device, is the pool's."""

    def __init__(
        self,
        serves: Mapping[str, Sequence[Served]],
        *,
        run_dir: Path,
        owner: str,
        start_timeout_s: float,
        sink: OutputSink,
        observer: PoolObserver,
        on_idle: Callable[[Slot], None],
        holds_gpu_memory: Callable[[str, int], bool],
        log_level: str,
        module: str,
    ) -> None:
        """See `LocalPool`; `on_idle` is told of a slot that has just got a process that can work."""
        self.serves = {group: tuple(served) for group, served in serves.items()}
        self.start_timeout_s = start_timeout_s
        self._run_dir = run_dir
        self._owner = owner
        self._sink = sink
        self._observer = observer
        self._on_idle = on_idle
        self._holds_gpu_memory = holds_gpu_memory
        self._log_level = log_level
        self._module = module

    def advance(self, slot: Slot, now: float, spares: Sequence[Slot] = ()) -> None:
        """Move one slot on, at `now` (monotonic seconds). One of `spares` may take a dead process's place."""
        if slot.retiring and slot.state in (SlotState.STARTING, SlotState.IDLE):
            self.replace(slot, slot.retiring)
        process = slot.process
        if slot.leaving or self.is_unclean(slot):
            return
        if slot.state is SlotState.STARTING and process is not None:
            self._await_ready(slot, process, now)
        elif slot.state is SlotState.IDLE and process is not None and not process.is_alive():
            log.warning("idle_worker_died", slot=slot.name, how=name_exit(process.exitcode))
            self.replace(slot, "died idle")
        elif process is None and slot.plan.group in self.serves and now >= slot.start_at:
            if slot.state is SlotState.DOWN:
                self._adopt_spare(slot, spares)
            if slot.process is None:
                self._start(slot, now)

    def is_unclean(self, slot: Slot) -> bool:
        """Whether a process that is done with, or what its device still holds of one, is in the way of the next."""
        if slot.process is None:
            return slot.ghost_pid is not None
        done_with = slot.state in (SlotState.DOWN, SlotState.QUARANTINED)
        return done_with or (slot.leaving and slot.state is not SlotState.BUSY)

    def is_held(self, slot: Slot, pid: int) -> bool:
        """Whether process `pid`, which is dead, still holds memory of the slot's GPU."""
        device = slot.plan.cuda_visible_devices
        return False if not device else self._holds_gpu_memory(device, pid)

    def cleared(self, slot: Slot, pid: int, *, held: bool) -> None:
        """The slot's process `pid` is gone. While its device is `held` by it, the device waits in quarantine."""
        slot.process = None
        slot.device_held = held
        slot.ghost_pid = pid if held else None
        if held:
            slot.clear_at = time.monotonic() + _GHOST_CHECK_S
            if slot.state is not SlotState.QUARANTINED:
                device = slot.plan.cuda_visible_devices
                log.error("gpu_memory_not_returned", slot=slot.name, device=device, pid=pid)
                slot.state = SlotState.QUARANTINED

    def faulted(self, slot: Slot, error: Exception) -> None:
        """A step of the slot raised what no step should: it is told, and tried again in a moment."""
        log.error("slot_error", slot=slot.name, error=repr(error), exc_info=error)
        slot.last_failure = Failure(
            FailureCode.INTERNAL, f"The slot {slot.name} could not be looked after: {error!r}. It is tried again."
        )
        slot.start_at = slot.clear_at = time.monotonic() + _FAULT_PAUSE_S

    def job_ended(self, slot: Slot, task_id: str, failure: Failure | None, poisoned: str) -> None:
        """A slot's process has done with an attempt; see `LocalPool.release`."""
        process = slot.process
        if failure is None or (failure.code in _YIELDED and not poisoned):
            slot.suspicion.served()
        ended = poisoned or slot.retiring
        if not ended and process is not None and process.is_alive():
            slot.state = SlotState.IDLE
        else:
            self.replace(slot, ended or "died")
            has_device = slot.plan.group == DEVICES
            if failure is not None and has_device and slot.suspicion.broke(failure.code, task_id):
                self._quarantine(slot, failure)

    def replace(self, slot: Slot, reason: str) -> None:
        """Have the slot's process removed at its next step, and another take its place."""
        slot.state = SlotState.DOWN
        slot.ready = None
        slot.retiring = ""
        slot.restarts += reason not in _EXPECTED
        self._observer.worker_restarted(slot.name, reason)

    def _quarantine(self, slot: Slot, failure: Failure) -> None:
        seconds = slot.suspicion.quarantine()
        slot.state = SlotState.QUARANTINED
        slot.last_failure = failure
        slot.start_at = time.monotonic() + seconds
        log.error("device_quarantined", slot=slot.name, device=slot.plan.device, code=failure.code, seconds=seconds)

    def has_left(self, slot: Slot) -> bool:
        """Whether a slot that is no longer configured is free and has no process any more."""
        if not slot.leaving or slot.state is SlotState.BUSY or slot.process is not None:
            return False
        slot.state = SlotState.STOPPED
        return True

    def _adopt_spare(self, slot: Slot, spares: Sequence[Slot]) -> None:
        """Put a loaded spare process in the slot's place: milliseconds, where a new process takes a model load."""
        for spare in spares:
            process = spare.process
            same = slot.plan.kind == spare.plan.kind
            if same and spare.state is SlotState.IDLE and process is not None and process.is_alive():
                process.slot = slot.name
                slot.process, slot.ready, slot.last_failure, slot.failures = process, spare.ready, None, 0
                spare.process, spare.ready, spare.state = None, None, SlotState.STARTING
                slot.state = SlotState.IDLE
                log.info("spare_took_over", slot=slot.name, pid=process.pid)
                self._on_idle(slot)
                return

    def _start(self, slot: Slot, now: float) -> None:
        slot.generation += 1
        spec = ChildSpec(
            slot=slot.name,
            serves=self.serves.get(slot.plan.group, ()),
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
        except (OSError, RuntimeError) as error:  # no descriptor, no process or no thread is left to have
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
            self._on_idle(slot)
        elif isinstance(event, wire.StartFailed):
            self._start_failed(slot, now, Failure(FailureCode(event.code), event.message, event.hint, event.detail))
        elif not process.is_alive():
            died = classify_exit(process.exitcode, process.last_words())
            message = f"A worker process {name_exit(process.exitcode)} before it was ready."
            self._start_failed(slot, now, Failure(FailureCode.WORKER_START_FAILED, message, detail=died.detail))
        elif now - slot.started_at >= self.start_timeout_s:
            message = f"A worker process was not ready within {self.start_timeout_s:g} s."
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
        self.replace(slot, "start failed")
        slot.state = SlotState.QUARANTINED
