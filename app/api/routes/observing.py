"""For operators: what became of the work in figures, what it uses, and what is wrong."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Response
from pydantic import BaseModel

from app.api.answering import json_response, problems
from app.api.ports import ApiDependencies
from app.api.resource import rfc3339
from app.health.alarms import Alarm, Severity
from app.health.gpu import Gpu
from app.health.resources import Host, Worker
from app.telemetry.statistics import Figures, Window


class WindowResource(BaseModel):
    """One window: all tiers together, and each that had anything to do in the last hour or since the start."""

    all: Figures
    tiers: dict[str, Figures]


class StatisticsResource(BaseModel):
    """Figures of this service over the last minute, five minutes and hour, and since it started (`since`)."""

    since: str
    windows: dict[Window, WindowResource]


class AlarmResource(BaseModel):
    """One alarm; `subject` is a slot or a device, empty where it is the whole service."""

    name: str
    severity: Severity
    subject: str
    since: str
    resolved_at: str | None
    value: float | None
    threshold: float | None
    message: str
    hint: str


class ScaleOutResource(BaseModel):
    """Whether another service would help; `reasons` are names of active alarms."""

    wanted: bool
    reasons: list[str]


class AlarmsResource(BaseModel):
    """What fires now, critical alarms first, and what fired lately and has resolved, newest first."""

    active: list[AlarmResource]
    recent: list[AlarmResource]
    scale_out: ScaleOutResource


class ResourcesResource(BaseModel):
    """The last reading; everything is empty until the first one is there. Sizes in bytes."""

    at: str | None
    host: Host | None
    workers: list[Worker]
    gpus: list[Gpu]
    gpu_note: str


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
