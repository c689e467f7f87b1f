"""What tasks have of each other: cached results, twins that wait for an equal task, chains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from app.store.figures import CacheStats
from app.store.records import CachedResult, Release, TaskRecord


class Sharing(Protocol):
    """Results that serve other tasks than those that made them."""

    async def acached(self, keys: Sequence[str]) -> CachedResult | None:
        """The result of the first of these keys that has one."""

    async def adrop_cached(self, result: CachedResult) -> None:
        """Forget a cached result that is not there any more as it should be."""

    async def acache(self) -> CacheStats:
        """How much the cache holds."""

    def cache(self) -> CacheStats:
        """As `acache`, for threads."""

    def twins_left(self) -> bool:
        """Whether a task waits for a twin that has ended or is gone: then `settle_twins` has work to do."""

    def settle_twins(self) -> list[TaskRecord]:
        """Give tasks whose twin has ended its result, or its error where the input is to blame.

        Of those that can have neither, or whose twin is gone, the most urgent one leads the others from now on.
        """

    async def achains_left(self) -> bool:
        """Whether some task's predecessors have all succeeded, or one has failed: then there is something to
        release or to fail."""

    async def areleasable(self, limit: int) -> list[TaskRecord]:
        """Tasks that wait and whose predecessors have all succeeded, the most urgent first. Costs a look-up."""

    async def arelease(self, task_id: str, release: Release) -> TaskRecord | None:
        """Let such a task go: it queues up from now on, or is served as `acreate` says. One event, `task.released`.

        None, and nothing is written, if it does not wait like that (any more).
        """

    async def arefuse_release(self, task_id: str, error: dict[str, Any]) -> TaskRecord | None:
        """Fail such a task: what its predecessors made will not do. None as in `arelease`."""

    async def abreak_chains(self) -> list[TaskRecord]:
        """Fail all tasks that wait for one that has ended without a result, those that wait for them, and so on."""
