"""One pure ASGI layer around all routes: request id, trace id, log context, metrics, and the last net for errors."""

from __future__ import annotations

import re
import secrets
import time
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import unexpected
from app.api.ports import RequestObserver

_log = structlog.get_logger("greenroom.http")

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CLIENT_LEFT = 499
"""Counted, never sent: the client went away before there was an answer (nginx's number)."""
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


def trace_id_of(traceparent: str | None) -> str | None:
    """The trace id of a W3C `traceparent`, None where there is none or it is malformed."""
    match = _TRACEPARENT.fullmatch((traceparent or "").strip())
    if match and match[1] != "ff" and not (match[1] == "00" and match[5]) and set(match[2]) != {"0"} != set(match[3]):
        return match[2]
    return None


def route_template(scope: Scope) -> str:
    """The path template of the route that served the request, `unmatched` where none did: never a raw path."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "unmatched"


class _Tokens:
    """Random hex. Entropy is fetched for many at once: each call into the system gives other threads the turn."""

    def __init__(self) -> None:
        self._ready = ""

    def take(self, digits: int) -> str:
        """So many hex digits, at most 64."""
        if len(self._ready) < digits:
            self._ready = secrets.token_hex(1024)
        taken, self._ready = self._ready[:digits], self._ready[digits:]
        return taken


class RequestContext:
    """Outermost layer of the application."""

    def __init__(self, app: ASGIApp, observe: RequestObserver) -> None:
        self._app = app
        self._observe = observe
        self._tokens = _Tokens()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = Headers(scope=scope)
        request_id = headers.get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = self._tokens.take(16)
        trace_id = trace_id_of(headers.get("traceparent")) or self._tokens.take(32)
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"], state["trace_id"] = request_id, trace_id
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id, trace_id=trace_id):
            try:
                await self._app(scope, receive, send_named)
            except Exception as error:
                problem = unexpected(error)
                if status:
                    raise  # The answer is under way: the server must cut it off, so that it does not look whole.
                response = problem.response(instance=scope["path"], request_id=request_id)
                await response(scope, receive, send_named)
            finally:
                seconds = time.perf_counter() - started
                route, method = route_template(scope), scope["method"]
                # A label that callers could make up would grow the metrics without bound.
                self._observe(method if method in _METHODS else "OTHER", route, status or _CLIENT_LEFT, seconds)
                _log.debug("request", method=method, route=route, status=status, ms=round(seconds * 1000, 2))
