"""The releaser: takes in what predecessors made, and lets the tasks go that waited for it.

It lives in the service's event loop. The commit in which a predecessor ends wakes it: nothing is asked per task that
waits. What it has to do is found in the store, so that a kill at any moment loses nothing, and several services on one
database may all do it: a release is written once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog

from app.failpoints import hit
from app.intake.refusal import InputsRefused, refuse
from app.intake.resolve import ANY_SOURCE, Given, Intake
from app.intake.results import result_of
from app.retry.backoff import Backoff
from app.retry.classifier import classify_exception
from app.retry.taxonomy import Failure, FailureCode
from app.store.creation import as_error
from app.store.errors import StoreUnavailable
from app.store.interface import Store
from app.store.records import EventRecord, InputRef, Release, TaskRecord
from app.store.transitions import AWAITED
from app.tasks.chain import task_named
from app.tasks.replay import EVENT_OF
from app.tasks.status import Status
from app.tiers.tiers import NoTier, Tiers, UnknownTier, Work
from app.vital import task_fault

log = structlog.get_logger(__name__)

_SWEEP_S = 1.0
"""How often it looks although nothing is announced: another service on the same database may have died on the way."""
_STORE_PAUSE_S = 0.5
_FAULT_PAUSE_S = 60.0
"""Before a task is looked at again that could neither be released nor failed."""
_BATCH = 200
_AT_ONCE = 8
"""Releases under way together: enough to share commits, few enough to leave the disk to others."""


class KeySource(Protocol):
    """The result cache, as far as it is needed here."""

    async def usable_keys(
        self, tiers: Tiers, route: Sequence[str], options: Mapping[str, Any], source: InputRef, audio: InputRef
    ) -> tuple[str, ...]:
        """The keys by which the store may answer a task."""


@dataclass(frozen=True, slots=True)
class ReleaseTerms:
    """What a release is made with. `data_dir`: where results are; `default_deadline_s`: of tasks that have none."""

    data_dir: Path
    default_deadline_s: float | None


@dataclass(slots=True)
class _PutOff:
    """A task whose inputs could not be taken in for a reason that may pass."""

    tries: int
    until: float
    """Monotonic seconds."""


class Releaser:
    """One per service. `start` and `stop` it in the loop that the intake is used in."""

    def __init__(
        self,
        store: Store,
        intake: Intake,
        terms: ReleaseTerms,
        *,
        tiers: Callable[[], Tiers],
        backoff: Backoff,
        cache: KeySource | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`tiers`: those in force. `backoff`: pauses before an input is taken in again. `cache`: None without one."""
        self._store = store
        self._intake = intake
        self._terms = terms
        self._tiers = tiers
        self._backoff = backoff
        self._cache = cache
        self._monotonic = monotonic
        self._put_off: dict[str, _PutOff] = {}
        self._woken = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: asyncio.Task[None] | None = None
        store.subscribe(self._on_events)

    async def start(self) -> None:
        """Begin; what a service that was killed has left undone comes first."""
        self._loop = asyncio.get_running_loop()
        self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End; what is under way is left to the next start."""
        self._loop = None
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    @property
    def fault(self) -> str:
        """See `Vital.fault`."""
        return task_fault("releaser", self._running)

    def _on_events(self, events: Sequence[EventRecord]) -> None:
        """In the writer's thread."""
        loop = self._loop
        if loop is not None and any(map(_concerns, events)):
            with contextlib.suppress(RuntimeError):  # The loop has ended meanwhile.
                loop.call_soon_threadsafe(self._woken.set)

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            pause = _SWEEP_S
            try:
                await self._look()
            except* StoreUnavailable as error:
                log.warning("store_unavailable", error=str(error.exceptions[0]))
                pause = _STORE_PAUSE_S
            except* Exception:
                log.exception("releaser_error")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()

    async def _look(self) -> None:
        """Fail what waits in vain, release what can go."""
        if not await self._store.achains_left():
            self._put_off.clear()
            return
        for task in await self._store.abreak_chains():
            log.warning("chain_broken", message=(task.error or {}).get("message"), **_who(task))
        while ready := await self._ready():
            hit("chained")
            limit = asyncio.Semaphore(_AT_ONCE)
            async with asyncio.TaskGroup() as group:
                for task in ready:
                    group.create_task(self._one(task, limit))

    async def _ready(self) -> list[TaskRecord]:
        now = self._monotonic()
        found = await self._store.areleasable(_BATCH + len(self._put_off))
        there = {task.id for task in found}
        self._put_off = {task_id: one for task_id, one in self._put_off.items() if task_id in there}
        return [task for task in found if task.id not in self._put_off or self._put_off[task.id].until <= now]

    async def _one(self, task: TaskRecord, limit: asyncio.Semaphore) -> None:
        async with limit:
            try:
                await self._release(task)
            except InputsRefused as refused:
                await self._failed(task, refused.errors[0].failure)
            except StoreUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - it is written down, and must not hold up the others
                await self._failed(task, classify_exception(error))

    async def _failed(self, task: TaskRecord, failure: Failure) -> None:
        """As `_judge`; a task that cannot even be failed is looked at again later, and holds up no other."""
        try:
            await self._judge(task, failure)
        except StoreUnavailable:
            raise
        except Exception:
            log.exception("release_not_refused", **_who(task))
            self._put_off[task.id] = _PutOff(0, self._monotonic() + _FAULT_PAUSE_S)

    async def _release(self, task: TaskRecord) -> None:
        tiers = self._tiers()
        ready = await self._prepared(task, tiers)
        hit("taken_in")
        released = await self._store.arelease(task.id, ready)
        hit("released")
        if released is None:
            return
        log.info("task_released", after=list(task.after), cached=released.cached, **_who(task))
        while tiers is not (now := self._tiers()):
            # They were changed meanwhile: whoever gave the waiting tasks their new routes may have passed by this one.
            tiers = now
            route = self._route(task, now, ready.source, ready.audio)
            keys = await self._keys(task, now, route, ready.source, ready.audio)
            await self._store.areroute(route, [task.id], cache_keys=keys)

    async def _judge(self, task: TaskRecord, failure: Failure) -> None:
        """Try again later if that may help, as the failure table says, else fail the task."""
        policy = failure.policy
        tries = self._put_off[task.id].tries if task.id in self._put_off else 0
        if policy.retryable and (policy.retries is None or tries < policy.retries):
            pause = self._backoff(tries + 1, policy.first_delay_s)
            self._put_off[task.id] = _PutOff(tries + 1, self._monotonic() + pause)
            log.warning("release_put_off", code=failure.code.value, message=failure.message, **_who(task))
            return
        if await self._store.arefuse_release(task.id, as_error(failure)) is not None:
            log.warning("release_refused", code=failure.code.value, message=failure.message, **_who(task))

    async def _prepared(self, task: TaskRecord, tiers: Tiers) -> Release:
        """Its inputs, stored and probed, and who may serve it. Raises `InputsRefused`, `CodedError`."""
        try:
            kinds = tiers.sources(task.renderer, task.fallback)
        except UnknownTier:
            kinds = ANY_SOURCE
        predecessors = await self._store.aget_some(task.after)
        source, audio = await self._intake.resolve(
            self._given(task.source, predecessors), self._given(task.audio, predecessors), source_kinds=kinds
        )
        route = self._route(task, tiers, source, audio)
        keys = await self._keys(task, tiers, route, source, audio)
        return Release(source, audio, route, keys, self._terms.default_deadline_s)

    def _given(self, stored: InputRef, predecessors: Mapping[str, TaskRecord]) -> Given:
        if stored.sha256:
            return stored
        predecessor = predecessors.get(task_named(stored.uri) or "")
        if predecessor is None or predecessor.output is None or predecessor.result_removed_at is not None:
            text = f"The video of {stored.uri} is not there any more."
            raise refuse(FailureCode.INPUT_NOT_FOUND, text, "Submit that task again, then this one.", reason="removed")
        return result_of(predecessor, self._terms.data_dir)

    def _route(self, task: TaskRecord, tiers: Tiers, source: InputRef, audio: InputRef) -> tuple[str, ...]:
        """The tiers that may serve it; none where it waits for other tiers, as any task does that these do not suit.

        Raises INPUT_INVALID where it is the inputs that none of them takes: so would its submission have been refused.
        """
        work = Work(task.renderer, task.fallback, task.options, source.media, audio.media)
        try:
            return tiers.route(work)
        except UnknownTier:
            return ()
        except NoTier as none:
            refusals = {tier.name: tier.refusal(work) for tier in tiers.candidates(task.renderer, task.fallback)}
            if not all(refusals.values()):
                return ()
            raise refuse(
                FailureCode.INPUT_INVALID,
                "; ".join(f"{name} cannot serve it: {reason}" for name, reason in refusals.items()) + ".",
                "Change the request, or allow other tiers with `fallback`.",
                reason="no_tier",
            ) from none

    async def _keys(
        self, task: TaskRecord, tiers: Tiers, route: tuple[str, ...], source: InputRef, audio: InputRef
    ) -> tuple[str, ...]:
        if self._cache is None or not task.use_cache:
            return ()
        return await self._cache.usable_keys(tiers, route, task.options, source, audio)


def _concerns(event: EventRecord) -> bool:
    """Whether a task that waits for others may have to be looked at."""
    if event.type == EVENT_OF[Status.QUEUED]:
        return event.data.get("waits_for") == []
    return AWAITED in event.data


def _who(task: TaskRecord) -> dict[str, Any]:
    return {"task_id": task.id, "trace_id": task.trace_id}
