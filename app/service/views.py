"""What the API and the metrics may see of the running parts: views that read memory and never touch a process."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from app.api.ports import JudgesView, LiveProgress, ReloadRefused, SlotView
from app.cleanup.disk import DiskWatch
from app.cleanup.janitor import Janitor
from app.config import ConfigError
from app.health.resources import Resources
from app.health.rules import Look, SlotLook
from app.retry.breaker import BreakerState
from app.retry.budget import RetryBudget
from app.service.foresight import Foresight
from app.service.reload import TierControl
from app.store.deliveries import OutboxStats
from app.store.errors import StoreUnavailable
from app.store.figures import CacheStats, QueueStats
from app.store.sql import SqlStore
from app.telemetry.statistics import Statistics, Window
from app.tiers.tiers import Tiers
from app.vital import Vital
from app.worker.attempt import Attempt
from app.worker.board import TierBoard
from app.worker.dispatcher import Dispatcher
from app.worker.judges import Judges
from app.worker.pool import LocalPool
from app.worker.slots import Slot, SlotState


class LiveView:
    """What the API and the metrics may see of the pool: reads memory only."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        pool: LocalPool,
        judges: Judges,
        store: SqlStore,
        disk: DiskWatch,
        foresight: Foresight,
    ) -> None:
        self._foresight = foresight
        self._dispatcher = dispatcher
        self._pool = pool
        self._judges = judges
        self._store = store
        self._disk = disk

    def progress(self, task_id: str) -> LiveProgress | None:
        attempt = self._dispatcher.attempt_of(task_id)
        if attempt is None or (reading := attempt.reading_if_there()) is None:
            return None
        eta = self._foresight.left_of(attempt, reading)
        return LiveProgress(reading.phase, reading.done, reading.total, eta)

    def slots(self) -> list[SlotView]:
        running = {attempt.slot.name: attempt for attempt in self._dispatcher.running()}
        return [self._view(slot, running.get(slot.name)) for slot in self._pool.slots()]

    def judges(self) -> JudgesView:
        found = self._judges.view()
        return JudgesView([self._view(slot, None) for slot in found.slots], found.waiting, found.judging)

    def judges_line(self) -> tuple[int, int]:
        found = self._judges.view()
        return found.waiting, found.judging

    def draining(self) -> bool:
        return self._dispatcher.draining

    def _view(self, slot: Slot, attempt: Attempt | None) -> SlotView:
        process = slot.process
        busy = slot.state is SlotState.BUSY and attempt is not None
        return SlotView(
            name=slot.name,
            state=slot.state.value,
            device=slot.plan.device,
            task_id=attempt.claim.task.id if busy and attempt else None,
            attempt=attempt.claim.attempt if busy and attempt else None,
            pid=process.pid if process is not None else None,
            since=slot.since,
        )

    def disk_free_bytes(self) -> int | None:
        return self._disk.free()

    def cache(self) -> CacheStats:
        return self._store.cache()

    def outbox(self) -> OutboxStats:
        return self._store.outbox.stats()

    def queue(self) -> QueueStats:
        return self._store.queue()

    def slot_states(self) -> Mapping[str, int]:
        states = [slot.state for slot in self._pool.slots()]
        return {state.value: states.count(state) for state in SlotState}


class TierDesk:
    """The tiers for the API."""

    def __init__(self, board: TierBoard, control: TierControl) -> None:
        self._board = board
        self._control = control

    @property
    def tiers(self) -> Tiers:
        return self._board.tiers

    def hold(self, route: Sequence[str]) -> tuple[str, float | None] | None:
        return self._board.hold(route)

    def resources(self) -> list[dict[str, Any]]:
        return [asdict(view) for view in self._board.views()]

    def set_breaker(self, tier: str, *, is_open: bool) -> bool:
        return self._board.force(tier, BreakerState.OPEN if is_open else BreakerState.CLOSED)

    async def reload(self) -> None:
        try:
            await self._control.reload()
        except ConfigError as error:
            raise ReloadRefused(str(error)) from error


