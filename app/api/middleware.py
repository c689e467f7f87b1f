"""One pure ASGI layer around all routes: request id, trace id, log context, metrics, and the last net for errors."""

from __future__ import annotations

import re
import time
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import problem_of, unexpected
from app.api.ports import RequestObserver
from app.api.stream import LASTING
from app.tasks.ids import Tokens
from app.tasks.trace import TraceContext, parse
from app.telemetry.tracing import Span, Tracing

_log = structlog.get_logger("greenroom.http")

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CLIENT_LEFT = 499
"""Counted, never sent: the client went away before there was an answer (nginx's number)."""
_UNTRACED = ("/health/", "/metrics")
"""Asked for every few seconds by machines: no spans of these."""
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


def route_template(scope: Scope) -> str:
    """The path template of the route that served the request, `unmatched` where none did: never a raw path."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "unmatched"


class RequestContext:
    """Outermost layer of the application."""

    def __init__(self, app: ASGIApp, observe: RequestObserver, tracing: Tracing) -> None:
        self._app = app
        self._observe = observe
        self._tracing = tracing
        self._tokens = Tokens()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, began = time.perf_counter(), time.time()
        headers = Headers(scope=scope)
        request_id = headers.get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = self._tokens.take(16)
        caller = parse(headers.get("traceparent"))
        trace = self._tracing.begin(caller)
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"], state["trace"] = request_id, trace
        status, route = 0, "unmatched"

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id, trace_id=trace.trace_id):
            try:
                # A copy, so that what the inner layers put into it goes with them.
                inner = dict(scope)
                try:
                    await self._app(inner, receive, send_named)
                finally:
                    route = route_template(inner)
                    del inner
                if (lasting := state.pop(LASTING, None)) is not None:
                    await lasting.last(receive, send_named)
            except Exception as error:
                problem = problem_of(error) or unexpected(error)
                if status:
                    raise  # The answer is under way: the server must cut it off, so that it does not look whole.
                response = problem.response(instance=scope["path"], request_id=request_id)
                await response(scope, receive, send_named)
            finally:
                seconds = time.perf_counter() - started
                method = scope["method"]
                # A label that callers could make up would grow the metrics without bound.
                known = method if method in _METHODS else "OTHER"
                self._observe(known, route, status or _CLIENT_LEFT, seconds)
                if self._tracing.on and not route.startswith(_UNTRACED):
                    span = _span(trace, caller, known, route, status or _CLIENT_LEFT, began, began + seconds)
                    self._tracing.record(span)
                _log.debug("request", method=method, route=route, status=status, ms=round(seconds * 1000, 2))


def _span(
    trace: TraceContext, caller: TraceContext | None, method: str, route: str, status: int, began: float, ended: float
) -> Span:
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": status,
    }
    return Span(
        trace, caller.span_id if caller else "", f"{method} {route}", "server", began, ended, attributes,
        f"The answer was {status}." if status >= 500 else None,
    )  # fmt: skip
