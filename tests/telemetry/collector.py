"""A collector: takes spans as OTLP over HTTP, and answers as a test tells it to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2


@dataclass(frozen=True)
class Got:
    """A span as it arrived. Times in epoch seconds."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    began: float
    ended: float
    attributes: dict[str, Any]
    failed: bool
    message: str
    resource: dict[str, Any]


class Collector:
    """`spans` in the order of arrival. `status` is what it answers; while `hold` is not set it does not answer."""

    def __init__(self) -> None:
        self.spans: list[Got] = []
        self.requests = 0
        self.status = 200
        self.hold = threading.Event()
        self.hold.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["content-length"]))
                collector.requests += 1
                collector.hold.wait(60)
                if collector.status == 200 and self.path == "/v1/traces":
                    collector.spans += spans_in(content)
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_words: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def named(self, name: str) -> list[Got]:
        """The spans of this name, in the order in which they began."""
        return sorted((span for span in self.spans if span.name == name), key=lambda span: span.began)

    def where(self, wanted: Callable[[Got], bool]) -> list[Got]:
        return [span for span in self.spans if wanted(span)]


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    try:
        yield collector
    finally:
        collector.close()


def spans_in(content: bytes) -> list[Got]:
    request = ExportTraceServiceRequest.FromString(content)
    return [
        Got(
            span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), span.name,
            trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
            span.start_time_unix_nano / 1e9, span.end_time_unix_nano / 1e9, values(span.attributes),
            span.status.code == trace_pb2.Status.STATUS_CODE_ERROR, span.status.message,
            values(group.resource.attributes),
        )
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]  # fmt: skip


def values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
