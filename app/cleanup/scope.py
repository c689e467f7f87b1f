"""The cleanup scope of an attempt: steps that run on every exit path, each logged, none stopping the next."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

import structlog

log = structlog.get_logger(__name__)


class CleanupScope:
    """A context manager over cleanup steps, run last in, first out, once each.

    It differs from `contextlib.ExitStack` in three ways that this service needs: a failing step is logged and
    does not replace the error on its way out, every step is logged, and a step can be run early by its name.
    """

    def __init__(self) -> None:
        self._steps: dict[str, Callable[[], None]] = {}

    def add(self, name: str, step: Callable[[], None]) -> None:
        """Register a step. Names are unique within a scope."""
        if name in self._steps:
            raise ValueError(f"cleanup step {name!r} is registered already")
        self._steps[name] = step

    def run(self, name: str) -> None:
        """Run one step now, if it has not run yet."""
        step = self._steps.pop(name, None)
        if step is None:
            return
        began = time.monotonic()
        try:
            step()
        except Exception:
            log.exception("cleanup_step_failed", step=name)
        else:
            log.debug("cleanup_step", step=name, ms=round((time.monotonic() - began) * 1000, 1))

    def __enter__(self) -> CleanupScope:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in reversed(list(self._steps)):
            self.run(name)
