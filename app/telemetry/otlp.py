"""Sends spans to a collector, as OTLP over HTTP. Imported only where one is configured.

The SDK batches them in a thread of its own and forgets the oldest when too many wait, so that a collector that is slow
or dead costs spans and never time. Its standard variables hold: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES,
OTEL_TRACES_SAMPLER, OTEL_BSP_*, OTEL_EXPORTER_OTLP_HEADERS, _TIMEOUT, _CERTIFICATE, _COMPRESSION.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from urllib.parse import urlsplit

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from app.tasks.ids import Tokens
from app.tasks.trace import TraceContext, span_id
from app.telemetry.tracing import Span

log = structlog.get_logger(__name__)

_SCOPE = "greenroom"
_PROTOCOLS, _PROTOCOL = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"), "http/protobuf"
_KINDS = {"internal": SpanKind.INTERNAL, "server": SpanKind.SERVER, "client": SpanKind.CLIENT}
_CLOSE_S = 3.0
"""What is left is sent for so long when the service stops."""


class OtlpTracing:
    """Records spans and exports them."""

    on = True

    def __init__(self, endpoint: str, *, instance: str) -> None:
        """`endpoint` is the address that spans are posted to; `instance` tells this service from others.

        Raises ValueError for standard variables that cannot be used.
        """
        for name in _PROTOCOLS:
            if (asked := os.environ.get(name, _PROTOCOL)) not in ("", _PROTOCOL):
                raise ValueError(f"{name} asks for {asked}; spans are sent as {_PROTOCOL} alone")
        resource = Resource({"service.name": "greenroom", "service.instance.id": instance}).merge(
            OTELResourceDetector().detect()
        )
        self._ids = _GivenIds()
        self._processor = BatchSpanProcessor(_Exporter(OTLPSpanExporter(endpoint), endpoint))
        self._provider = TracerProvider(
            resource=Resource.create(resource.attributes), id_generator=self._ids, shutdown_on_exit=False
        )
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer(_SCOPE)
        self._tokens = Tokens()

    def begin(self, caller: TraceContext | None) -> TraceContext:
        """A new span of the caller's trace, or of one of our own. Here alone it is decided whether to record it."""
        trace_id = self._tokens.take(32) if caller is None else caller.trace_id
        parent = None if caller is None else _under(caller, caller.span_id)
        decided = self._provider.sampler.should_sample(parent, int(trace_id, 16), "request", SpanKind.SERVER)
        return TraceContext(trace_id, self._tokens.take(16), decided.decision is Decision.RECORD_AND_SAMPLE)

    def below(self, context: TraceContext, *of: object) -> TraceContext:
        """The span about `of`."""
        return context.at(span_id(*of))

    def record(self, span: Span) -> None:
        """Queue the span for export."""
        if not span.context.sampled:
            return
        self._ids.give(span.context)
        made = self._tracer.start_span(
            span.name,
            _under(span.context, span.parent_id) if span.parent_id else trace.set_span_in_context(trace.INVALID_SPAN),
            _KINDS[span.kind],
            dict(span.attributes),
            start_time=_ns(span.began),
        )
        if span.error is not None:
            made.set_status(Status(StatusCode.ERROR, span.error))
        made.end(_ns(max(span.began, span.ended)))

    def close(self) -> None:
        """Send what is left, for a moment."""
        # The SDK's own limit is 30 s, and a collector that hangs would use them.
        last = threading.Thread(target=self._provider.shutdown, name="tracing-close", daemon=True)
        last.start()
        last.join(_CLOSE_S)


class _GivenIds(IdGenerator):
    """Spans have their ids before the SDK hears of them: each thread says which come next."""

    def __init__(self) -> None:
        self._next = threading.local()

    def give(self, context: TraceContext) -> None:
        self._next.context = context

    def generate_span_id(self) -> int:
        return int(self._next.context.span_id, 16)

    def generate_trace_id(self) -> int:
        return int(self._next.context.trace_id, 16)


class _Exporter(SpanExporter):
    """Exports, and says once when that fails and once when it works again: the SDK's own words come with each batch."""

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        parts = urlsplit(endpoint)
        self._collector = f"{parts.scheme}://{parts.hostname}:{parts.port}"
        self._words = _LastWords()
        logger = logging.getLogger("opentelemetry")
        logger.handlers, logger.propagate = [self._words], False
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            if self._lost:
                log.info("tracing_resumed", collector=self._collector, spans_lost=self._lost)
            self._lost = 0
            return result
        if not self._lost:
            hint = "Spans are dropped until it answers. Look at the collector, or unset the endpoint."
            log.warning("spans_not_exported", collector=self._collector, reason=self._words.text, hint=hint)
        self._lost += len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class _LastWords(logging.Handler):
    """Keeps the last that the SDK had to say."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = "The collector refused them."

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


def _under(context: TraceContext, parent_id: str) -> Context:
    """What the SDK takes for the parent of a span."""
    flags = TraceFlags(TraceFlags.SAMPLED if context.sampled else TraceFlags.DEFAULT)
    parent = SpanContext(int(context.trace_id, 16), int(parent_id, 16), is_remote=True, trace_flags=flags)
    return trace.set_span_in_context(trace.NonRecordingSpan(parent))


def _ns(at: float) -> int:
    return round(at * 1e9)
