"""The queue as a whole: how it stands, and holding it."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Depends, Response

from app.api.answering import json_response, problems
from app.api.described import Described
from app.api.holding import Holding
from app.api.ports import ApiDependencies, SlotView
from app.api.resource import rfc3339
from app.api.strict_body import NO_BODY, without_body


class SlotResource(Described):
    """One slot."""

    name: str
    """As in `slot` of an attempt."""
    state: str
    """`starting`, `idle`, `busy`, `down` (a new process follows), `quarantined` or `stopped`."""
    device: str
    """`cpu` or `cuda`."""
    task_id: str | None
    """The task that it renders."""
    attempt: int | None
    """The number of that task's attempt."""
    pid: int | None
    """Its process."""
    since: str | None
    """Since when it is in this state."""


class JudgesResource(Described):
    """The processes that judge the videos of renderers that wait for others. Empty where no tier needs them."""

    waiting: int
    """Videos in line."""
    judging: int
    """Videos that are looked at now."""
    slots: list[SlotResource]
    """Their processes."""


class DiskResource(Described):
    """The disk that inputs and results go to; while it is `low`, nothing new is taken in."""

    low: bool
    """Whether new work is refused with DISK_LOW."""
    free_bytes: int | None
    """Null where the disk does not tell."""
    limit: int
    """Bytes that are to be free: the setting `disk_low_bytes`."""


class CacheResource(Described):
    """The results that are served again."""

    results: int
    """How many."""
    bytes: int
    """What they take."""
    limit: int
    """What they may take: the setting `cache_max_bytes`."""


class QueueResource(Described):
    """The queue now. `runnable` tasks could start this moment, `scheduled` ones wait for their time."""

    by_status: dict[str, int]
    """How many tasks there are of each status."""
    runnable: int
    """Tasks that could start this moment."""
    scheduled: int
    """Tasks that wait for their `not_before`, or for the end of a pause before a retry."""
    joined: int
    """Tasks that wait for an equal one."""
    chained: int
    """Tasks that wait for their predecessors."""
    oldest_runnable_age_s: float | None
    """How long the oldest of the `runnable` ones has waited; null where there is none."""
    wait_s: float | None
    """How long a task of middling priority that came now is expected to wait; null where nobody can know."""
    paused: bool
    """Whether somebody holds the queue."""
    draining: bool
    """Whether this service is about to stop."""
    limit: int | None
    """With so many waiting tasks the queue is full; null: never."""
    limit_deferred: int | None
    """Up to here tasks are still accepted, for later; null where the first limit is the last."""
    limit_per_client: int | None
    """The same of one client; null: no limit of its own."""
    disk: DiskResource
    """Whether there is room."""
    cache: CacheResource | None
    """Null where results are not cached."""
    slots: list[SlotResource]
    """Those of this service."""
    judges: JudgesResource
    """Who watches the videos of light slots."""


def router(deps: ApiDependencies, holding: Holding) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["queue"])
    bare = [Depends(without_body(deps))]

    @routes.get("/queue", response_model=QueueResource, summary="The queue and the slots", responses=problems())
    async def queue() -> Response:
        return json_response(await _resource(deps))

    @routes.post(
        "/queue/pause", response_model=QueueResource, summary="Start no more tasks; running ones go on",
        responses=problems(*NO_BODY), dependencies=bare,
    )  # fmt: skip
    async def pause() -> Response:
        await holding.set_paused(True)
        return json_response(await _resource(deps))

    @routes.post(
        "/queue/resume", response_model=QueueResource, summary="Start tasks again", responses=problems(*NO_BODY),
        dependencies=bare,
    )  # fmt: skip
    async def resume() -> Response:
        await holding.set_paused(False)
        return json_response(await _resource(deps))

    return routes


async def _resource(deps: ApiDependencies) -> QueueResource:
    stats, held = await deps.store.aqueue(), await deps.store.acache()
    await deps.forecast.refresh()
    wait_s = None if stats.paused or deps.pool.draining() else deps.forecast.wait_s()
    oldest, soft = stats.oldest_runnable_at, deps.settings.max_waiting
    judges = deps.pool.judges()
    return QueueResource(
        by_status={status.value: count for status, count in stats.by_status.items()},
        runnable=stats.runnable,
        scheduled=stats.scheduled,
        joined=stats.joined,
        chained=stats.chained,
        oldest_runnable_age_s=None if oldest is None else round(max(deps.clock() - oldest, 0.0), 3),
        wait_s=None if wait_s is None else round(wait_s, 2),
        paused=stats.paused,
        draining=deps.pool.draining(),
        limit=soft,
        limit_deferred=soft + deps.settings.max_deferred if soft is not None and deps.settings.max_deferred else None,
        limit_per_client=deps.settings.max_waiting_per_client,
        disk=DiskResource(low=deps.disk.is_low(), free_bytes=deps.disk.free(), limit=deps.disk.low_bytes),
        cache=None if deps.cache is None else CacheResource(**asdict(held), limit=deps.cache.max_bytes),
        slots=[_slot(slot) for slot in deps.pool.slots()],
        judges=JudgesResource(
            waiting=judges.waiting, judging=judges.judging, slots=[_slot(slot) for slot in judges.slots]
        ),
    )


def _slot(slot: SlotView) -> SlotResource:
    return SlotResource(**(asdict(slot) | {"since": None if slot.since is None else rfc3339(slot.since)}))
