"""The store on an SQL database: every method is one operation of the writer or one read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.store import (
    cache,
    chains,
    claiming,
    claims,
    creation,
    endings,
    kept,
    reads,
    retention,
    review,
    routes,
    twins,
    workload,
)
from app.store import uploads as upload_writes
from app.store.databases import database_at
from app.store.dialect import Dialect, is_unavailable
from app.store.errors import StoreUnavailable
from app.store.figures import AttemptEnding, CacheStats, QueueStats, TaskEnding, Workload
from app.store.interface import Listener, Store
from app.store.jobs import Operation
from app.store.migrate import migrate
from app.store.outbox import Database, Outbox
from app.store.records import (
    UNCONDITIONAL,
    Admission,
    Artifact,
    AttemptEnd,
    CachedResult,
    CancelOutcome,
    Claim,
    Created,
    Due,
    EventRecord,
    IdempotencyKey,
    KeepFor,
    NewTask,
    Offer,
    Order,
    Page,
    ReadyRoute,
    Release,
    TaskFilter,
    TaskRecord,
    UploadRecord,
    Verdict,
)
from app.store.transaction import Transaction
from app.store.upload_cache import UploadCache
from app.store.writer import Writer

T = TypeVar("T")

PATIENCE_S = 5.0
"""How long a write waits for a database that is locked, read-only or full."""

READERS = 4
"""Connections for reads, and threads for those that an event loop asks for."""

CHUNK = 200
"""Tasks per operation of a sweep, so that a long one does not keep claims and creates waiting."""


def open_store(
    url_or_path: str | Path,
    clock: Callable[[], float] = time.time,
    *,
    patience_s: float = PATIENCE_S,
    readers: int = READERS,
) -> SqlStore:
    """Open the database (a path, `sqlite:///path` or `postgresql://...`), migrating it where needed.

    `clock` gives epoch seconds. Raises ValueError for a database that is not supported, `SchemaTooNew` for one that a
    newer version has written, `StoreUnavailable` for one that cannot be opened within `patience_s`.
    """
    dialect = database_at(url_or_path)
    dialect.require()
    engine = dialect.write_engine()
    give_up_at = time.monotonic() + patience_s
    while True:
        try:
            with engine.begin() as connection:
                dialect.prepare(connection)
                migrate(connection)
            break
        except SQLAlchemyError as error:
            if not is_unavailable(dialect, error):
                raise
            if time.monotonic() >= give_up_at:
                raise StoreUnavailable(f"Cannot open {dialect.place}: {dialect.words(error)}") from error
            time.sleep(0.05)
    return SqlStore(dialect, engine, clock, patience_s=patience_s, readers=readers)


class SqlStore(Store):
    """Implements `app.store.interface.Store`; made by `open_store`."""

    def __init__(
        self, dialect: Dialect, writing: Engine, clock: Callable[[], float], *, patience_s: float, readers: int
    ) -> None:
        self._dialect = dialect
        self._writing, self._reading = writing, dialect.read_engine(readers)
        self._clock = clock
        self._closed = False
        self._patience_s = patience_s
        self._writer = Writer(writing, dialect, clock, patience_s=patience_s)
        self._on_resumed: list[Callable[[], None]] = []
        self._uploads = UploadCache(clock)
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="store-read")
        self.outbox = Outbox(Database(self._write, self._awrite, self._read, self._aread, self._writer.on_notices))

    # -- callers ----------------------------------------------------------------------------------------------
    async def acreate(
        self, new: NewTask, key: IdempotencyKey | None = None, admission: Admission = UNCONDITIONAL
    ) -> Created:
        return await self._awrite(lambda tx: creation.create(tx, new, key, admission))

    def create(self, new: NewTask, key: IdempotencyKey | None = None, admission: Admission = UNCONDITIONAL) -> Created:
        return self._write(lambda tx: creation.create(tx, new, key, admission))

    async def afind_replay(self, key: IdempotencyKey) -> TaskRecord | None:
        return await self._aread(lambda connection: reads.find_replay(connection, key, self._clock()))

    async def aget(self, task_id: str) -> TaskRecord | None:
        return await self._aread(lambda connection: reads.get(connection, task_id))

    async def aget_some(self, task_ids: Sequence[str]) -> dict[str, TaskRecord]:
        return await self._aread(lambda connection: reads.get_some(connection, task_ids))

    async def alist(
        self, where: TaskFilter, *, cursor: str | None = None, limit: int = 50, oldest_first: bool = False
    ) -> Page:
        return await self._aread(
            lambda connection: reads.list_tasks(connection, where, cursor, limit, oldest_first=oldest_first)
        )

    async def acancel(self, task_id: str, reason: str = "") -> CancelOutcome:
        return await self._awrite(lambda tx: creation.cancel(tx, task_id, reason))

    def cancel(self, task_id: str, reason: str = "") -> CancelOutcome:
        return self._write(lambda tx: creation.cancel(tx, task_id, reason))

    async def aapprove(self, task_id: str, verdict: Verdict) -> TaskRecord | None:
        return await self._awrite(lambda tx: review.approve(tx, task_id, verdict))

    async def areject(self, task_id: str, verdict: Verdict) -> TaskRecord | None:
        return await self._awrite(lambda tx: review.reject(tx, task_id, verdict))

    async def arerender(self, task_id: str, verdict: Verdict, order: Order) -> TaskRecord | None:
        return await self._awrite(lambda tx: review.rerender(tx, task_id, verdict, order))

    async def aqueue(self) -> QueueStats:
        return await self._aread(lambda connection: reads.queue(connection, self._clock()))

    async def apaused(self) -> bool:
        return await self._aread(reads.paused)

    async def afinish_rate(self) -> float | None:
        return await self._aread(lambda connection: reads.finish_rate(connection, self._clock()))

    async def aqueue_position(self, task: TaskRecord, *, at_most: int | None = None) -> int | None:
        return await self._aread(lambda connection: reads.queue_position(connection, task.id, self._clock(), at_most))

    async def aworkload(self, *, since: float, rendered: int, queued: int) -> Workload:
        return await self._aread(
            lambda connection: workload.read(connection, self._clock(), since=since, rendered=rendered, queued=queued)
        )

    def workload(self, *, since: float, rendered: int, queued: int) -> Workload:
        return self._read(
            lambda connection: workload.read(connection, self._clock(), since=since, rendered=rendered, queued=queued)
        )

    async def aevents(self, task_id: str | None, *, after: int = 0, limit: int = 1000) -> list[EventRecord]:
        return await self._aread(lambda connection: reads.list_events(connection, task_id, after, limit))

    async def alast_event_id(self) -> int:
        return await self._aread(reads.last_event_id)

    async def aset_paused(self, paused: bool) -> None:
        await self._awrite(lambda tx: upload_writes.set_paused(tx, paused))
        self._tell(paused=paused)

    async def aput_upload(self, upload: UploadRecord) -> None:
        await self._awrite(lambda tx: upload_writes.put_upload(tx, upload))

    async def aget_upload(self, upload_id: str) -> UploadRecord | None:
        return await self._aread(lambda connection: reads.get_upload(connection, upload_id, self._clock()))

    async def aget_uploads(self, upload_ids: Sequence[str]) -> dict[str, UploadRecord]:
        found = {upload_id: record for upload_id in upload_ids if (record := self._uploads.get(upload_id)) is not None}
        missing = [upload_id for upload_id in upload_ids if upload_id not in found]
        if missing:
            read = await self._aread(lambda connection: reads.get_uploads(connection, missing, self._clock()))
            self._uploads.put(read)
            found |= {record.id: record for record in read}
        return found

    # -- the dispatcher and the attempts ---------------------------------------------------------------------------
    def claim(
        self,
        owner: str,
        *,
        lease_s: float,
        slot: str,
        device: str,
        tier: str = "",
        offers: Mapping[tuple[str, ...], Offer] | None = None,
        first_only: bool = False,
    ) -> Claim | None:
        return self._write(
            partial(
                claiming.claim,
                owner=owner,
                lease_s=lease_s,
                slot=slot,
                device=device,
                tier=tier,
                offers=offers,
                first_only=first_only,
            )
        )

    def ready_routes(self, count_to: int = 100) -> list[ReadyRoute]:
        return self._read(lambda connection: routes.ready_routes(connection, self._clock(), count_to))

    async def areroute(
        self, route: tuple[str, ...], task_ids: Sequence[str], *, cache_keys: tuple[str, ...] = ()
    ) -> None:
        await self._awrite(lambda tx: routes.reroute(tx, route, task_ids, cache_keys))

    async def acached(self, keys: Sequence[str]) -> CachedResult | None:
        return await self._aread(lambda connection: cache.find(connection, keys, self._clock()))

    async def adrop_cached(self, result: CachedResult) -> None:
        await self._awrite(lambda tx: cache.drop(tx, result.key, result.output.path))

    async def acache(self) -> CacheStats:
        return await self._aread(cache.stats)

    def cache(self) -> CacheStats:
        return self._read(cache.stats)

    def twins_left(self) -> bool:
        return self._read(twins.any_left)

    def settle_twins(self) -> list[TaskRecord]:
        return self._sweep(lambda tx: twins.settle(tx, CHUNK))

    def keep(self, name: str, value: Any) -> None:
        self._write(lambda tx: kept.keep(tx, name, value))

    def keep_first(self, name: str, value: Any) -> Any:
        return self._write(lambda tx: kept.keep_first(tx, name, value))

    def kept(self, name: str) -> Any:
        return self._read(lambda connection: kept.read(connection, name))

    def renew(self, claim: Claim, *, lease_s: float) -> TaskRecord:
        return self._write(lambda tx: claims.renew(tx, claim, lease_s))

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
        return self._write(
            lambda tx: claims.succeed(
                tx,
                claim,
                artifact,
                served_by=served_by,
                degraded=degraded,
                quality=quality,
                stages=stages,
                facts=facts,
                keep=keep,
            )
        )

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
        return self._write(
            lambda tx: review.put_up(
                tx,
                claim,
                artifact,
                error=error,
                served_by=served_by,
                degraded=degraded,
                quality=quality,
                stages=stages or {},
                facts=facts or {},
                result_key=result_key,
            )
        )

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
        return self._write(
            lambda tx: claims.end_attempt(
                tx,
                claim,
                end,
                error=error,
                retry_at=retry_at,
                backoff_ms=backoff_ms,
                postmortem=postmortem,
                route=route,
                followed_by=followed_by,
            )
        )

    def expire_waiting(self, now: float | None = None) -> list[TaskRecord]:
        return self._sweep(lambda tx: creation.expire_waiting(tx, now, CHUNK))

    def rescue_expired(self) -> list[TaskRecord]:
        return self._sweep(lambda tx: claims.rescue_expired(tx, CHUNK))

    def take_back(self, owner: str) -> list[TaskRecord]:
        return self._sweep(lambda tx: claims.take_back(tx, owner, CHUNK))

    def next_due(self, *, since: float = 0.0) -> float | None:
        return self._read(lambda connection: reads.next_due(connection, since))

    def get(self, task_id: str) -> TaskRecord | None:
        return self._read(lambda connection: reads.get(connection, task_id))

    def queue(self) -> QueueStats:
        return self._read(lambda connection: reads.queue(connection, self._clock()))

    def events(self, task_id: str | None, *, after: int = 0, limit: int = 1000) -> list[EventRecord]:
        return self._read(lambda connection: reads.list_events(connection, task_id, after, limit))

    def attempt_endings(self, owner: str, *, since: float, limit: int) -> list[AttemptEnding]:
        return self._read(lambda connection: endings.list_attempt_endings(connection, owner, since, limit))

    def task_endings(self, owner: str, *, since: float, limit: int) -> list[TaskEnding]:
        return self._read(lambda connection: endings.list_task_endings(connection, owner, since, limit))

    def set_paused(self, paused: bool) -> None:
        self._write(lambda tx: upload_writes.set_paused(tx, paused))
        self._tell(paused=paused)

    # -- chains -----------------------------------------------------------------------------------------------------
    async def achains_left(self) -> bool:
        return await self._aread(chains.any_left)

    async def areleasable(self, limit: int) -> list[TaskRecord]:
        return await self._aread(lambda connection: chains.releasable(connection, limit))

    async def arelease(self, task_id: str, release: Release) -> TaskRecord | None:
        return await self._awrite(lambda tx: chains.release(tx, task_id, release))

    async def arefuse_release(self, task_id: str, error: dict[str, Any]) -> TaskRecord | None:
        return await self._awrite(lambda tx: chains.refuse_release(tx, task_id, error))

    async def abreak_chains(self) -> list[TaskRecord]:
        broken: list[TaskRecord] = []
        while await self._aread(chains.any_broken):
            broken += await self._awrite(lambda tx: chains.break_some(tx, CHUNK))
        return broken

    # -- housekeeping ---------------------------------------------------------------------------------------------
    def prune_keys(self) -> int:
        total = 0
        while pruned := self._write(lambda tx: creation.prune_keys(tx, CHUNK)):
            total += pruned
        return total

    def expire_results(self, before: float) -> list[TaskRecord]:
        return self._write(lambda tx: retention.expire_results(tx, before, CHUNK))

    def purge_tasks(self, before: float) -> list[TaskRecord]:
        return self._write(lambda tx: retention.purge_tasks(tx, before, CHUNK))

    def expire_cached(self) -> int:
        return self._write(cache.expire)

    def results_in_use(self, paths: Sequence[str]) -> set[str]:
        return self._read(lambda connection: cache.results_in_use(connection, paths))

    def expired_uploads(self) -> list[UploadRecord]:
        return self._read(lambda connection: reads.expired_uploads(connection, self._clock(), CHUNK))

    def delete_uploads(self, ids: Sequence[str]) -> None:
        self._write(lambda tx: upload_writes.delete_uploads(tx, ids))
        self._uploads.forget(ids)

    def blobs_in_use(self, sha256: Sequence[str], *, failed_since: float | None = None) -> set[str]:
        return self._read(lambda connection: reads.blobs_in_use(connection, sha256, failed_since))

    def subscribe(self, listener: Listener) -> None:
        self._writer.subscribe(listener)

    def on_due(self, listener: Callable[[Due], None]) -> None:
        self._writer.on_due(listener)

    def on_resumed(self, listener: Callable[[], None]) -> None:
        self._on_resumed = [*self._on_resumed, listener]

    @property
    def fault(self) -> str:
        """See `Vital.fault`."""
        return self._writer.fault

    def ping(self) -> None:
        self._read(reads.ping)
        try:
            self._writer.submit(_nothing).result(self._patience_s * 2)
        except TimeoutError:
            raise StoreUnavailable("The writer does not answer.") from None

    async def aping(self) -> None:
        self._refuse_if_closed()
        await asyncio.get_running_loop().run_in_executor(self._readers, self.ping)

    def clock_ahead(self, clock: Callable[[], float]) -> float:
        """By how many seconds `clock` is ahead of the database server's; 0 where the database has none of its own."""

        def compare(connection: Connection) -> float:
            before = clock()
            there = self._dialect.now(connection)
            return 0.0 if there is None else (before + clock()) / 2 - there

        return self._read(compare)

    def close(self) -> None:
        self._closed = True
        self._writer.close()
        self._readers.shutdown(wait=True)
        self._reading.dispose()
        self._writing.dispose()

    # -- how -------------------------------------------------------------------------------------------------------
    def _write(self, operation: Operation[T]) -> T:
        return self._writer.run(operation)

    async def _awrite(self, operation: Operation[T]) -> T:
        return await self._writer.arun(operation)

    def _tell(self, *, paused: bool) -> None:
        for listener in () if paused else self._on_resumed:
            listener()

    def _sweep(self, operation: Operation[list[TaskRecord]]) -> list[TaskRecord]:
        """Repeat an operation that changes up to `CHUNK` tasks until it finds no more."""
        changed = part = self._write(operation)
        while len(part) == CHUNK:
            part = self._write(operation)
            changed = changed + part
        return changed

    def _read(self, read: Callable[[Connection], T]) -> T:
        self._refuse_if_closed()
        try:
            return self._read_once(read)
        except SQLAlchemyError as error:
            if isinstance(error, DBAPIError) and error.connection_invalidated:
                # It broke while it lay idle, e.g. the server was restarted; the pool has dropped all of its age.
                return self._read_again(read)
            raise self._told(error) from error

    def _read_again(self, read: Callable[[Connection], T]) -> T:
        try:
            return self._read_once(read)
        except SQLAlchemyError as error:
            raise self._told(error) from error

    def _read_once(self, read: Callable[[Connection], T]) -> T:
        with self._reading.connect() as connection:
            return read(connection)

    def _told(self, error: SQLAlchemyError) -> Exception:
        """`StoreUnavailable` for an error that passes, else the error."""
        passes = isinstance(error, PoolTimeout) or is_unavailable(self._dialect, error)
        return StoreUnavailable(self._dialect.words(error)) if passes else error

    async def _aread(self, read: Callable[[Connection], T]) -> T:
        self._refuse_if_closed()
        return await asyncio.get_running_loop().run_in_executor(self._readers, partial(self._read, read))

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StoreUnavailable("The store is closed.")


def _nothing(_tx: Transaction) -> None:
    """An operation that only shows that the writer and its database work."""
