"""What the rest of the service asks of a store. Another database joins by passing the conformance suite.

All methods are safe to call from any thread and return only when the write is durable. Methods that an event loop
calls have an `a`-prefixed coroutine twin, which does not block the loop. Every write of an attempt takes its `Claim`
and raises `StaleClaim` when that attempt is no longer the task's current one, leaving everything as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from app.store.records import (
    Artifact,
    AttemptEnd,
    AttemptEnding,
    CachedResult,
    CacheStats,
    CancelOutcome,
    Claim,
    Created,
    EventRecord,
    IdempotencyKey,
    KeepFor,
    NewTask,
    Offer,
    Order,
    Page,
    QueueStats,
    ReadyRoute,
    Release,
    TaskEnding,
    TaskFilter,
    TaskRecord,
    UploadRecord,
    Verdict,
    Workload,
)

if TYPE_CHECKING:
    from app.store.outbox import Outbox


Listener = Callable[[Sequence[EventRecord]], None]
"""Called after a commit, in the writer's thread, with the events of that commit, after their writers were answered.

Must be quick, must not raise, and must not write to the store (RuntimeError). Another process is not heard."""


class Store(Protocol):
    """The durable truth about tasks."""

    outbox: Outbox
    """Notices to callers."""

    # -- callers ----------------------------------------------------------------------------------------------
    async def acreate(
        self,
        new: NewTask,
        key: IdempotencyKey | None = None,
        *,
        max_waiting: int | None = None,
        max_waiting_per_client: int | None = None,
        defer_above: int | None = None,
        cached_when_full: bool = False,
        trusts: Callable[[CachedResult], bool] | None = None,
    ) -> Created:
        """Write task, idempotency key and first event in one durable commit.

        Raises `IdempotencyConflict`, `QueueFull` (`max_waiting` tasks are QUEUED or in RETRY_WAIT already),
        `ClientQueueFull` (the same of this task's client), `StoreUnavailable`, and ValueError or TypeError where
        `options` or `metadata` are not JSON (NaN, bytes ...). The key is looked up first: a replay is answered even by
        a full queue. A key is good for its `ttl_s`, and for as long as its task has not ended. A task that finds
        `defer_above` others waiting is `deferred`.

        A task that may start now and has `cache_keys` is served with a cached result where there is one: it has ended
        when this returns. It needs no place in the queue; still a full one refuses it unless `cached_when_full`. Else
        it follows a live task with the same keys: QUEUED, with `twin_of`, until that one has ended. `trusts` says of a
        result, quickly and from any thread, whether its file is known to be good; of one that is not, `UntrustedResult`
        is raised.

        A task that names others in `waits_for` is QUEUED and not claimed until it is released (`arelease`). It takes
        part in the cache only then. Raises `NoSuchPredecessor`, `PredecessorFailed`.
        """

    def create(
        self,
        new: NewTask,
        key: IdempotencyKey | None = None,
        *,
        max_waiting: int | None = None,
        max_waiting_per_client: int | None = None,
        defer_above: int | None = None,
        cached_when_full: bool = False,
        trusts: Callable[[CachedResult], bool] | None = None,
    ) -> Created:
        """As `acreate`, for threads."""

    async def afind_replay(self, key: IdempotencyKey) -> TaskRecord | None:
        """The task that `key` already made, None if there is none. Raises `IdempotencyConflict`."""

    async def aget(self, task_id: str) -> TaskRecord | None:
        """One task with its attempts."""

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

    async def aqueue(self) -> QueueStats:
        """The queue now."""

    async def apaused(self) -> bool:
        """Whether claiming is paused."""

    async def afinish_rate(self) -> float | None:
        """Tasks per second that ended lately (the last 100 of the last 5 minutes); None where fewer than 2 did."""

    async def aqueue_position(self, task: TaskRecord, *, at_most: int | None = None) -> int | None:
        """How many runnable tasks go before this one (0 = next); None if it does not wait for a slot.

        Counting takes 0.3 ms per 1000 tasks; with `at_most` it stops there, and that number means "so many or more".
        """

    async def aworkload(self, *, since: float, rendered: int, queued: int) -> Workload:
        """Attempts that succeeded and ended after `since` (the newest `rendered`), what runs on any node, and the first
        `queued` tasks of those that could start now."""

    def workload(self, *, since: float, rendered: int, queued: int) -> Workload:
        """As `aworkload`, for threads."""

    async def aevents(self, task_id: str | None, *, after: int = 0, limit: int = 1000) -> list[EventRecord]:
        """Events with an id above `after`, oldest first, of one task or of all."""

    def events(self, task_id: str | None, *, after: int = 0, limit: int = 1000) -> list[EventRecord]:
        """As `aevents`, for threads."""

    async def alast_event_id(self) -> int:
        """The id of the newest event, 0 before the first. Ids grow by one with every event, in the order of commits."""

    async def aput_upload(self, upload: UploadRecord) -> None:
        """Remember an upload whose file is already durable."""

    async def aget_upload(self, upload_id: str) -> UploadRecord | None:
        """An upload that has not expired."""

    async def aget_uploads(self, upload_ids: Sequence[str]) -> dict[str, UploadRecord]:
        """Those of some uploads, at most 500, that are there and have not expired, by their ids.

        All that were not read a moment ago are read at once. That another process deletes one before it expires may
        be noticed a second late.
        """

    # -- the dispatcher and the attempts (threads) ---------------------------------------------------------------
    def claim(
        self,
        owner: str,
        *,
        lease_s: float,
        slot: str,
        device: str,
        tier: str = "",
        offers: Mapping[tuple[str, ...], Offer] | None = None,
    ) -> Claim | None:
        """Take the best-ranked runnable task in one transaction: RUNNING, attempt + 1, lease, attempt row, event.

        With `offers` only tasks of these routes, each on the tier that is offered for its route; without them any
        task, on `tier`. Skips tasks that are not due and those past their deadline (`expire_waiting` ends them). None
        when there is nothing to run or the queue is paused.
        """

    def ready_routes(self, count_to: int = 100) -> list[ReadyRoute]:
        """The routes of all tasks that could be claimed now, each with how many there are, counted to `count_to`.

        None while the queue is paused. Costs a look-up per route, however many tasks wait.
        """

    async def areroute(
        self, route: tuple[str, ...], task_ids: Sequence[str], *, cache_keys: tuple[str, ...] = ()
    ) -> None:
        """Give those of the tasks that still wait another route and other cache keys. No event: their status stays."""

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

    def keep(self, name: str, value: Any) -> None:
        """Remember a JSON value by name (state that must survive a restart); None forgets it."""

    def keep_first(self, name: str, value: Any) -> Any:
        """Remember a value unless there is one; the one that is remembered then."""

    def kept(self, name: str) -> Any:
        """What `keep` remembered, or None."""

    def renew(self, claim: Claim, *, lease_s: float) -> TaskRecord:
        """Push the lease further and return the task as it is (the cancel flag!). Raises `StaleClaim`."""

    def succeed(
        self,
        claim: Claim,
        artifact: Artifact,
        *,
        served_by: str,
        degraded: bool = False,
        quality: dict[str, Any] | None = None,
        stages: dict[str, float] | None = None,
        facts: dict[str, Any] | None = None,
        keep: KeepFor | None = None,
    ) -> TaskRecord:
        """RUNNING -> SUCCEEDED with the artifact, in one commit, also where a cancel was asked for: the work is done.

        With `keep` the result is cached, and equal tasks that wait may have it.
        Raises `StaleClaim`.
        """

    def put_up_for_review(
        self,
        claim: Claim,
        artifact: Artifact,
        *,
        error: dict[str, Any],
        served_by: str,
        quality: dict[str, Any],
        degraded: bool = False,
        stages: dict[str, float] | None = None,
        facts: dict[str, Any] | None = None,
        result_key: str | None = None,
    ) -> TaskRecord:
        """RUNNING -> REVIEW with the artifact and the `error` that says why, in one commit.

        Equal tasks that wait may have it once it is approved, where it has a `result_key`.
        To CANCELLED, without the artifact, where that was asked for. Raises `StaleClaim`.
        """

    def end_attempt(
        self,
        claim: Claim,
        end: AttemptEnd,
        *,
        error: dict[str, Any] | None,
        retry_at: float | None = None,
        backoff_ms: int | None = None,
        postmortem: dict[str, Any] | None = None,
        route: tuple[str, ...] | None = None,
        followed_by: str | None = None,
    ) -> TaskRecord:
        """Close the attempt without a result: to RETRY_WAIT, FAILED, QUEUED (free) or CANCELLED.

        `retry` is charged, `failover` (to another tier) is not. `retry_at` is when it may run again (now if None),
        `route` the tiers that may serve it then (as before if None); the task keeps its rank. `followed_by` says in
        words what was decided. Where the task's cancel flag is set, `retry`, `failover` and `requeue` become `cancel`.
        `error` is a failure as `{code, message, hint, detail}`: it goes to the attempt, and with `fail` to the task.
        Raises `StaleClaim`.
        """

    def expire_waiting(self, now: float | None = None) -> list[TaskRecord]:
        """Fail waiting tasks whose start deadline or deadline has passed, with DEADLINE_EXCEEDED."""

    def rescue_expired(self) -> list[TaskRecord]:
        """Return tasks whose lease ran out to QUEUED, free of charge (to CANCELLED if that was asked)."""

    def take_back(self, owner: str) -> list[TaskRecord]:
        """At a restart: the same for every task leased to `owner`, at once."""

    def next_due(self, *, since: float = 0.0) -> float | None:
        """The next moment at which a waiting task becomes runnable or a lease or waiting deadline expires.

        It can lie in the past: then a claim, `rescue_expired` or `expire_waiting` has work to do. What became runnable
        until `since` does not count: whoever could not claim then waits for a slot, not for a time.
        """

    def get(self, task_id: str) -> TaskRecord | None:
        """As `aget`, for threads."""

    def queue(self) -> QueueStats:
        """As `aqueue`, for threads."""

    def attempt_endings(self, owner: str, *, since: float, limit: int) -> list[AttemptEnding]:
        """Attempts of `owner` that ended after `since`, newest first, at most `limit`."""

    def task_endings(self, owner: str, *, since: float, limit: int) -> list[TaskEnding]:
        """The last `limit` tasks that ended after `since`, newest first, less those that ended in another's attempt."""

    def set_paused(self, paused: bool) -> None:
        """Pause or resume claiming, durably. What runs goes on."""

    async def aset_paused(self, paused: bool) -> None:
        """As `set_paused`, for an event loop."""

    # -- chains -----------------------------------------------------------------------------------------------------
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

    # -- housekeeping ---------------------------------------------------------------------------------------------
    def prune_keys(self) -> int:
        """Forget idempotency keys past their time whose task has ended; how many they were."""

    def expire_results(self, before: float) -> list[TaskRecord]:
        """Mark the results of tasks that ended at or before `before` as removed, oldest first, at most 200 per call.

        From then on nobody is given them, and the caller deletes the files that are out of use (`results_in_use`): the
        mark comes first, so that a crash between the two leaves a file that no task points to, never a task that points
        to no file. It is no event: the task itself stays as it ended.
        """

    def purge_tasks(self, before: float) -> list[TaskRecord]:
        """Delete tasks that ended at or before `before`, with attempts, events and keys; at most 200 per call.

        A task whose idempotency key is still good, or of which something is still to be sent, stays. Event ids are
        never given twice. The caller deletes what files of theirs are left and
        out of use (`results_in_use`).
        """

    def expire_cached(self) -> int:
        """Forget cached results whose time is up; how many they were."""

    def results_in_use(self, paths: Sequence[str]) -> set[str]:
        """Those of some result files, at most 500, that a task or the cache still gives out.

        Once out of use, a file stays so: no task can come by it any more.
        """

    def expired_uploads(self) -> list[UploadRecord]:
        """Uploads past their time, oldest first, at most 200 per call.

        A content that a live task or another upload needs is not the caller's to delete: see `blobs_in_use`.
        """

    def delete_uploads(self, ids: Sequence[str]) -> None:
        """Forget uploads."""

    def blobs_in_use(self, sha256: Sequence[str], *, failed_since: float | None = None) -> set[str]:
        """Those of the given contents that an upload or a non-terminal task refers to.

        With `failed_since`, also those of tasks that FAILED at or after that time: they may be tried again.
        """

    def subscribe(self, listener: Listener) -> None:
        """Add a listener for committed events."""

    def on_due(self, listener: Callable[[float], None]) -> None:
        """Add a listener that is told, after a commit that made tasks wait, when the first of them is to be looked at.

        That is when it may start, or when its deadline passes (epoch seconds); now or earlier where it is ready.
        """

    def on_resumed(self, listener: Callable[[], None]) -> None:
        """Add a listener that is called, in any thread, once claiming was resumed through this store.

        A pause is no event of any task, so that `subscribe` does not tell it. It must be quick and must not raise.
        """

    def ping(self) -> None:
        """Raise `StoreUnavailable` unless the database can be read and locked for writing. Blocks at most 10 s."""

    async def aping(self) -> None:
        """As `ping`, for an event loop."""

    def close(self) -> None:
        """Finish pending writes and close all connections."""
