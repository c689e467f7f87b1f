"""The connection to one service: what can pass is tried again, and what cannot is raised in this package's words."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from greenroom.client.errors import ApiError, ServiceUnreachable

URL_VARIABLE = "GREENROOM_URL"
DEFAULT_URL = "http://127.0.0.1:8000"
ATTEMPTS = 6
"""With the waits below a restart of the service (a few seconds) is ridden out."""
_BACKOFF = wait_random_exponential(multiplier=0.25, max=8.0)

T = TypeVar("T")


class Connection:
    """Over HTTP, to be used by many tasks of one event loop."""

    def __init__(
        self,
        url: str | None,
        *,
        client_id: str | None,
        attempts: int,
        timeout_s: float,
        headers: Mapping[str, str] | None,
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        """See `AsyncClient`."""
        self.url = (url or os.environ.get(URL_VARIABLE) or DEFAULT_URL).rstrip("/")
        own = {"accept": "application/json", **({"x-client-id": client_id} if client_id else {}), **(headers or {})}
        self._http = httpx.AsyncClient(
            base_url=self.url,
            timeout=httpx.Timeout(timeout_s, connect=5.0),
            headers=own,
            transport=transport,
            limits=httpx.Limits(max_connections=200),
        )
        self._retrying = AsyncRetrying(
            retry=retry_if_exception(_is_transient), stop=stop_after_attempt(attempts), wait=_wait, reraise=True
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """One request, sent once. `arguments` are httpx's. Raises `ApiError` and httpx's errors."""
        response = await self._http.request(method, path, **arguments)
        if response.status_code >= 400:
            raise ApiError(response)
        return response

    @asynccontextmanager
    async def stream(self, path: str, **arguments: Any) -> AsyncGenerator[httpx.Response, None]:
        """The answer to one GET, to be read as it comes. Raises as `request` does."""
        async with self._http.stream("GET", path, **arguments) as response:
            if response.status_code >= 400:
                await response.aread()
                raise ApiError(response)
            yield response

    async def call(self, once: Callable[[], Awaitable[T]]) -> T:
        """Call `once` again while what it raises can pass. Raises `ApiError`, `ServiceUnreachable`."""

        async def awaited() -> T:  # tenacity awaits coroutine functions only
            return await once()

        try:
            # tenacity keeps the state of a call in the object: one each, since many calls run side by side.
            return await self._retrying.copy()(awaited)
        except httpx.TimeoutException as error:
            raise ServiceUnreachable(f"{self.url} did not answer in time ({type(error).__name__}).") from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise ServiceUnreachable(f"{self.url} cannot be reached: {error or type(error).__name__}.") from error


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, ApiError):
        return error.is_transient
    return isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_s if isinstance(error, ApiError) else None
    return asked if asked is not None else _BACKOFF(state)


def segment(task_id: str) -> str:
    """An id as one part of an address, whatever stands in it."""
    return quote(task_id, safe="")
