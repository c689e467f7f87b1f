"""The event stream of a service, over as many connections as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import httpx

from greenroom.client.connection import ATTEMPTS, Connection, segment
from greenroom.client.errors import ApiError, ServiceUnreachable
from greenroom.client.models import Event
from greenroom.client.sse import read_events

_SILENCE_S = 45.0
"""A stream without even a comment for so long is dead: the service sends one every 15 s."""


async def follow(
    connection: Connection, task_id: str | None, types: Sequence[str] = (), after: int | None = None
) -> AsyncGenerator[Event | None, None]:
    """Events of one task until its end, or of all for ever; None for each sign of life between them.

    A broken connection goes on where it broke. Raises `ApiError`, and `ServiceUnreachable` once the service stays away.
    """
    path = "/events" if task_id is None else f"/tasks/{segment(task_id)}/events"
    query = httpx.QueryParams({"type": list(types)} if types else {})
    last = after
    failures = 0
    while True:
        headers = {"accept": "text/event-stream"} | ({} if last is None else {"last-event-id": str(last)})
        try:
            timeout = httpx.Timeout(_SILENCE_S, connect=5.0)
            async with connection.stream(path, params=query, headers=headers, timeout=timeout) as response:
                if response.status_code == 204:
                    return
                async for event in read_events(response.aiter_lines()):
                    failures = 0
                    if event is not None and event["id"] is not None:
                        last = event["id"]
                    yield event
            if task_id is not None:
                return
        except httpx.TransportError as error:
            failures += 1
            if failures >= ATTEMPTS:
                raise ServiceUnreachable(
                    f"{connection.url} cannot be reached: {error or type(error).__name__}."
                ) from error
        except ApiError as error:
            failures += 1
            if not error.is_transient or failures >= ATTEMPTS:
                raise
        await asyncio.sleep(min(0.25 * 2**failures, 8.0))
