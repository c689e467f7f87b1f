"""For operators: health and metrics."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Response
from starlette.responses import JSONResponse

from app.api.answering import problems
from app.api.described import Described
from app.api.ports import ApiDependencies


class Liveness(Described):
    """The process answers."""

    status: str
    """`live`."""


class ReadinessAnswer(Described):
    """Whether the service can do its work, and a word on each of its parts."""

    status: str
    """`ready` or `not_ready`."""
    checks: dict[str, Any]
    """A word on each part: `database`, `slots`, `parts`, `disk`, `draining`."""


def router(deps: ApiDependencies) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["operations"])

    @routes.head("/health/live", include_in_schema=False)
    @routes.get("/health/live", response_model=Liveness, summary="Is the process alive?")
    async def live() -> Response:
        return JSONResponse({"status": "live"})

    @routes.head("/health/ready", include_in_schema=False)
    @routes.get(
        "/health/ready",
        response_model=ReadinessAnswer,
        summary="Can it do its work?",
        responses={503: {"model": ReadinessAnswer, "description": "Not ready; `checks` says why."}},
    )
    async def ready() -> Response:
        seconds = deps.settings.readiness_timeout_s
        try:
            async with asyncio.timeout(seconds):
                ok, checks = await asyncio.to_thread(deps.readiness.check)
        except TimeoutError:
            ok, checks = False, {"readiness": f"no answer within {seconds:g} s"}
        body = {"status": "ready" if ok else "not_ready", "checks": checks}
        return JSONResponse(body, 200 if ok else 503, {} if ok else {"Retry-After": "2"})

    @routes.get(
        "/metrics",
        summary="Metrics in the Prometheus text format",
        response_class=Response,
        responses=problems() | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        page, content_type = await asyncio.to_thread(deps.render_metrics)
        return Response(page, headers={"Content-Type": content_type})

    return routes
