"""What is kept beside tasks, and what goes when its time is up: values by name, uploads, results, keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from app.store.records import TaskRecord, UploadRecord


class Upkeep(Protocol):
    """What is kept, for how long, and what of it is still in use."""

    def keep(self, name: str, value: Any) -> None:
        """Remember a JSON value by name (state that must survive a restart); None forgets it."""

    def keep_first(self, name: str, value: Any) -> Any:
        """Remember a value unless there is one; the one that is remembered then."""

    def kept(self, name: str) -> Any:
        """What `keep` remembered, or None."""

    async def aput_upload(self, upload: UploadRecord) -> None:
        """Remember an upload whose file is already durable."""

    async def aget_upload(self, upload_id: str) -> UploadRecord | None:
        """An upload that has not expired."""

    async def aget_uploads(self, upload_ids: Sequence[str]) -> dict[str, UploadRecord]:
        """Those of some uploads, at most 500, that are there and have not expired, by their ids.

        All that were not read a moment ago are read at once. That another process deletes one before it expires may
        be noticed a second late.
        """

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
