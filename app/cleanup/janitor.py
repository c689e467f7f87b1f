"""The janitor: removes what no cleanup scope could, because its process is gone or its time is up.

At start and on a timer. It only removes what nobody can need: directories of this node's attempts at start, results
that no task points to, uploads and blobs that are past their time and out of use, and what retention says: first
results, later whole tasks. All in small steps, so that requests and claims never wait long for it.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import structlog

from app.store.errors import StoreUnavailable
from app.store.interface import Store
from app.store.records import TaskRecord
from app.vital import VitalThread

log = structlog.get_logger(__name__)

_AT_ONCE = 200
"""Files that are asked about together."""

_STOP_S = 10.0
"""How long a sweep may hold up the end of the service."""

ORPHAN_AGE_S = 3600.0
"""A file younger than this may belong to a request or an attempt that has not committed yet."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long what has ended is kept, in seconds from its end."""

    result_s: float
    task_s: float
    """A task goes with its attempts, events and keys, and with its result if that is still there."""


class Janitor:
    """Sweeps one data directory."""

    def __init__(
        self,
        store: Store,
        *,
        attempts_dir: Path,
        results_dir: Path,
        sweep_blobs: Callable[[], int],
        end_strays: Callable[[], Sequence[int]],
        retention: Retention,
        interval_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`attempts_dir` is this node's own; `sweep_blobs` removes contents out of use and returns how many;
        `end_strays` ends the processes that a killed service of this node left, and returns their pids.
        """
        self._store = store
        self._attempts_dir = attempts_dir
        self._results_dir = results_dir
        self._sweep_blobs = sweep_blobs
        self._end_strays = end_strays
        self._retention = retention
        self._interval_s = interval_s
        self._clock = clock
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = VitalThread(self._run, "janitor")

    def sweep_start(self) -> None:
        """Before any attempt of this node runs: what lies in its directory or bears its mark is left over."""
        if pids := self._end_strays():
            log.warning("leftover_processes_ended", pids=list(pids))
        for path in self._attempts_dir.glob("*"):
            shutil.rmtree(path, ignore_errors=True)
            log.info("leftover_attempt_removed", path=path.name)

    def start(self) -> None:
        """Sweep on a timer, the first time at once, in a thread."""
        self._thread.start()

    @property
    def fault(self) -> str:
        """See `Vital.fault`."""
        return self._thread.fault

    def sweep_soon(self) -> None:
        """Sweep now, or again once the sweep that runs is done. Returns at once."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread. A sweep that takes long is left behind: it only removes what nobody needs."""
        self._stop.set()
        self._wake.set()
        self._thread.wind_up(_STOP_S)

    def _run(self) -> None:
        while True:
            # Before the look at `_stop`, which `stop` sets first: its wake-up cannot be lost.
            self._wake.clear()
            if self._stop.is_set():
                return
            try:
                self.sweep()
            except StoreUnavailable as error:
                log.warning("janitor_postponed", reason=str(error))
            except Exception:
                log.exception("janitor_failed")
            self._wake.wait(self._interval_s)

    def sweep(self) -> None:
        """One round."""
        while expired := self._store.expired_uploads():
            self._store.delete_uploads([upload.id for upload in expired])
            log.info("uploads_expired", count=len(expired))
        if pruned := self._store.prune_keys():
            log.info("idempotency_keys_pruned", count=pruned)
        if forgotten := self._store.expire_cached():
            log.info("cached_results_expired", count=forgotten)
        self._forget_old_tasks()
        if removed := self._sweep_blobs():
            log.info("blobs_removed", count=removed)
        old = self._old_files(self._results_dir)
        while some := list(islice(old, _AT_ONCE)):
            for path in self._remove_unused(some):
                log.info("leftover_removed", path=f"{path.parent.name}/{path.name}")

    def _forget_old_tasks(self) -> None:
        now = self._clock()
        expired = self._in_batches(self._store.expire_results, now - self._retention.result_s)
        if expired:
            log.info("results_expired", count=expired)
        purged = self._in_batches(self._store.purge_tasks, now - self._retention.task_s)
        if purged:
            log.info("tasks_purged", count=purged)

    def _in_batches(self, forget: Callable[[float], list[TaskRecord]], before: float) -> int:
        """Forget batch after batch, and the files of each; how many tasks they were."""
        count = 0
        while not self._stop.is_set() and (batch := forget(before)):
            count += len(batch)
            data_dir = self._results_dir.parent
            for path in self._remove_unused([data_dir / task.output.path for task in batch if task.output is not None]):
                with contextlib.suppress(OSError):
                    path.parent.rmdir()
        return count

    def _remove_unused(self, paths: Sequence[Path]) -> list[Path]:
        """Remove those of some results, at most 500, that neither a task nor the cache gives out; which they were."""
        names = {str(path.relative_to(self._results_dir.parent)): path for path in paths}
        used = self._store.results_in_use(list(names))
        return [path for name, path in names.items() if name not in used and self._remove(path)]

    def _remove(self, path: Path) -> bool:
        """Remove a file; False, and it is told, where that cannot be done: it must not keep all others."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("file_not_removed", path=str(path), reason=str(error))
            return False
        return True

    def _old_files(self, folder: Path) -> Iterator[Path]:
        limit = self._clock() - ORPHAN_AGE_S
        for path in folder.glob("*/*"):
            try:
                if path.is_file() and path.stat().st_mtime < limit:
                    yield path
            except FileNotFoundError:
                continue
