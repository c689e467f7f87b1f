"""Threads that a service cannot do without. One that dies is told in the log, and ends readiness (`Vital.fault`)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol

import structlog

log = structlog.get_logger(__name__)


class Vital(Protocol):
    """A part whose work is never done before it is stopped."""

    @property
    def fault(self) -> str:
        """Why it does its work no more although nobody stopped it; empty: it does, or was stopped."""


def task_fault(name: str, task: asyncio.Task[None] | None) -> str:
    """`Vital.fault` of a part that lives in a task of the event loop."""
    if task is None or not task.done() or task.cancelled():
        return ""
    return f"the task {name} ended: {task.exception()!r}"


class VitalThread(threading.Thread):
    """A daemon thread whose `work` returns only when its owner wants it to."""

    def __init__(self, work: Callable[[], None], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self.fault = ""
        """See `Vital.fault`."""

    def run(self) -> None:
        """Work. Whatever that raises is the thread's end."""
        try:
            self._work()
        except BaseException as error:
            self.fault = f"the thread {self.name} died: {error!r}"
            hint = "Restart the service; nothing that was accepted is lost."
            log.critical("thread_died", thread=self.name, hint=hint, exc_info=True)

    def wind_up(self, timeout_s: float) -> bool:
        """Wait for its end, once it was told to end; False, and it is told, where it does not come in time."""
        if not self.is_alive() or self is threading.current_thread():
            return True
        self.join(timeout_s)
        if self.is_alive():
            log.error("thread_does_not_end", thread=self.name, waited_s=timeout_s)
        return not self.is_alive()
