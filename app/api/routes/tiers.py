"""The tiers: how they stand, and the switches of an operator."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import ConfigDict

from app.api.answering import json_response, problems
from app.api.body import read_object
from app.api.described import Described
from app.api.ports import ApiDependencies, ReloadRefused
from app.api.problem_codes import ProblemCode
from app.api.problems import ProblemError
from app.api.resource import rfc3339
from app.api.strict_body import NO_BODY, without_body


class BreakerResource(Described):
    """Whether a tier is left alone because it failed."""

    state: Literal["closed", "open", "half_open"]
    """`closed` (tasks go through), `open` (it is left alone) or `half_open` (one task tries it)."""
    until: str | None
    """When an open one admits its probe; null if it is not open, or opened by hand."""
    openings: int
    """In a row, without a success between."""


class MeasuredResource(Described):
    """The tier's last attempts on this node."""

    attempts: int
    """How many were measured; at most 20."""
    success: float | None
    """Share that served; null where none was measured."""
    latency_s: float | None
    """Median of those that served."""


class TierResource(Described):
    """One tier, in the order in which they are tried."""

    name: str
    """As in `renderer` of a request."""
    renderer: str
    """What renders there."""
    enabled: bool
    """Whether the configuration has it take tasks."""
    degraded: bool
    """Whether its results are marked as a stopgap's."""
    only_by_name: bool
    """Whether it serves only tasks that name it."""
    down: str | None
    """Why it can take no task now."""
    breaker: BreakerResource
    """Whether it is left alone because it failed."""
    slots: int
    """Slots that can serve it."""
    free: int
    """Those of them that it could use now."""
    running: int
    """Tasks that it renders now."""
    measured: MeasuredResource
    """How it did lately."""


class TierList(Described):
    """All tiers."""

    tiers: list[TierResource]
    """Best first."""


class BreakerSwitch(Described):
    """What an operator wants of a breaker."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["open", "closed"]
    """`open`: leave the tier alone until it is `closed` by hand again."""


MODELS = (BreakerSwitch,)
_SWITCH = {"$ref": f"#/components/schemas/{BreakerSwitch.__name__}"}


def router(deps: ApiDependencies) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["tiers"])

    @routes.get("/tiers", response_model=TierList, summary="All tiers, best first", responses=problems())
    async def tiers() -> Response:
        return json_response(_list(deps))

    @routes.post(
        "/tiers/reload",
        response_model=TierList,
        summary="Read the tiers from the configuration anew",
        description="What runs goes on as it began; waiting tasks are given to the tiers as they are then. An error in "
        "the configuration changes nothing.",
        responses=problems(409, *NO_BODY),
        dependencies=[Depends(without_body(deps))],
    )
    async def reload() -> Response:
        try:
            await deps.tiers.reload()
        except ReloadRefused as error:
            raise ProblemError(ProblemCode.CONFIGURATION_INVALID, str(error)) from None
        return json_response(_list(deps))

    @routes.put(
        "/tiers/{name}/breaker",
        response_model=TierResource,
        summary="Open or close a breaker by hand",
        description="One that was opened by hand stays open until it is closed by hand.",
        responses=problems(404, 408, 413, 415, 422),
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": _SWITCH}}}},
    )
    async def switch(request: Request, name: str) -> Response:
        settings = deps.settings
        fields = await read_object(request, settings.max_json_bytes, settings.body_idle_s)
        wanted = BreakerSwitch.model_validate(fields)
        if not await asyncio.to_thread(deps.tiers.set_breaker, name, is_open=wanted.state == "open"):
            raise ProblemError(ProblemCode.TIER_NOT_FOUND, f"There is no tier {name[:64]!r}.")
        return json_response(next(tier for tier in _list(deps).tiers if tier.name == name))

    return routes


def _list(deps: ApiDependencies) -> TierList:
    return TierList(tiers=[_resource(view) for view in deps.tiers.resources()])


def _resource(view: dict[str, Any]) -> TierResource:
    until = view["breaker_until"]
    return TierResource(
        name=view["name"],
        renderer=view["renderer"],
        enabled=view["enabled"],
        degraded=view["degraded"],
        only_by_name=view["only_by_name"],
        down=view["absent"] or None,
        breaker=BreakerResource(
            state=view["breaker"],
            until=None if until is None else rfc3339(until),
            openings=view["breaker_openings"],
        ),
        slots=view["slots"],
        free=view["free"],
        running=view["running"],
        measured=MeasuredResource(attempts=view["measured"], success=view["success"], latency_s=view["latency_s"]),
    )
