"""Structured logs: one JSON object a line, or readable lines on a terminal, on standard error."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Mapping
from typing import Any, Literal, TextIO, cast

import structlog

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_OWN = frozenset({"timestamp", "self", "method_name"})
"""What a line of a process may call something, and this log cannot: it has its own time, and calls of these names."""


class Unfailing:
    """A stream for logs that never raises: a disk that is full, or a reader that is gone, costs lines and no work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write, if that can be done."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        """Flush, if that can be done."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def configure_logging(log_format: Literal["auto", "json", "console"] = "auto", level: str = "info") -> None:
    """Set up structlog and the standard library's logging (uvicorn, alembic) to write the same lines."""
    pretty = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    tail: list[structlog.typing.Processor] = [] if pretty else [structlog.processors.format_exc_info]
    structlog.configure(
        processors=[*shared, *tail, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", Unfailing(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *tail, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(_LEVELS[level], logging.WARNING) if level != "debug" else logging.INFO)


def relay_worker_line(slot: str, line: str, about: Mapping[str, Any]) -> None:
    """Write a line of a slot's process into the service's log: its own JSON with the slot added, other text as is.

    `about` is what runs there; what the line itself says of that goes first.
    """
    log = structlog.get_logger("app.worker.output")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # brackets without end are text
        record = None
    if isinstance(record, dict) and isinstance(record.get("event"), str):
        event, level = record.pop("event"), str(record.pop("level", "info"))
        record = {**about, **{name: value for name, value in record.items() if name not in _OWN}, "slot": slot}
        getattr(log, level if level in _LEVELS else "info")(event, **record)
    else:
        log.info("worker_output", **{**about, "slot": slot}, line=line)
