"""For operators: what became of the work, in figures."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel

from app.api.answering import json_response, problems
from app.api.ports import ApiDependencies
from app.api.resource import rfc3339
from app.telemetry.statistics import Figures, Window


class WindowResource(BaseModel):
    """One window: all tiers together, and each that had anything to do in the last hour or since the start."""

    all: Figures
    tiers: dict[str, Figures]


class StatisticsResource(BaseModel):
    """Figures of this service over the last minute, five minutes and hour, and since it started (`since`)."""

    since: str
    windows: dict[Window, WindowResource]


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

    return routes
