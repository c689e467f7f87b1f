"""When something that a render depends on counts as gone: only after it was missing for a while, without a break."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from app.retry.taxonomy import CodedError, FailureCode

LOST_AFTER_S = 60.0
"""Source: the origin's rule for running tasks whose record vanished."""


class Presence:
    """Looks at one thing that may vanish: the remote counterpart of a render, or the record of a running task.

    Tell it what each look found. A look that found out nothing (the other side did not answer) is not told: it is
    neither a sign of life nor of loss. Not safe to share between threads.
    """

    def __init__(
        self, what: str, lost_after_s: float = LOST_AFTER_S, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`what` names the thing in the error's message, e.g. `prompt 17 of the ComfyUI server`."""
        self._what = what
        self._lost_after_s = lost_after_s
        self._clock = clock
        self._missing_since: float | None = None

    def seen(self) -> None:
        """It is there: what was missed before no longer counts."""
        self._missing_since = None

    def missing(self, **detail: Any) -> None:
        """It is not there.

        Raises CodedError TASK_LOST, with `detail`, once no look has seen it for `lost_after_s` from the first that
        missed it.
        """
        now = self._clock()
        if self._missing_since is None:
            self._missing_since = now
        gone_s = now - self._missing_since
        if gone_s >= self._lost_after_s:
            raise CodedError(
                FailureCode.TASK_LOST,
                f"{self._what} vanished: it was not there for {gone_s:.0f} s.",
                missing_s=round(gone_s, 1),
                **detail,
            )
