"""The one writer: a thread that runs queued operations in shared transactions (group commit).

Everything that waits when the thread gets round to it is executed in one transaction, each operation so that it can be
undone alone, and made durable by one commit. Only then are the callers answered, and after them the listeners called.
So many callers share the cost of one fsync, and nobody hears of a write that could still be lost.

What it can not do: interrupt an fsync that hangs. Callers then wait; `ping` has its own limit.
"""

from __future__ import annotations

import asyncio
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from app.store.dialect import Dialect, is_unavailable, plain
from app.store.errors import StoreUnavailable
from app.store.interface import Listener
from app.store.jobs import Job, LoopJob, Operation, Outcome, ThreadJob, answer
from app.store.reads import list_events
from app.store.records import Due, EventRecord
from app.store.transaction import Transaction
from app.vital import VitalThread

log = logging.getLogger(__name__)

T = TypeVar("T")

BATCH_LIMIT = 128
"""Operations per commit: above this the fsync is cheap already, and a claim should not wait behind more creates."""

PAUSE_S = 0.02
"""Pause between two tries while the database is not available."""


@dataclass(frozen=True, slots=True)
class _Done:
    """A transaction that has been run."""

    outcomes: dict[Job, Outcome]
    """Per operation its result or its failure."""
    events: list[EventRecord]
    wakes_sender: bool
    """Whether notices may be sent now."""
    due: Due
    """When the first of the tasks that it made wait is to be looked at; infinite where it made none wait."""

    def is_in(self, connection: Connection) -> bool:
        """Whether it was committed, as far as its events tell. One without events may as well be run again."""
        if not self.events:
            return False
        last = self.events[-1]
        found = list_events(connection, None, last.id - 1, 1)
        return [_name(event) for event in found] == [_name(last)]


def _name(event: EventRecord) -> tuple[object, ...]:
    """What tells an event from one that another process wrote under the same id."""
    return event.id, event.task_id, event.type, event.attempt, event.at


