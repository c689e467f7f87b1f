"""The HTTP application, put together from its parts."""

from __future__ import annotations

from itertools import chain
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse, JSONResponse

from app.api import errors, examples
from app.api.allowed import Methods
from app.api.answering import ProblemDetails, problems
from app.api.docs_page import render_docs
from app.api.drop_in import duix, human
from app.api.holding import Holding
from app.api.middleware import RequestContext
from app.api.models import CallbackRequest, DeriveRequest, GenerateRequest
from app.api.ports import ApiDependencies
from app.api.routes import (
    deliveries,
    events,
    generate,
    observing,
    operations,
    output,
    page,
    queue,
    review,
    tasks,
    tiers,
    uploads,
)
from app.api.stream import EventHub
from app.api.strict_query import strict_query
from app.api.waiting import TaskWaiters

TITLE = "Greenroom"
_REF = "#/components/schemas/{model}"


def create_app(deps: ApiDependencies) -> FastAPI:
    """The application over `deps`. Starts and owns nothing: the caller does.

    `app.state.waiters.close()` answers all long-polls at once, `app.state.hub.close()` ends all event streams: call
    both first when the service is to stop.
    """
    app = FastAPI(
        title=TITLE,
        version=deps.settings.version,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # its Location is absolute: wrong behind a proxy
        # Nothing here exports to OpenTelemetry, and to look for an exporter takes a fifth of a submission's time.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    waiters, holding = TaskWaiters(deps.store), Holding(deps)
    hub = EventHub(deps.store, deps.pool)
    app.state.waiters, app.state.hub = waiters, hub
    routers = (
        generate.router(deps, waiters, holding),
        tasks.router(deps, waiters, holding),
        output.router(deps),
        events.router(deps, hub),
        deliveries.router(deps),
        review.router(deps, holding),
        uploads.router(deps),
        queue.router(deps, holding),
        observing.router(deps),
        tiers.router(deps),
    )
    for router in routers:
        app.include_router(router, dependencies=[Depends(strict_query)], responses=problems(422))
    others = [page.router(), operations.router(deps)]  # Probes may add what they like, to get past caches.
    if deps.drop_in.duix_dir is not None:
        others.append(duix.router(deps, holding, deps.drop_in.duix_dir))
    if deps.drop_in.save_roots:
        others.append(human.router(deps, waiters))
    for router in others:
        app.include_router(router)
    _describe(app, deps)
    app.state.methods = Methods(chain(app.routes, *(router.routes for router in (*routers, *others))))
    errors.install(app)
    app.add_middleware(RequestContext, observe=deps.observe_request, tracing=deps.tracing)
    return app


def _describe(app: FastAPI, deps: ApiDependencies) -> None:
    """OpenAPI with the models that routes read by hand, and a page made of it that needs no network."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            by_hand = (GenerateRequest, DeriveRequest, CallbackRequest, ProblemDetails, *review.MODELS, *tiers.MODELS)
            for model in (*by_hand, *((human.HumanRequest,) if deps.drop_in.save_roots else ())):
                described = model.model_json_schema(ref_template=_REF)
                described.pop("$defs", None)
                schemas[model.__name__] = described
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            for operation in (o for item in schema["paths"].values() for o in item.values()):
                # FastAPI's own 422, put in wherever there is a parameter; ours is named where it can happen.
                if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                    del operation["responses"]["422"]
            examples.install(schema)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    page: list[str] = []

    @app.get("/openapi.json", include_in_schema=False)
    async def description() -> JSONResponse:
        return JSONResponse(app.openapi())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        if not page:
            page.append(render_docs(app.openapi()))
        return HTMLResponse(page[0])
