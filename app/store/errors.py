"""Why a store did not do what it was asked. Whatever of these is raised, nothing was written."""

from __future__ import annotations

from app.store.records import CachedResult, TaskRecord
from app.tasks.status import Status


class StaleClaim(Exception):
    """A write of an attempt that is no longer current: it was refused and changed nothing."""


class IdempotencyConflict(Exception):
    """The key was used before with another request."""

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        super().__init__(f"This idempotency key belongs to another request (task {task_id}).")


class QueueFull(Exception):
    """The limit of waiting tasks is reached; nothing was written."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"The queue holds its limit of {limit} waiting tasks.")


class UntrustedResult(Exception):
    """A cached result would have served the task, but is not trusted (yet); nothing was written."""

    def __init__(self, result: CachedResult) -> None:
        self.result = result
        super().__init__(f"The cached result {result.output.path} has not been looked at.")


class ClientQueueFull(Exception):
    """The limit of waiting tasks of one client is reached; nothing was written."""

    def __init__(self, client: str, limit: int, waiting: int) -> None:
        """`waiting`: tasks of all clients that wait."""
        self.client = client
        self.limit = limit
        self.waiting = waiting
        super().__init__(f"The client {client!r} has its limit of {limit} waiting tasks.")


class NoSuchPredecessor(Exception):
    """A task names a predecessor that is not there (any more); nothing was written."""

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        super().__init__(f"There is no task {task_id} to wait for.")


class PredecessorFailed(Exception):
    """A task names a predecessor that has ended without a result; nothing was written."""

    def __init__(self, task: TaskRecord) -> None:
        self.task = task
        super().__init__(f"Task {task.id} is {task.status}.")


class NotInReview(Exception):
    """Nobody is asked about this task: its status is `status`."""

    def __init__(self, status: Status) -> None:
        self.status = status
        super().__init__(f"The task is {status}, not in review.")


class StoreUnavailable(Exception):
    """The database cannot be read or written now (locked, read-only, disk full); nothing was written."""


class SchemaTooNew(Exception):
    """The database was written by a newer version of the service; this one must not touch it."""

    def __init__(self, found: str, known: str) -> None:
        self.found = found
        self.known = known
        super().__init__(
            f"The database has schema revision {found}, this version of Greenroom knows up to {known}: "
            "start the newer version, or restore the backup from before the upgrade."
        )
