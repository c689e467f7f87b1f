"""Changing the tiers of a running service without losing a task."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import structlog

from app.store.errors import StoreUnavailable
from app.store.interface import Store
from app.store.records import TaskFilter
from app.tasks.status import CLAIMABLE
from app.tiers.tiers import Tiers
from app.worker.board import TierBoard
from app.worker.launch import Served
from app.worker.matching import cache_keys, eligible
from app.worker.pool import LocalPool
from app.worker.slots import SlotPlan

log = structlog.get_logger(__name__)

_FINGERPRINT = "tiers"
_PAGE = 50
"""Tasks per step: a step holds the writer for some milliseconds, which whoever submits a task meanwhile waits for."""
_REST = 3.0
"""Rest after a step, in times of its length: submissions and claims go on at their pace beside it."""
_HEAD_START_S = 1.0
"""How long a start or a reload waits for the new routes: those of the oldest tasks are there then."""
_STORE_PAUSE_S = 2.0


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
        prepare: Callable[[Tiers], None] = lambda _tiers: None,
    ) -> None:
        """`read` reads the configuration anew and may raise; `plan` makes slots for tiers; `prepare` sees to what else
        these tiers need."""
        self._read = read
        self._board = board
        self._pool = pool
        self._plan = plan
        self._store = store
        self._prepare = prepare
        self._one_at_a_time = asyncio.Lock()
        self._rerouting: asyncio.Task[None] | None = None

    async def reload(self) -> Tiers:
        """Read the configuration and put its tiers in force. What runs goes on as it began.

        Raises what `read` raises, with everything left as it was.
        """
        async with self._one_at_a_time:
            tiers = await asyncio.to_thread(self._read)
            plans, serves = self._plan(tiers)
            self._prepare(tiers)
            self._board.replace(tiers)
            self._pool.reconfigure(plans, serves)
            log.info("tiers_in_force", tiers=[tier.name for tier in tiers.enabled])
            await self._begin_rerouting(tiers)
            return tiers

    async def start(self) -> None:
        """Give waiting tasks their routes if the tiers have changed since they were queued."""
        async with self._one_at_a_time:
            await self._begin_rerouting(self._board.tiers)

    async def stop(self) -> None:
        """Leave the routes as they are; the next start goes on with them."""
        if self._rerouting is not None:
            self._rerouting.cancel()
            await asyncio.wait([self._rerouting])

    async def _begin_rerouting(self, tiers: Tiers) -> None:
        """Few tasks have their routes when this returns, many get them in the background."""
        await self.stop()
        self._rerouting = asyncio.create_task(self._reroute(tiers))
        await asyncio.wait([self._rerouting], timeout=_HEAD_START_S)

    async def _reroute(self, tiers: Tiers) -> None:
        """Give all waiting tasks their routes, however long the database is away."""
        while True:
            try:
                return await self._renew_routes(tiers)
            except StoreUnavailable as error:
                log.warning("routes_wait_for_the_store", error=str(error))
                await asyncio.sleep(_STORE_PAUSE_S)
            except Exception:
                log.exception("routes_not_renewed")
                return None

    async def _renew_routes(self, tiers: Tiers) -> None:
        """Oldest first, as they are claimed; the last thing is to remember that it was done."""
        if await asyncio.to_thread(self._store.kept, _FINGERPRINT) == tiers.fingerprint:
            return
        # Forgotten before the first change: whoever is stopped half-way leaves routes of two kinds.
        await asyncio.to_thread(self._store.keep, _FINGERPRINT, None)
        cursor: str | None = None
        total = 0
        while True:
            began = time.monotonic()
            page = await self._store.alist(
                TaskFilter(status=tuple(CLAIMABLE)), cursor=cursor, limit=_PAGE, oldest_first=True
            )
            changed: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
            for task in page.tasks:
                route = eligible(tiers, task)
                keys = cache_keys(tiers, task, route)
                if (route, keys) != (task.route, task.cache_keys):
                    changed.setdefault((route, keys), []).append(task.id)
            for (route, keys), task_ids in changed.items():
                await self._store.areroute(route, task_ids, cache_keys=keys)
                total += len(task_ids)
            cursor = page.next_cursor
            if cursor is None:
                break
            await asyncio.sleep((time.monotonic() - began) * _REST)
        await asyncio.to_thread(self._store.keep, _FINGERPRINT, tiers.fingerprint)
        if total:
            log.info("routes_renewed", tasks=total)
