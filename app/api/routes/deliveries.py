"""What became of the notices of a task, and sending them again."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Response
from pydantic import ConfigDict, Field

from app.api.answering import json_response, not_found, problems
from app.api.described import Described
from app.api.errors import invalid_request
from app.api.ports import ApiDependencies
from app.api.problem_codes import ProblemCode
from app.api.problems import FieldError, ProblemError
from app.api.resource import rfc3339
from app.api.strict_body import NO_BODY, without_body
from app.store.cursor import decode_number, encode_number
from app.store.deliveries import Delivery, DeliveryState, event_of
from app.tasks.notices import PROGRESS

MAX_ID = 128


class TryResource(Described):
    """One try. `status` is the endpoint's HTTP answer; where that says too little, `error` and `message` say more."""

    at: str
    """When it was sent."""
    seconds: float
    """How long it took."""
    status: int | None
    """HTTP status of the answer; null where there was none."""
    error: str | None
    """A word for programs, as `READ_TIMEOUT`; null where the answer says enough."""
    message: str | None
    """The same for people."""


class DeliveryResource(Described):
    """One notice. `id` is its `webhook-id`; `event_id` and `at` are those of the event that it tells."""

    id: str
    """Its `webhook-id`."""
    event_id: int
    """The event that it tells."""
    task_id: str
    """The task that it tells of."""
    type: str
    """What happened, as `task.succeeded`."""
    at: str
    """When it happened."""
    state: DeliveryState
    """`pending`, `delivered`, `dead` (given up), `disabled` (its endpoint has said 410) or `dropped` (progress that
    is out of date).
    """
    next_try_at: str | None
    """Null where it is being sent just now, waits for an earlier notice of its task, or is over."""
    ended_at: str | None
    """When it was delivered or given up."""
    tries: list[TryResource]
    """Each try, oldest first."""


class TaskDeliveries(Described):
    """The notices of one task, oldest first."""

    deliveries: list[DeliveryResource]
    """All of them."""


class DeliveryLinks(Described):
    """Where to go on; null on the last page."""

    next: str | None
    """The address of the next page."""


class DeliveryPage(Described):
    """Notices of all tasks, newest first."""

    deliveries: list[DeliveryResource]
    """At most `limit`."""
    links: DeliveryLinks
    """Where to go on."""


class Replayed(Described):
    """The notices that are sent again, by their ids."""

    replayed: list[str]
    """Their `webhook-id`s, in the order in which they are sent."""


class DeliveryQuery(Described):
    """The query of `GET /deliveries`."""

    model_config = ConfigDict(extra="forbid")

    state: DeliveryState = Field("dead", description="Left out: those that were given up.")
    cursor: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(None, description="From `links.next`.")
    limit: Annotated[int, Field(ge=1, le=200)] = Field(50, description="Notices of a page.")


def router(deps: ApiDependencies) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["webhooks"])
    bare = [Depends(without_body(deps))]
    outbox = deps.store.outbox

    async def known(task_id: str) -> str:
        if len(task_id) > MAX_ID or await deps.store.aget(task_id) is None:
            raise not_found(task_id)
        return task_id

    @routes.get(
        "/tasks/{task_id}/deliveries", response_model=TaskDeliveries,
        summary="The notices of a task, with every try to deliver them", responses=problems(404),
    )  # fmt: skip
    async def of_task(task_id: str) -> Response:
        found = await outbox.adeliveries(await known(task_id))
        return json_response(TaskDeliveries(deliveries=[delivery_resource(one) for one in found]))

    @routes.post(
        "/tasks/{task_id}/deliveries/replay", status_code=202, response_model=Replayed,
        summary="Send all notices of a task again", responses=problems(404, *NO_BODY), dependencies=bare,
        description="With their ids, in their order, with all tries anew; those of progress are left out.",
    )  # fmt: skip
    async def replay_all(task_id: str) -> Response:
        replayed = await outbox.areplay(await known(task_id))
        return json_response(Replayed(replayed=[f"{task_id}_{event_id}" for event_id in replayed]), 202)

    @routes.post(
        "/tasks/{task_id}/deliveries/{delivery_id}/replay", status_code=202, response_model=Replayed,
        summary="Send one notice again", responses=problems(404, 409, *NO_BODY), dependencies=bare,
    )  # fmt: skip
    async def replay_one(task_id: str, delivery_id: str) -> Response:
        event_id = event_of(delivery_id, await known(task_id))
        found = [one for one in await outbox.adeliveries(task_id) if one.event_id == event_id]
        if not found:
            raise ProblemError(ProblemCode.DELIVERY_NOT_FOUND, f"The task has no delivery {delivery_id[:128]!r}.")
        if found[0].type == PROGRESS:
            raise ProblemError(ProblemCode.DELIVERY_NOT_REPLAYABLE)
        await outbox.areplay(task_id, event_id)
        return json_response(Replayed(replayed=[delivery_id]), 202)

    @routes.get(
        "/deliveries", response_model=DeliveryPage, summary="Notices in one state, by default those that were given up",
        responses=problems(422),
    )  # fmt: skip
    async def in_state(query: Annotated[DeliveryQuery, Query()]) -> Response:
        try:
            before = None if query.cursor is None else decode_number(query.cursor)
        except ValueError:
            text = "The cursor is not one of `links.next`."
            raise invalid_request([FieldError("cursor", ProblemCode.REQUEST_INVALID, "cursor", text)]) from None
        found = await outbox.alist(query.state, before=before, limit=query.limit + 1)
        page = found[: query.limit]
        more = None
        if len(found) > query.limit:
            pairs = {"state": query.state, "limit": query.limit, "cursor": encode_number(page[-1].event_id)}
            more = f"/deliveries?{urlencode(pairs)}"
        shown = [delivery_resource(one) for one in page]
        return json_response(DeliveryPage(deliveries=shown, links=DeliveryLinks(next=more)))

    return routes


def delivery_resource(delivery: Delivery) -> DeliveryResource:
    """A delivery as a resource."""
    return DeliveryResource(
        id=delivery.id,
        event_id=delivery.event_id,
        task_id=delivery.task_id,
        type=delivery.type,
        at=rfc3339(delivery.at),
        state=delivery.state,
        next_try_at=None if delivery.next_at is None else rfc3339(delivery.next_at),
        ended_at=None if delivery.ended_at is None else rfc3339(delivery.ended_at),
        tries=[
            TryResource(
                at=rfc3339(t.at), seconds=round(t.seconds, 3), status=t.status, error=t.error, message=t.message
            )
            for t in delivery.tries
        ],
    )
