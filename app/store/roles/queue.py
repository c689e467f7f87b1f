"""What is asked of the queue as a whole: how it stands, what comes next, and whether anything may."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from app.store.figures import QueueStats, Workload
from app.store.records import Due, ReadyRoute, TaskRecord


class Queue(Protocol):
    """The queue: all tasks that wait or run."""

    async def aqueue(self) -> QueueStats:
        """The queue now."""

    def queue(self) -> QueueStats:
        """As `aqueue`, for threads."""

    async def aqueue_position(self, task: TaskRecord, *, at_most: int | None = None) -> int | None:
        """How many runnable tasks go before this one (0 = next); None if it does not wait for a slot.

        Counting takes 0.3 ms per 1000 tasks; with `at_most` it stops there, and that number means "so many or more".
        """

    async def afinish_rate(self) -> float | None:
        """Tasks per second that ended lately (the last 100 of the last 5 minutes); None where fewer than 2 did."""

    async def aworkload(self, *, since: float, rendered: int, queued: int) -> Workload:
        """Attempts that succeeded and ended after `since` (the newest `rendered`), what runs on any node, and the first
        `queued` tasks of those that could start now."""

    def workload(self, *, since: float, rendered: int, queued: int) -> Workload:
        """As `aworkload`, for threads."""

    async def apaused(self) -> bool:
        """Whether claiming is paused."""

    def set_paused(self, paused: bool) -> None:
        """Pause or resume claiming, durably. What runs goes on."""

    async def aset_paused(self, paused: bool) -> None:
        """As `set_paused`, for an event loop."""

    def on_resumed(self, listener: Callable[[], None]) -> None:
        """Add a listener that is called, in any thread, once claiming was resumed through this store.

        A pause is no event of any task, so that `subscribe` does not tell it. It must be quick and must not raise.
        """

    def ready_routes(self, count_to: int = 100) -> list[ReadyRoute]:
        """The routes of all tasks that could be claimed now, each with how many there are, counted to `count_to`.

        None while the queue is paused. Costs a look-up per route, however many tasks wait.
        """

    async def areroute(
        self, route: tuple[str, ...], task_ids: Sequence[str], *, cache_keys: tuple[str, ...] = ()
    ) -> None:
        """Give those of the tasks that still wait another route and other cache keys. No event: their status stays."""

    def next_due(self, *, since: float = 0.0) -> float | None:
        """The next moment at which a waiting task becomes runnable or a lease or waiting deadline expires.

        It can lie in the past: then a claim, `rescue_expired` or `expire_waiting` has work to do. What became runnable
        until `since` does not count: whoever could not claim then waits for a slot, not for a time.
        """

    def on_due(self, listener: Callable[[Due], None]) -> None:
        """Add a listener that is told, after a commit that made tasks wait, when the first of them is to be looked at.

        That is now or earlier where one is ready. It must be quick and must not raise.
        """
