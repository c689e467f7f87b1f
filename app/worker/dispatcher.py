"""The dispatcher: one thread that brings runnable tasks and idle slots together.

It sleeps until a commit makes a task runnable, a slot becomes idle, or the store's next due moment comes.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from app.failpoints import hit
from app.retry.taxonomy import Failure, FailureCode
from app.store.creation import as_error
from app.store.errors import StoreUnavailable
from app.store.interface import Store
from app.store.records import Claim, Due, EventRecord, Offer, ReadyRoute, TaskRecord
from app.store.transitions import SHARED
from app.vital import VitalThread
from app.worker.attempt import Attempt
from app.worker.board import TierBoard
from app.worker.pool import LocalPool
from app.worker.slots import Slot

log = structlog.get_logger(__name__)

_SWEEP_S = 1.0
"""How often leases, deadlines and the queue are looked at although nothing is announced: another service on the same
database may have queued a task, or died."""
_STORE_PAUSE_S = 0.5
"""Pause after the database could not be reached, so that the loop does not spin."""

_FAULT_PAUSE_S = 1.0
"""Pause after an error that was not foreseen, whatever is announced meanwhile: what stays broken must not spin."""

_EARLY_CANCELS = 1000
"""Remembered cancels of tasks that do not run here (yet): one may come between a claim and its registration."""

MakeAttempt = Callable[[Claim, Slot, Callable[[Attempt], None]], Attempt]


@dataclass(frozen=True, slots=True)
class ClaimTerms:
    """What a claim is made with."""

    owner: str
    lease_s: float


class Dispatcher:
    """Claims tasks for idle slots and keeps the registry of running attempts."""

    def __init__(
        self,
        store: Store,
        pool: LocalPool,
        board: TierBoard,
        terms: ClaimTerms,
        make_attempt: MakeAttempt,
        discard: Callable[[str, int], None],
    ) -> None:
        """`discard(task id, attempt)` removes the file of an attempt that lost its lease."""
        self._discard = discard
        self._store = store
        self._pool = pool
        self._board = board
        self._terms = terms
        self._make_attempt = make_attempt
        self._wake = threading.Event()
        self._passed_over = threading.Event()
        """A task became ready while no slot was idle: whoever gives a slot back unused must look again."""
        self._sleeps_until = float("inf")
        self._new: frozenset[tuple[str, ...]] = frozenset()
        """The routes of the last commit that made new tasks ready."""
        self._nothing_waits = False
        """As the last look at the queue found."""
        self._draining = threading.Event()
        self._twins_left = threading.Event()
        self._lock = threading.Lock()
        self._running: dict[str, Attempt] = {}
        self._early_cancels: deque[str] = deque(maxlen=_EARLY_CANCELS)
        self._all_done = threading.Condition(self._lock)
        self._thread = VitalThread(self._loop, "dispatcher")
        store.on_due(self._on_due)
        store.subscribe(self._on_events)
        store.on_resumed(self._wake.set)

    def start(self) -> None:
        """Take back what this node left, then start the slots and the loop."""
        for task in self._store.take_back(self._terms.owner):
            self._discard(task.id, task.attempt)
            log.info("task_taken_back", status=task.status.value, **_who(task))
        self._pool.start(self._wake.set)
        self._thread.start()

    @property
    def fault(self) -> str:
        """See `Vital.fault`."""
        return self._thread.fault

    def attempt_of(self, task_id: str) -> Attempt | None:
        """The running attempt of a task on this node."""
        with self._lock:
            return self._running.get(task_id)

    def about_slot(self, slot: str) -> dict[str, Any]:
        """What runs on a slot, as every line about an attempt says it; empty where nothing does."""
        with self._lock:
            running = next((attempt for attempt in self._running.values() if attempt.slot.name == slot), None)
        return {} if running is None else _who(running.claim.task)

    def running(self) -> list[Attempt]:
        """All running attempts of this node."""
        with self._lock:
            return list(self._running.values())

    def running_count(self) -> int:
        """How many attempts run on this node."""
        with self._lock:
            return len(self._running)

    @property
    def draining(self) -> bool:
        """Whether no new task is claimed any more."""
        return self._draining.is_set()

    def drain(self) -> None:
        """Claim nothing more. Returns at once."""
        self._draining.set()
        self._wake.set()

    def stop(self, grace_s: float) -> None:
        """Drain, give running attempts `grace_s`, interrupt the rest free of charge, and end all processes."""
        self.drain()
        if self._thread.is_alive():
            self._thread.join()
        if not self._wait_until_done(grace_s):
            for attempt in self.running():
                log.info("attempt_interrupted", slot=attempt.slot.name, **_who(attempt.claim.task))
                attempt.order_end(Failure(FailureCode.INTERRUPTED))
            self._wait_until_done(None)
        self._pool.stop()

    def _wait_until_done(self, timeout: float | None) -> bool:
        with self._all_done:
            return self._all_done.wait_for(lambda: not self._running, timeout)

    # -- the thread -------------------------------------------------------------------------------------------------

    def _on_due(self, due: Due) -> None:
        """A commit made tasks wait. Each look costs two reads: not one too many."""
        if due.at > time.time():
            if due.at < self._sleeps_until:
                self._wake.set()
            return
        self._passed_over.set()
        if self._pool.any_idle():
            self._new = due.new
            self._wake.set()

    def _on_events(self, events: Sequence[EventRecord]) -> None:
        for event in events:
            if event.status.is_terminal and SHARED in event.data:
                self._twins_left.set()
                self._wake.set()
            elif event.type == "task.cancel_requested":
                self._cancel(event.task_id)

    def _cancel(self, task_id: str) -> None:
        with self._lock:
            attempt = self._running.get(task_id)
            if attempt is None:
                self._early_cancels.append(task_id)
        if attempt is not None:
            attempt.order_end(Failure(FailureCode.CANCELLED))

    def _loop(self) -> None:
        sweep_at = 0.0
        while not self._draining.is_set():
            self._sleeps_until = float("inf")
            self._passed_over.clear()
            self._wake.clear()
            try:
                began = time.time()
                whole = self._safely(self._start_new)
                whole &= self._safely(self._fill_slots)
                if self._twins_left.is_set() or time.time() >= sweep_at:
                    whole &= self._safely(self._settle_twins)
                if time.time() >= sweep_at:
                    # After a task that waits for a free slot; what it gives back wakes this loop again.
                    whole &= self._safely(self._sweep)
                # Not what was due before: it waits for a slot, and that wakes this loop.
                due = self._store.next_due(since=began)
                sweep_at = min(time.time() + _SWEEP_S, due if due is not None else float("inf"))
            except StoreUnavailable as error:
                log.warning("store_unavailable", error=str(error))
                self._wake.wait(_STORE_PAUSE_S)
                continue
            except Exception:
                log.exception("dispatcher_error")
                self._draining.wait(_FAULT_PAUSE_S)
                continue
            if not whole:
                self._draining.wait(_FAULT_PAUSE_S)
                continue
            self._sleeps_until = sweep_at
            self._wake.wait(max(0.0, sweep_at - time.time()))

    def _safely(self, step: Callable[[], None]) -> bool:
        """Whether a step was done. What it raises that was not foreseen keeps none of the others from being done."""
        try:
            step()
        except StoreUnavailable:
            raise
        except Exception:
            log.exception("dispatcher_error", step=step.__name__)
            return False
        return True

    def _settle_twins(self) -> None:
        self._twins_left.clear()
        if not self._store.twins_left():
            return
        hit("twins")
        settled = self._store.settle_twins()
        hit("twins_settled")
        for task in settled:
            log.info("twin_settled", status=task.status.value, follows=task.twin_of, cached=task.cached, **_who(task))
        if any(not task.status.is_terminal for task in settled):
            self._wake.set()  # one of them leads now

    def _sweep(self) -> None:
        """End what has waited too long, rescue what was left. Looked for first: a read, where nothing is to be done."""
        due = self._store.next_due()
        if due is None or due > time.time():
            return
        for task in self._store.rescue_expired():
            self._discard(task.id, task.attempt)
            log.warning("lease_expired", status=task.status.value, **_who(task))
        for task in self._store.expire_waiting():
            log.warning("deadline_passed_waiting", **_who(task))

    def _fill_slots(self) -> None:
        while not self._draining.is_set() and self._pool.any_idle() and self._start_one():
            pass

    def _start_new(self) -> None:
        """Start a task that has come to an empty queue without a look at the queue: its commit told its route.

        That it is the first in line is seen by the claim itself, so nothing is passed over if more has come meanwhile.
        """
        new, self._new = self._new, frozenset()
        if self._nothing_waits and len(new) == 1 and not self._draining.is_set():
            self._start_of([ReadyRoute(route, 1) for route in new], first_only=True)

    def _start_one(self) -> bool:
        """Look at all routes that wait, and start a task of one."""
        ready = self._store.ready_routes()
        self._nothing_waits = not ready
        return self._start_of(ready)

    def _start_of(self, ready: Sequence[ReadyRoute], *, first_only: bool = False) -> bool:
        """Place these routes, and start the best task of the first group that has a slot for one."""
        groups: dict[str, dict[tuple[str, ...], Offer]] = {}
        for route, placement in self._board.place(ready).items():
            if placement.tier is not None:
                offer = Offer(placement.tier, placement.why())
                groups.setdefault(self._board.group(placement.tier), {})[route] = offer
        return any(self._start_in(group, offers, first_only=first_only) for group, offers in groups.items())

    def _start_in(self, group: str, offers: Mapping[tuple[str, ...], Offer], *, first_only: bool) -> bool:
        slot = self._pool.acquire(group)
        if slot is None:
            return False
        claim = None
        try:
            claim = self._store.claim(
                self._terms.owner,
                lease_s=self._terms.lease_s,
                slot=slot.name,
                device=slot.plan.device,
                offers=offers,
                first_only=first_only,
            )
        finally:
            if claim is None:
                self._pool.put_back(slot)
                if self._passed_over.is_set():
                    self._wake.set()
        if claim is None:
            return False
        hit("claimed")
        self._run(claim, slot)
        return True

    def _run(self, claim: Claim, slot: Slot) -> None:
        attempt = None
        try:
            attempt = self._make_attempt(claim, slot, self._done)
            with self._lock:
                self._running[claim.task.id] = attempt
                cancelled = claim.task.id in self._early_cancels
            attempt.start()
        except Exception as error:
            # No descriptor or no thread is left to have: slot and task wait for better times.
            if attempt is not None:
                self._done(attempt)
            self._pool.put_back(slot)
            text = f"The attempt could not begin: {error!r}"
            self._store.end_attempt(claim, "requeue", error=as_error(Failure(FailureCode.INTERRUPTED, text)))
            raise
        if cancelled:
            attempt.order_end(Failure(FailureCode.CANCELLED))

    def _done(self, attempt: Attempt) -> None:
        with self._all_done:
            if self._running.get(attempt.claim.task.id) is attempt:
                del self._running[attempt.claim.task.id]
            self._all_done.notify_all()


def _who(task: TaskRecord) -> dict[str, Any]:
    """What every line about an attempt carries."""
    return {"task_id": task.id, "attempt": task.attempt, "trace_id": task.trace_id}
