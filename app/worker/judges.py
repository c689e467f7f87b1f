"""The judges of this host: few processes that watch the videos of all light slots, and the line before them.

A light slot holds no models. When its video is there, its attempt stands in line for a judge; first come, first judged.
What befalls a judge is made good here: its process is replaced, and the video is judged by the next one.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Protocol

import structlog

from app.health.monitor import HealthObserver
from app.retry.taxonomy import Failure, FailureCode
from app.worker import wire
from app.worker.orders import Orders
from app.worker.pool import LocalPool
from app.worker.sitting import Sitting, SittingTerms
from app.worker.slots import Slot, SlotPlan

log = structlog.get_logger(__name__)

GROUP = "Judges"
_TRIES = 2
"""Processes that one video may lose before its attempt fails: one that dies by chance costs nothing but time."""
_HOPELESS = 3
"""Failed starts in a row after which nobody waits for a process any more."""
_LOOK_S = 1.0
"""How often who stands in line looks whether there is still something to wait for."""
_MOST_THREADS = 4


class JudgeObserver(HealthObserver, Protocol):
    """What the judges and their monitors tell the telemetry."""

    def video_judged(self, outcome: str, waited_s: float, seconds: float) -> None:
        """A video left a judge after `seconds`, for which it had waited `waited_s`. See `OUTCOMES`."""


OUTCOMES = ("judged", "invalid", "ended", "failed")
"""It has its confidence; it cannot be watched; its attempt was ended meanwhile; the judge's process failed."""


@dataclass(frozen=True, slots=True)
class JudgesView:
    """How the judges stand."""

    slots: list[Slot]
    waiting: int
    judging: int


def plan_judges(count: int, cores: int | None = None) -> list[SlotPlan]:
    """The places of `count` judges. They work on the CPU: a judgement is mostly decoding, and GPUs are for renders."""
    usable = cores or len(os.sched_getaffinity(0))
    threads = max(1, min(_MOST_THREADS, usable // 4))
    return [SlotPlan(f"judge-{index}", "cpu", "", threads, GROUP) for index in range(count)]


class Judges:
    """Safe to use from any thread. Processes are there once `want` was called."""

    def __init__(self, pool: LocalPool, *, count: int, terms: SittingTerms, observer: JudgeObserver) -> None:
        """`pool` has no slots yet; `count` is how many it gets."""
        self._pool = pool
        self._plans = plan_judges(count)
        self._terms = terms
        self._observer = observer
        self._lock = threading.Lock()
        self._line: deque[Orders] = deque()
        self._judging = 0

    def start(self) -> None:
        """Start the processes, if they are wanted by now."""
        self._pool.start(self._call_next)

    def stop(self) -> None:
        """End the processes. Nobody may stand in line any more."""
        self._pool.stop()

    @property
    def fault(self) -> str:
        """See `Vital.fault`."""
        return self._pool.fault

    def want(self) -> None:
        """Some tier needs judges from now on. They stay: a tier may go while its last video is on its way."""
        self._pool.reconfigure(self._plans, {GROUP: ()})

    def why_none(self) -> str:
        """Why nothing can be judged for now; empty where it can, or soon will."""
        slots = self._pool.slots()
        hopeless = [slot.last_failure for slot in slots if slot.failures >= _HOPELESS and slot.last_failure is not None]
        return hopeless[0].message if slots and len(hopeless) == len(slots) else ""

    def view(self) -> JudgesView:
        """Their slots, and how many videos stand in line and before them."""
        slots = self._pool.slots()  # not under our lock: the pool calls back under its own
        with self._lock:
            return JudgesView(slots, len(self._line), self._judging)

    def retire(self, pid: int, reason: str) -> bool:
        """See `LocalPool.retire`."""
        return self._pool.retire(pid, reason)

    def judge(self, order: wire.Judge, orders: Orders) -> wire.Finished | Failure:
        """Have a video judged, in the thread of its attempt, whose `orders` are heeded meanwhile.

        OUTPUT_INVALID: it cannot be watched to its end. JUDGE_FAILED: no judge could do its work.
        """
        began = time.monotonic()
        for tries_left in reversed(range(_TRIES)):
            slot = self._stand_in_line(orders, in_front=tries_left + 1 < _TRIES)
            if isinstance(slot, Failure):
                return slot
            waited_s = time.monotonic() - began
            outcome = self._sit(slot, order, orders, waited_s)
            if isinstance(outcome, wire.Judged):
                return wire.finish(order.video, outcome, waited_s=round(waited_s, 4))
            if outcome.code is not FailureCode.JUDGE_FAILED or not tries_left:
                return outcome
        raise AssertionError("the last try returns")

    def _stand_in_line(self, orders: Orders, *, in_front: bool) -> Slot | Failure:
        with self._lock:
            if in_front:
                self._line.appendleft(orders)
            else:
                self._line.append(orders)
        try:
            while orders.ending is None:
                # Only who is first asks, so that nobody overtakes. No lock is held: the pool calls back under its own.
                if self._is_first(orders) and (slot := self._pool.acquire(GROUP)) is not None:
                    return slot
                if reason := self.why_none():
                    return Failure(FailureCode.JUDGE_FAILED, f"No judge's process can start: {reason}")
                if wait([orders.bell], _LOOK_S):
                    orders.heard()
            return orders.ending
        finally:
            with self._lock:
                self._line.remove(orders)
            self._call_next()

    def _is_first(self, orders: Orders) -> bool:
        with self._lock:
            return self._line[0] is orders

    def _call_next(self) -> None:
        with self._lock:
            if self._line:
                self._line[0].nudge()

    def _sit(self, slot: Slot, order: wire.Judge, orders: Orders, waited_s: float) -> wire.Judged | Failure:
        began = time.monotonic()
        sitting = Sitting(slot, order, orders, terms=self._terms, observer=self._observer)
        with self._lock:
            self._judging += 1
        outcome: wire.Judged | Failure | None = None
        try:
            outcome = sitting.hold()
            return outcome
        finally:
            with self._lock:
                self._judging -= 1
            failure = outcome if isinstance(outcome, Failure) else None
            poisoned = "the judgement broke off" if outcome is None else sitting.poisoned
            self._pool.release(slot, task_id=order.task_id, failure=failure, poisoned=poisoned)
            self._observer.video_judged(_name(outcome), waited_s, time.monotonic() - began)


def _name(outcome: wire.Judged | Failure | None) -> str:
    if isinstance(outcome, wire.Judged):
        return "judged"
    if outcome is None or outcome.code is FailureCode.JUDGE_FAILED:
        return "failed"
    return "invalid" if outcome.code is FailureCode.OUTPUT_INVALID else "ended"
