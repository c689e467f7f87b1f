"""What callers ask of tasks: made, read, listed, cancelled, decided about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from app.store.records import (
    UNCONDITIONAL,
    Admission,
    CancelOutcome,
    Created,
    EventRecord,
    IdempotencyKey,
    NewTask,
    Order,
    Page,
    TaskFilter,
    TaskRecord,
    Verdict,
)


class Tasks(Protocol):
    """Tasks as their callers see them."""

    async def acreate(
        self, new: NewTask, key: IdempotencyKey | None = None, admission: Admission = UNCONDITIONAL
    ) -> Created:
        """Write task, idempotency key and first event in one durable commit.

        Raises `IdempotencyConflict`, `QueueFull` (`admission.max_waiting` tasks are QUEUED or in RETRY_WAIT already),
        `ClientQueueFull` (the same of this task's client), `StoreUnavailable`, and ValueError or TypeError where
        `options` or `metadata` are not JSON (NaN, bytes ...). The key is looked up first: a replay is answered even by
        a full queue. A key is good for its `ttl_s`, and for as long as its task has not ended. A task that finds
        `admission.defer_above` others waiting is `deferred`.

        A task that may start now and has `cache_keys` is served with a cached result where there is one: it has ended
        when this returns. It needs no place in the queue; still a full one refuses it unless `cached_when_full`. Else
        it follows a live task with the same keys: QUEUED, with `twin_of`, until that one has ended. `trusts` says of a
        result, quickly and from any thread, whether its file is known to be good; of one that is not, `UntrustedResult`
        is raised.

        A task that names others in `waits_for` is QUEUED and not claimed until it is released (`arelease`). It takes
        part in the cache only then. Raises `NoSuchPredecessor`, `PredecessorFailed`.
        """

    def create(self, new: NewTask, key: IdempotencyKey | None = None, admission: Admission = UNCONDITIONAL) -> Created:
        """As `acreate`, for threads."""

    async def afind_replay(self, key: IdempotencyKey) -> TaskRecord | None:
        """The task that `key` already made, None if there is none. Raises `IdempotencyConflict`."""

    async def aget(self, task_id: str) -> TaskRecord | None:
        """One task with its attempts."""

    def get(self, task_id: str) -> TaskRecord | None:
        """As `aget`, for threads."""

    async def aget_some(self, task_ids: Sequence[str]) -> dict[str, TaskRecord]:
        """Those of some tasks, at most 500, that are there, by their ids; without attempts."""

    async def alist(
        self, where: TaskFilter, *, cursor: str | None = None, limit: int = 50, oldest_first: bool = False
    ) -> Page:
        """Tasks newest first (or oldest), without attempts. Raises ValueError for a cursor that is not ours."""

    async def acancel(self, task_id: str, reason: str = "") -> CancelOutcome:
        """Cancel at once if the task does not run, else set the flag that its attempt will see."""

    def cancel(self, task_id: str, reason: str = "") -> CancelOutcome:
        """As `acancel`, for threads."""

    async def aapprove(self, task_id: str, verdict: Verdict) -> TaskRecord | None:
        """REVIEW -> SUCCEEDED with the video as it is; None for an unknown task. Raises `NotInReview`."""

    async def areject(self, task_id: str, verdict: Verdict) -> TaskRecord | None:
        """REVIEW -> FAILED without the video; None for an unknown task. Raises `NotInReview`."""

    async def arerender(self, task_id: str, verdict: Verdict, order: Order) -> TaskRecord | None:
        """REVIEW -> QUEUED at its old rank, with another order and all retries; None for an unknown task.

        Raises `NotInReview`.
        """

    async def aevents(self, task_id: str | None, *, after: int = 0, limit: int = 1000) -> list[EventRecord]:
        """Events with an id above `after`, oldest first, of one task or of all."""

    def events(self, task_id: str | None, *, after: int = 0, limit: int = 1000) -> list[EventRecord]:
        """As `aevents`, for threads."""

    async def alast_event_id(self) -> int:
        """The id of the newest event, 0 before the first. Ids grow by one with every event, in the order of commits."""
