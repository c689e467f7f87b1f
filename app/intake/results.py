"""Results of other tasks as inputs: the video itself where it is there, else a place that is kept for it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from app.intake.blobs import Blob, BlobStore
from app.intake.refusal import refuse
from app.retry.taxonomy import FailureCode
from app.store.records import InputRef, TaskRecord
from app.tasks.chain import SCHEME


@dataclass(frozen=True, slots=True)
class Result:
    """The published video of another task."""

    uri: str
    path: Path
    sha256: str
    bytes: int
    name: str


@dataclass(frozen=True, slots=True)
class Awaited:
    """The video of a task that has not finished."""

    uri: str
    name: str

    def reference(self) -> InputRef:
        """The input before it is there: a result is always a video, and that is all that is known of it."""
        return InputRef(uri=self.uri, sha256="", bytes=0, name=self.name, media={"kind": "video"})


def result_of(task: TaskRecord, data_dir: Path) -> Result | Awaited:
    """What `task:<id>` means now, of a task that may still succeed or has. Paths of results are below `data_dir`."""
    uri, name = f"{SCHEME}{task.id}", f"{Path(task.source.name).stem or 'video'}.mp4"
    if not task.status.is_terminal or task.output is None:
        return Awaited(uri, name)
    return Result(uri, data_dir / task.output.path, task.output.sha256, task.output.bytes, name)


async def take(blobs: BlobStore, result: Result) -> Blob:
    """The result as a blob, copied unless that content is there already.

    Raises INPUT_NOT_FOUND where its file is not what was published, DISK_FULL, DISK_ERROR.
    """
    if blobs.touch(result.sha256):
        return Blob(result.sha256, result.bytes)
    blob = await blobs.in_thread(_copied, blobs, result)
    if blob is None or blob.sha256 != result.sha256:
        raise refuse(
            FailureCode.INPUT_NOT_FOUND,
            f"The video of {result.uri} is not there any more as it was published.",
            "Submit that task again, then this one.",
            reason="result_gone",
        )
    return blob


def _copied(blobs: BlobStore, result: Result) -> Blob | None:
    """A copy of the file, None if there is none."""
    try:
        descriptor = os.open(result.path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        # A file that has grown is not what was published: what is read ends there, and the checksum says so.
        return blobs.copy(descriptor, max_bytes=max(result.bytes, os.fstat(descriptor).st_size))
    finally:
        os.close(descriptor)
