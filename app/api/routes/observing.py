"""For operators: what became of the work in figures, what it uses, and what is wrong."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Response

from app.api.answering import json_response, problems
from app.api.described import Described
from app.api.ports import ApiDependencies
from app.api.resource import rfc3339
from app.health.alarms import Alarm, Severity
from app.health.gpu import Gpu
from app.health.resources import Host, Worker
from app.telemetry.statistics import Figures, Window


class WindowResource(Described):
    """One window: all tiers together, and each that had anything to do in the last hour or since the start."""

    all: Figures
    """All tiers together."""
    tiers: dict[str, Figures]
    """Each tier, by its name."""


class StatisticsResource(Described):
    """Figures of this service over the last minute, five minutes and hour, and since it started (`since`)."""

    since: str
    """When this service started: the window `start` begins there."""
    windows: dict[Window, WindowResource]
    """By their names: `1m`, `5m`, `1h`, `start`."""


class AlarmResource(Described):
    """One alarm; `subject` is a slot or a device, empty where it is the whole service."""

    name: str
    """One of docs/operations.md."""
    severity: Severity
    """`warning` or `critical`."""
    subject: str
    """A slot, a device, or empty."""
    since: str
    """When it fired."""
    resolved_at: str | None
    """Null while it is active."""
    value: float | None
    """What was measured, where it is a number."""
    threshold: float | None
    """What it is held against."""
    message: str
    """What is wrong, for people."""
    hint: str
    """What to do about it."""


class ScaleOutResource(Described):
    """Whether another service would help; `reasons` are names of active alarms."""

    wanted: bool
    """Whether there is more to do than this service can."""
    reasons: list[str]
    """Names of the active alarms that say so."""


class AlarmsResource(Described):
    """What fires now, critical alarms first, and what fired lately and has resolved, newest first."""

    active: list[AlarmResource]
    """Critical ones first."""
    recent: list[AlarmResource]
    """Resolved ones, newest first; at most 100."""
    scale_out: ScaleOutResource
    """Whether another service would help."""


class ResourcesResource(Described):
    """The last reading; everything is empty until the first one is there. Sizes in bytes."""

    at: str | None
    """When it was read."""
    host: Host | None
    """The machine, or the container's part of it."""
    workers: list[Worker]
    """The processes of slots and judges."""
    gpus: list[Gpu]
    """The devices, as far as NVML tells."""
    gpu_note: str
    """Why a device is missing, or why there is none; empty where all is well."""


def _alarm(alarm: Alarm) -> AlarmResource:
    resolved = None if alarm.resolved_at is None else rfc3339(alarm.resolved_at)
    return AlarmResource(**(asdict(alarm) | {"since": rfc3339(alarm.since), "resolved_at": resolved}))


def router(deps: ApiDependencies) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["operations"])

    @routes.get(
        "/stats",
        response_model=StatisticsResource,
        summary="Success rates, counts, latencies and compute time",
        responses=problems(),
    )
    def stats() -> Response:
        figures = deps.statistics
        tiers = figures.tiers()
        windows = {
            window: WindowResource(
                all=figures.of(None, window), tiers={tier: figures.of(tier, window) for tier in tiers}
            )
            for window in Window
        }
        return json_response(StatisticsResource(since=rfc3339(figures.since), windows=windows))

    @routes.get("/alarms", response_model=AlarmsResource, summary="What is wrong, and was lately", responses=problems())
    async def alarms() -> Response:
        known, reasons = deps.health.alarms, deps.health.scale_out()
        return json_response(
            AlarmsResource(
                active=[_alarm(alarm) for alarm in known.active()],
                recent=[_alarm(alarm) for alarm in known.recent()],
                scale_out=ScaleOutResource(wanted=bool(reasons), reasons=reasons),
            )
        )

    @routes.get(
        "/resources", response_model=ResourcesResource, summary="What host, workers and GPUs use", responses=problems()
    )
    async def resources() -> Response:
        last = deps.health.resources
        if last is None:
            empty = ResourcesResource(at=None, host=None, workers=[], gpus=[], gpu_note="not read yet")
            return json_response(empty)
        return json_response(
            ResourcesResource(
                at=rfc3339(last.at),
                host=last.host,
                workers=list(last.workers),
                gpus=list(last.gpus),
                gpu_note=last.gpu_note,
            )
        )

    return routes