class Writer:
    """Owns the only connection that writes.

    `patience_s`: how long an operation is retried while the database is locked, read-only or full, before its caller
    gets `StoreUnavailable` with the database's own words.
    """

    def __init__(self, engine: Engine, dialect: Dialect, clock: Callable[[], float], *, patience_s: float) -> None:
        self._engine = engine
        self._dialect = dialect
        self._clock = clock
        self._patience_s = patience_s
        self._connection: Connection | None = None
        self._doubtful: _Done | None = None
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._listeners: list[Listener] = []
        self._notice_listeners: list[Callable[[], None]] = []
        self._due_listeners: list[Callable[[Due], None]] = []
        self._submitting = threading.Lock()
        self._gathered: dict[asyncio.AbstractEventLoop, list[LoopJob]] = {}
        self._closed = False
        self._thread = VitalThread(self._run, "store-writer")
        self._thread.start()

    @property
    def fault(self) -> str:
        """See `Vital.fault`."""
        return self._thread.fault

    def submit(self, operation: Operation[T]) -> Future[T]:
        """Queue an operation. The future is done when its effect is durable, or when it failed and left no trace."""
        job = ThreadJob(operation)
        self._put(job)
        return job.future

    async def arun(self, operation: Operation[T]) -> T:
        """As `run`, for a coroutine. Cancelled before its turn, the operation is not run.

        What the coroutines of one turn of the loop ask for is handed over together, and so shares a commit.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        gathered = self._gathered.setdefault(loop, [])
        gathered.append(LoopJob(operation, loop, future))
        if len(gathered) == 1:
            loop.call_soon(self._hand_over, loop)
        return await future

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        gathered = self._gathered.pop(loop)
        try:
            self._put(*gathered)
        except StoreUnavailable as error:
            answer([(job, (None, error)) for job in gathered])

    def run(self, operation: Operation[T]) -> T:
        """Submit an operation and wait for it. Not for listeners: they would wait for themselves (RuntimeError)."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("A listener must not write to the store and wait: hand the work to another thread.")
        return self.submit(operation).result()

    def subscribe(self, listener: Listener) -> None:
        """Add a listener; it runs in the writer's thread, after the callers of that commit were answered."""
        self._listeners = [*self._listeners, listener]

    def on_notices(self, listener: Callable[[], None]) -> None:
        """As `subscribe`, for commits that wrote into the outbox."""
        self._notice_listeners = [*self._notice_listeners, listener]

    def on_due(self, listener: Callable[[Due], None]) -> None:
        """As `subscribe`, for commits after which a task waits for a moment."""
        self._due_listeners = [*self._due_listeners, listener]

    def close(self) -> None:
        """Finish what was queued, then stop. Safe to repeat."""
        with self._submitting:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _put(self, *jobs: Job) -> None:
        with self._submitting:
            if self._closed:
                raise StoreUnavailable("The store is closed.")
            for job in jobs:
                self._jobs.put(job)

    # -- in the thread --------------------------------------------------------------------------------------------
    def _run(self) -> None:
        going = True
        while going:
            batch: list[Job] = []
            try:
                going = self._next_batch(batch)
                self._serve(batch)
            except BaseException as error:  # the thread must outlive every fault, and no caller may wait for ever
                log.exception("The store's writer failed on a batch of %d operations", len(batch))
                self._doubtful = None
                self._drop_connection()
                answer([(job, (None, StoreUnavailable(f"The writer failed: {error!r}"))) for job in batch])
        self._drop_connection()

    def _next_batch(self, batch: list[Job]) -> bool:
        """Fill `batch` with the operations that wait now, at least one; whether more may come after them."""
        job = self._jobs.get()
        with self._submitting:
            pass  # Whoever hands over several has handed over all of them.
        while True:
            if job is None:
                return False
            if job.start():
                batch.append(job)
            if len(batch) >= BATCH_LIMIT:
                return True
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return True

    def _serve(self, batch: list[Job]) -> None:
        while batch:
            began = time.monotonic()
            try:
                done = self._commit(batch)
            except (SQLAlchemyError, ValueError, TypeError) as error:  # the last two: of a value that is not storable
                if is_unavailable(self._dialect, error):
                    self._drop_connection()
                    batch = self._still_patient(batch, began, error)
                    if batch:
                        time.sleep(PAUSE_S)
                elif len(batch) > 1:
                    # A row that one of them put off cannot be written. Alone, each answers for itself.
                    for job in batch:
                        self._serve([job])
                    return
                else:
                    answer([(batch[0], (None, plain(error)))])
                    return
                continue
            self._doubtful = None
            answer([(job, done.outcomes[job]) for job in batch])
            self._tell(done)
            return

    def _commit(self, batch: Sequence[Job]) -> _Done:
        """Run the batch in one durable transaction.

        A commit that failed may have been made all the same, where only its answer was lost. Then nothing is run
        again: the lock that this transaction begins with says that the other one is over, and the last event whose it
        was.
        """
        if self._connection is None:
            self._connection = self._engine.connect()
        connection = self._connection
        with connection.begin() as transaction:
            if self._doubtful is not None and self._doubtful.is_in(connection):
                transaction.rollback()
                return self._doubtful
            self._doubtful = None
            work = Transaction(connection, self._clock, alone=len(batch) == 1)
            outcomes = {job: self._run_one(work, job.operation) for job in batch}
            if work.spoilt:
                transaction.rollback()
                return _Done(outcomes, [], wakes_sender=False, due=Due(math.inf))
            work.finish()
            due = Due(work.due_at, frozenset(work.new_routes))
            done = _Done(outcomes, work.events, work.wakes_sender, due)
            try:
                transaction.commit()
            except SQLAlchemyError as error:
                if is_unavailable(self._dialect, error):
                    self._doubtful = done
                raise
        return done

    def _run_one(self, transaction: Transaction, operation: Operation[Any]) -> Outcome:
        transaction.begin()
        try:
            result = operation(transaction)
        except Exception as error:
            if is_unavailable(self._dialect, error):
                raise
            transaction.undo()
            return None, plain(error)
        transaction.end()
        return result, None

    def _still_patient(self, batch: Sequence[Job], began: float, error: Exception) -> list[Job]:
        """Answer those whose time is up with the database's words; return the others.

        A try that `began` in time and was then held up in this process says nothing of the database, which may well
        take the next one at once.
        """
        now = began if self._dialect.was_held_up(error) else time.monotonic()
        waiting = [job for job in batch if now - job.queued_at < self._patience_s]
        given_up = [job for job in batch if job not in waiting]
        if not waiting:
            self._doubtful = None
        answer([(job, (None, StoreUnavailable(self._dialect.words(error)))) for job in given_up])
        return waiting

    def _drop_connection(self) -> None:
        """Close the connection, whatever state it is in; the next batch opens a fresh one."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.invalidate()
            connection.close()
        except Exception:
            log.exception("Closing the writer's connection failed")

    def _tell(self, done: _Done) -> None:
        """Call whoever listens."""
        if done.due.at < math.inf:
            for due in self._due_listeners:
                _call(due, done.due)
        if done.events:
            for listener in self._listeners:
                _call(listener, done.events)
        if done.wakes_sender:
            for sender in self._notice_listeners:
                _call(sender)


def _call(listener: Callable[..., None], *told: Any) -> None:
    try:
        listener(*told)
    except Exception:
        log.exception("A listener of the store failed")
