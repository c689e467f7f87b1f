"""What holds the whole queue here, so that a waiting task can say why it waits and for how long."""

from __future__ import annotations

import contextlib
import time

from app.api.ports import READY_STATES, ApiDependencies
from app.api.why_waiting import Holds
from app.store.errors import StoreUnavailable

FRESH_S = 0.25
"""How old the word of the database may be: answers to submissions should not pay for a read each."""


class Holding:
    """Reads what holds the queue. For one event loop."""

    def __init__(self, deps: ApiDependencies) -> None:
        self._deps = deps
        self._paused = False
        self._read_at = float("-inf")

    async def now(self) -> Holds:
        """The holds now. A pause by another process shows after `FRESH_S`; a database that is away changes nothing.

        It must not raise: an answer that tells of a task which was written is not to become one that denies it.
        """
        now = time.monotonic()
        if now - self._read_at >= FRESH_S:
            self._read_at = now  # Others that ask meanwhile go by the last word: one read at a time is enough.
            with contextlib.suppress(StoreUnavailable):
                self._paused = await self._deps.store.apaused()
        await self._deps.forecast.refresh()
        slots = self._deps.pool.slots()
        return Holds(
            draining=self._deps.pool.draining(),
            paused=self._paused,
            of_route=self._deps.tiers.hold,
            no_ready_slot=not any(slot.state in READY_STATES for slot in slots),
        )

    async def set_paused(self, paused: bool) -> None:
        """Pause or resume the queue."""
        await self._deps.store.aset_paused(paused)
        self._paused, self._read_at = paused, time.monotonic()
