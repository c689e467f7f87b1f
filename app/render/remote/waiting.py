"""A render that happens elsewhere: run as a coroutine that ends when the task is cancelled, and watched for silence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from app.render.contract import Cancelled, Progress
from app.retry.taxonomy import CodedError, FailureCode

_LOOK_S = 0.1
"""How often the cancel flag is looked at: a cancelled task holds its slot that much longer."""
_GLITCHES = frozenset(
    {
        FailureCode.UPSTREAM_TIMEOUT,
        FailureCode.UPSTREAM_CONNECTION,
        FailureCode.UPSTREAM_5XX,
        FailureCode.UPSTREAM_BUSY,
    }
)
T = TypeVar("T")


async def until_cancelled(work: Coroutine[Any, Any, T], progress: Progress) -> T:
    """The result of `work`. Raises `Cancelled` once the task is; `work` was cancelled and has cleaned up by then."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=_LOOK_S))[0]:
            progress.check()
        return task.result()
    except Cancelled:
        task.cancel()
        await asyncio.wait({task})
        raise


async def to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await `work`, which bounds its own time, whatever cancels the caller meanwhile.

    A cancel may be heard twice: by the render, in a report of its progress, and by `until_cancelled`. The second must
    not cut off what the first has begun to tidy up.
    """
    task = asyncio.ensure_future(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    task.result()


class Patience:
    """Decides when a render elsewhere is given up: unanswered looks for `unreachable_s`, no change for `silence_s`.

    A glitch of a server that renders for half an hour must not cost the render.
    """

    def __init__(
        self,
        what: str,
        *,
        unreachable_s: float,
        silence_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`what` names the render in errors, e.g. `task 17 of the Duix server`."""
        self._what = what
        self._unreachable_s = unreachable_s
        self._silence_s = silence_s
        self._clock = clock
        self._answered = clock()
        self._state: object = None
        self._changed = clock()

    def unanswered(self, error: CodedError) -> None:
        """A look failed. Raises `error` if it is none that may pass, or the server was away for too long."""
        if error.code not in _GLITCHES or self._clock() - self._answered >= self._unreachable_s:
            raise error

    def answered(self, state: object, words: str) -> None:
        """The server answered; `state` is compared with the last one, `words` tell it in the error.

        Raises CodedError UPSTREAM_TIMEOUT, reason `silent`, once nothing has changed for too long.
        """
        now = self._answered = self._clock()
        if state != self._state:
            self._state, self._changed = state, now
        elif (stood := now - self._changed) >= self._silence_s:
            raise CodedError(
                FailureCode.UPSTREAM_TIMEOUT,
                f"{self._what} shows no change since {stood:.0f} s ({words}); {self._silence_s:.0f} s are allowed.",
                reason="silent",
                seconds=round(stood, 1),
            )
