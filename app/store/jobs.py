"""What waits for the writer: an operation, and the way in which its caller is answered."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from app.store.transaction import Transaction

T = TypeVar("T")
Operation = Callable[[Transaction], T]
"""Runs in the writer's thread, possibly more than once: it must touch nothing but its transaction."""

Outcome = tuple[Any, Exception | None]
"""The result of an operation, or its failure."""


@dataclass(slots=True, eq=False)
class ThreadJob:
    """An operation whose caller is a thread, or nobody."""

    operation: Operation[Any]
    future: Future[Any] = field(default_factory=Future)
    queued_at: float = field(default_factory=time.monotonic)

    def start(self) -> bool:
        """Whether anybody still wants it. Called once, before it is run for the first time."""
        return self.future.set_running_or_notify_cancel()


@dataclass(slots=True, eq=False)
class LoopJob:
    """An operation whose caller is a coroutine of `loop`."""

    operation: Operation[Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    queued_at: float = field(default_factory=time.monotonic)

    def start(self) -> bool:
        """Whether anybody still wants it."""
        return not self.future.cancelled()


Job = ThreadJob | LoopJob


def answer(outcomes: Sequence[tuple[Job, Outcome]]) -> None:
    """Answer the callers of one commit: each thread by itself, each event loop once for all of its callers.

    To wake a loop costs more than to run an operation, and a loop that runs keeps the writer from answering the rest.
    """
    of_loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Outcome]]] = defaultdict(list)
    for job, outcome in outcomes:
        if isinstance(job, LoopJob):
            of_loops[job.loop].append((job.future, outcome))
        else:
            _settle(job.future, outcome)
    for loop, some in of_loops.items():
        # A loop that is closed has no callers any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle_all, some)


def _settle_all(outcomes: Sequence[tuple[asyncio.Future[Any], Outcome]]) -> None:
    for future, outcome in outcomes:
        _settle(future, outcome)


def _settle(future: Future[Any] | asyncio.Future[Any], outcome: Outcome) -> None:
    result, failure = outcome
    if future.done():
        return  # Its caller has gone away.
    if failure is None:
        future.set_result(result)
    else:
        future.set_exception(failure)
