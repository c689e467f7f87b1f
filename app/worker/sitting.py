"""One video before one judge's process: asked, watched over by a monitor of its own, and ended if it must be.

Whatever befalls the process is no fault of the video: the only thing that counts against that is what the gate found.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

import msgspec
import structlog

from app.health.clocks import Limits, Look
from app.health.monitor import HealthObserver, Monitor
from app.retry.classifier import name_exit
from app.retry.taxonomy import Failure, FailureCode
from app.worker import wire
from app.worker.orders import Orders
from app.worker.slot_process import SlotProcess
from app.worker.slots import Slot

log = structlog.get_logger(__name__)

_PER_SECOND = 4.0
"""Seconds that watching a second of video may take: it takes 0.05 at 512x512 on one core, and half of one in 4K."""
_HANG_UP_S = 1.0
"""Between a dying process's last closed pipe and its death lie milliseconds."""


@dataclass(frozen=True, slots=True)
class SittingTerms:
    """The numbers of a judgement; seconds."""

    timeout_s: float
    """How long one may take, beside four seconds for each second of video."""
    interval_s: float
    limits: Limits
    cancel_grace_s: float


class Sitting:
    """From `hold` on the slot's process is this one's; afterwards `poisoned` says why it must be replaced, if so."""

    def __init__(
        self, slot: Slot, order: wire.Judge, orders: Orders, *, terms: SittingTerms, observer: HealthObserver
    ) -> None:
        """`orders` are those of the attempt whose video it is."""
        assert slot.process is not None
        self._slot = slot
        self._process: SlotProcess = slot.process
        self._order = order
        self._orders = orders
        self._terms = terms
        self._observer = observer
        self._verdict: Failure | None = None
        self.poisoned = ""

    def hold(self) -> wire.Judged | Failure:
        """Have the video judged. JUDGE_FAILED: the process could not, and is done with."""
        monitor = Monitor(
            name=self._slot.name,
            look=self._look,
            renew=lambda: None,
            verdict=self._accuse,
            observer=self._observer,
            limits=self._terms.limits,
            interval_s=self._terms.interval_s,
            deadline=time.monotonic() + self._terms.timeout_s + _PER_SECOND * self._order.video.duration_s,
            at_deadline=FailureCode.RENDER_TIMEOUT,
        )
        self._process.send(self._order)
        monitor.start()
        try:
            return self._wait()
        finally:
            monitor.stop()

    def _look(self) -> Look:
        reading = self._process.read()
        return Look(time.monotonic(), reading.beats, reading.moves, reading.phase.value, reading.done, reading.total)

    def _accuse(self, failure: Failure) -> None:
        self._verdict = failure
        self._orders.nudge()

    def _wait(self) -> wire.Judged | Failure:
        kill_at: float | None = None
        while True:
            timeout = None if kill_at is None else max(0.0, kill_at - time.monotonic())
            ready = wait([self._process.events, self._process.sentinel, self._orders.bell], timeout)
            if (heard := self._hear()) is not None:
                return heard
            if self._process.sentinel in ready:
                return self._broken(name_exit(self._process.reap()))
            if self._orders.bell in ready:
                self._orders.heard()
            if self._verdict is not None:
                return self._hung(self._verdict)
            ending = self._orders.ending
            if ending is not None and kill_at is None:
                self._process.send(wire.Cancel(self._order.task_id, self._order.attempt))
                kill_at = time.monotonic() + self._terms.cancel_grace_s
            if ending is not None and kill_at is not None and time.monotonic() >= kill_at:
                self.poisoned = ending.code
                self._process.kill()
                return ending

    def _hear(self) -> wire.Judged | Failure | None:
        try:
            event = self._process.take()
        except EOFError:
            wait([self._process.sentinel], _HANG_UP_S)
            alive = self._process.is_alive()
            return self._broken("closed its pipe" if alive else name_exit(self._process.reap()))
        except msgspec.DecodeError as error:
            return self._broken(f"sent a broken message: {error}")
        if event is None:
            return None
        if not isinstance(event, wire.Judged | wire.Failed):
            return self._broken(f"spoke out of turn ({type(event).__name__})")
        if (event.task_id, event.attempt) != (self._order.task_id, self._order.attempt):
            return self._broken(f"spoke of another attempt ({event.task_id}, {event.attempt})")
        ending = self._orders.ending
        if ending is not None and ending.code is not FailureCode.INTERRUPTED:
            return ending
        return event if isinstance(event, wire.Judged) else self._understand(event)

    def _understand(self, event: wire.Failed) -> Failure:
        """Only a file that cannot be watched to its end speaks against the video."""
        if event.code == FailureCode.OUTPUT_INVALID:
            return Failure(FailureCode.OUTPUT_INVALID, event.message, event.hint, event.detail)
        if event.code == FailureCode.CANCELLED:
            return self._orders.ending or Failure(FailureCode.CANCELLED)
        return self._broken(f"failed with {event.code}: {event.message}", **event.detail)

    def _hung(self, verdict: Failure) -> Failure:
        if verdict.code is FailureCode.RENDER_TIMEOUT:
            return self._broken("took longer than its time limit", stacks=self._process.stacks())
        return self._broken(f"hung: {verdict.message}", stacks=self._process.stacks())

    def _broken(self, how: str, **detail: Any) -> Failure:
        self.poisoned = how
        self._process.kill()
        log.error("judge_failed", slot=self._slot.name, how=how, last_words=self._process.last_words())
        message = f"A judge's process, which watches finished videos, {how}."
        return Failure(FailureCode.JUDGE_FAILED, message, detail={"judge": self._slot.name, "how": how, **detail})
