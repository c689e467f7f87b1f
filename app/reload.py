"""Changing the tiers of a running service without losing a task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog

from app.store.interface import Store
from app.store.records import TaskFilter
from app.tasks.status import CLAIMABLE
from app.tiers.tiers import Tiers
from app.worker.board import TierBoard
from app.worker.launch import Served
from app.worker.pool import LocalPool
from app.worker.slots import SlotPlan

log = structlog.get_logger(__name__)

_FINGERPRINT = "tiers"
_PAGE = 500


class TierControl:
    """Puts tiers in force: the board, the slots, and the routes of the tasks that wait."""

    def __init__(
        self,
        *,
        read: Callable[[], Tiers],
        board: TierBoard,
        pool: LocalPool,
        plan: Callable[[Tiers], tuple[Sequence[SlotPlan], Mapping[str, Sequence[Served]]]],
        store: Store,
    ) -> None:
        """`read` reads the configuration anew and may raise; `plan` makes slots for tiers."""
        self._read = read
        self._board = board
        self._pool = pool
        self._plan = plan
        self._store = store
        self._one_at_a_time = asyncio.Lock()

    async def reload(self) -> Tiers:
        """Read the configuration and put its tiers in force. What runs goes on as it began.

        Raises what `read` raises, with everything left as it was.
        """
        async with self._one_at_a_time:
            tiers = await asyncio.to_thread(self._read)
            plans, serves = self._plan(tiers)
            self._board.replace(tiers)
            self._pool.reconfigure(plans, serves)
            log.info("tiers_in_force", tiers=[tier.name for tier in tiers.enabled])
            await self._reroute()
            return tiers

    async def start(self) -> None:
        """Give waiting tasks their routes if the tiers have changed since they were queued."""
        async with self._one_at_a_time:
            await self._reroute()

    async def _reroute(self) -> None:
        """Compute the routes of waiting tasks anew; the last thing is to remember that it was done."""
        tiers = self._board.tiers
        if await asyncio.to_thread(self._store.kept, _FINGERPRINT) == tiers.fingerprint:
            return
        cursor: str | None = None
        while True:
            page = await self._store.alist(TaskFilter(status=tuple(CLAIMABLE)), cursor=cursor, limit=_PAGE)
            changed: dict[tuple[str, ...], list[str]] = {}
            for task in page.tasks:
                route = self._board.eligible(task)
                if route != task.route:
                    changed.setdefault(route, []).append(task.id)
            for route, task_ids in changed.items():
                await self._store.areroute(route, task_ids)
            cursor = page.next_cursor
            if cursor is None:
                break
        await asyncio.to_thread(self._store.keep, _FINGERPRINT, tiers.fingerprint)
