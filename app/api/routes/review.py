"""A person's word on a video that the quality gate did not pass: approve it, reject it, or have it made again."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.api.answering import not_found, problems, task_response
from app.api.body import read_object
from app.api.chaining import MAX_ID
from app.api.described import Described
from app.api.draft import route_of
from app.api.errors import field_errors, invalid_request
from app.api.holding import Holding
from app.api.models import JsonObject
from app.api.ports import ApiDependencies
from app.api.problem_codes import ProblemCode
from app.api.problems import ProblemError
from app.api.routes.tasks import load
from app.api.submission import check_options, default_fallback
from app.api.task_schema import TaskResource
from app.store.errors import NotInReview
from app.store.records import Order, TaskRecord, Verdict
from app.tiers.tiers import Work

Who = Annotated[str, Field(min_length=1, max_length=200, description="Who decides, as the record shall show it.")]
Reason = Annotated[str, Field(max_length=2000)]


class ApproveRequest(Described):
    """The body of `POST /tasks/{id}/approve`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    who: Who
    reason: Reason = ""
    """Why; kept with the word."""


class RejectRequest(Described):
    """The body of `POST /tasks/{id}/reject`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    who: Who
    reason: Annotated[Reason, Field(min_length=1)]
    """Why; kept with the word, and told to the caller."""


class RerenderRequest(Described):
    """The body of `POST /tasks/{id}/rerender`. What is left out stays as it was."""

    model_config = ConfigDict(extra="forbid", strict=True)

    who: Who
    reason: Reason = ""
    """Why; kept with the word."""
    renderer: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """Another tier or renderer."""
    options: JsonObject | None = Field(None, description="All options of the renderer; they replace the old ones.")


M = TypeVar("M", bound=BaseModel)
MODELS = (ApproveRequest, RejectRequest, RerenderRequest)


def _body(model: type[BaseModel]) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def router(deps: ApiDependencies, holding: Holding) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["review"])

    async def answer(task_id: str, task: TaskRecord | None) -> Response:
        if task is None:
            raise not_found(task_id)
        return task_response(await load(deps, task_id), deps, holds=await holding.now())

    @routes.post(
        "/tasks/{task_id}/approve", response_model=TaskResource, summary="Approve a video in review",
        responses=problems(404, 408, 409, 413, 415, 422), openapi_extra=_body(ApproveRequest),
    )  # fmt: skip
    async def approve(request: Request, task_id: str) -> Response:
        word = await _read(request, ApproveRequest, task_id, deps)
        try:
            return await answer(task_id, await deps.store.aapprove(task_id, Verdict(word.who, word.reason)))
        except NotInReview as error:
            raise _not_in_review(error) from None

    @routes.post(
        "/tasks/{task_id}/reject", response_model=TaskResource, summary="Reject a video in review",
        responses=problems(404, 408, 409, 413, 415, 422), openapi_extra=_body(RejectRequest),
    )  # fmt: skip
    async def reject(request: Request, task_id: str) -> Response:
        word = await _read(request, RejectRequest, task_id, deps)
        try:
            return await answer(task_id, await deps.store.areject(task_id, Verdict(word.who, word.reason)))
        except NotInReview as error:
            raise _not_in_review(error) from None

    @routes.post(
        "/tasks/{task_id}/rerender", response_model=TaskResource, summary="Have a video in review made again",
        responses=problems(404, 408, 409, 413, 415, 422), openapi_extra=_body(RerenderRequest),
    )  # fmt: skip
    async def rerender(request: Request, task_id: str) -> Response:
        word = await _read(request, RerenderRequest, task_id, deps)
        task = await load(deps, task_id)
        order = _order(task, word, deps)
        try:
            moved = await deps.store.arerender(task_id, Verdict(word.who, word.reason), order)
        except NotInReview as error:
            raise _not_in_review(error) from None
        return await answer(task_id, moved)

    return routes


def _order(task: TaskRecord, word: RerenderRequest, deps: ApiDependencies) -> Order:
    """What is made instead. Raises REQUEST_INVALID: options that stay are checked too, since tiers have others."""
    renderer, fallback = task.renderer, task.fallback
    if word.renderer is not None:
        renderer, fallback = word.renderer, default_fallback(word.renderer)
    options = task.options if word.options is None else word.options
    check_options(renderer, fallback, options, deps)
    route = route_of(Work(renderer, fallback, options, task.source.media, task.audio.media), deps)
    return Order(renderer, fallback, options, route)


async def _read(request: Request, model: type[M], task_id: str, deps: ApiDependencies) -> M:
    if len(task_id) > MAX_ID:
        raise not_found(task_id)
    fields = await read_object(request, deps.settings.max_json_bytes, deps.settings.body_idle_s)
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise invalid_request(field_errors(error.errors(include_input=False, include_url=False))) from None


def _not_in_review(error: NotInReview) -> ProblemError:
    return ProblemError(ProblemCode.TASK_NOT_IN_REVIEW, f"The task is {error.status}.", state=error.status.value)