class Readiness:
    """Ready: the database answers, a slot can take work, all parts are at work, and we are not on our way out."""

    def __init__(
        self,
        store: SqlStore,
        pool: LocalPool,
        judges: Judges,
        dispatcher: Dispatcher,
        disk: DiskWatch,
        others: Sequence[Vital],
    ) -> None:
        """`others`: the parts, beside these, without which the service is not whole."""
        self._vital: Sequence[Vital] = (store, pool, judges, dispatcher, *others)
        self._store = store
        self._pool = pool
        self._judges = judges
        self._dispatcher = dispatcher
        self._disk = disk

    def check(self) -> tuple[bool, dict[str, Any]]:
        database = "ok"
        try:
            self._store.ping()
        except StoreUnavailable as error:
            database = str(error)
        ready = self._pool.ready_count()
        slots: dict[str, Any] = {"ready": ready, "of": len(self._pool.slots())}
        places = [*self._pool.slots(), *self._judges.view().slots]
        failures = {slot.name: slot.last_failure.message for slot in places if slot.last_failure is not None}
        if failures:
            slots["failures"] = failures
        faults = [fault for part in self._vital if (fault := part.fault)]
        ok = database == "ok" and ready > 0 and not faults and not self._dispatcher.draining
        # A low disk is told and is no reason to send callers away: results can still be fetched, and tasks finish.
        disk = f"low: {self._disk.free()} of {self._disk.low_bytes} bytes free" if self._disk.is_low() else "ok"
        parts = "; ".join(faults) or "ok"
        draining = self._dispatcher.draining
        return ok, {"database": database, "slots": slots, "parts": parts, "disk": disk, "draining": draining}


class Surroundings:
    """What the health watch may see of the service, and the two things that it may ask for."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        pool: LocalPool,
        judges: Judges,
        store: SqlStore,
        *,
        statistics: Statistics,
        budget: RetryBudget,
        janitor: Janitor,
    ) -> None:
        self._dispatcher = dispatcher
        self._pool = pool
        self._judges = judges
        self._store = store
        self._statistics = statistics
        self._budget = budget
        self._janitor = janitor

    def processes(self) -> list[tuple[str, int]]:
        found = ((slot.name, slot.process) for slot in (*self._pool.slots(), *self._judges.view().slots))
        return [(name, process.pid) for name, process in found if process is not None]

    def look(self, resources: Resources) -> Look | None:
        if self._dispatcher.draining:
            return None
        error, oldest, dead = "", None, None
        try:
            self._store.ping()
            oldest, dead = self._store.queue().oldest_runnable_at, self._store.outbox.stats().dead
        except StoreUnavailable as unavailable:
            error = str(unavailable)
        figures = self._statistics.of(None, Window.FIVE_MINUTES)
        return Look(
            resources=resources,
            slots=tuple(_slot_look(slot) for slot in self._pool.slots()),
            judges=tuple(_slot_look(slot) for slot in self._judges.view().slots),
            store_error=error,
            oldest_age_s=None if oldest is None else max(time.time() - oldest, 0.0),
            success_rate=figures.service_success_rate,
            judged=figures.judged,
            budget_spent=not self._budget.allows(),
            dead_notices=dead,
        )

    def retire(self, pid: int, reason: str) -> bool:
        return self._pool.retire(pid, reason) or self._judges.retire(pid, reason)

    def sweep_soon(self) -> None:
        self._janitor.sweep_soon()


def _slot_look(slot: Slot) -> SlotLook:
    state, failure = slot.state, slot.last_failure
    return SlotLook(
        name=slot.name,
        ready=state in (SlotState.IDLE, SlotState.BUSY),
        failing=state in (SlotState.DOWN, SlotState.QUARANTINED)
        or (state is SlotState.STARTING and failure is not None),
        device_held=slot.device_held,
        restarts=slot.restarts,
        failure="" if failure is None else failure.message,
    )
