"""The queue as a whole: how it stands, and holding it."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Response
from pydantic import BaseModel

from app.api.answering import json_response, problems
from app.api.holding import Holding
from app.api.ports import ApiDependencies, SlotView
from app.api.resource import rfc3339


class SlotResource(BaseModel):
    """One slot."""

    name: str
    state: str
    device: str
    task_id: str | None
    attempt: int | None
    pid: int | None
    since: str | None


class JudgesResource(BaseModel):
    """The processes that judge the videos of renderers that wait for others. Empty where no tier needs them."""

    waiting: int
    """Videos in line."""
    judging: int
    slots: list[SlotResource]


class DiskResource(BaseModel):
    """The disk that inputs and results go to; while it is `low`, nothing new is taken in."""

    low: bool
    free_bytes: int | None
    limit: int


class CacheResource(BaseModel):
    """The results that are served again."""

    results: int
    bytes: int
    limit: int


class QueueResource(BaseModel):
    """The queue now. `runnable` tasks could start this moment, `scheduled` ones wait for their time."""

    by_status: dict[str, int]
    runnable: int
    scheduled: int
    joined: int
    """Tasks that wait for an equal one."""
    chained: int
    """Tasks that wait for their predecessors."""
    oldest_runnable_age_s: float | None
    wait_s: float | None
    """How long a task of middling priority that came now is expected to wait; null where nobody can know."""
    paused: bool
    draining: bool
    limit: int | None
    limit_deferred: int | None
    """Up to here tasks are still accepted, for later; null where the first limit is the last."""
    limit_per_client: int | None
    disk: DiskResource
    cache: CacheResource | None
    """Null where results are not cached."""
    slots: list[SlotResource]
    judges: JudgesResource


def router(deps: ApiDependencies, holding: Holding) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["queue"])

    @routes.get("/queue", response_model=QueueResource, summary="The queue and the slots", responses=problems())
    async def queue() -> Response:
        return json_response(await _resource(deps))

    @routes.post(
        "/queue/pause", response_model=QueueResource, summary="Start no more tasks; running ones go on",
        responses=problems(),
    )  # fmt: skip
    async def pause() -> Response:
        await holding.set_paused(True)
        return json_response(await _resource(deps))

    @routes.post("/queue/resume", response_model=QueueResource, summary="Start tasks again", responses=problems())
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
