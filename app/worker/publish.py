"""From a rendered file to a published one: whole on disk under its final name before anybody is told."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from app.store.records import Artifact
from app.worker import wire

RESULTS = "results"


def fsync_path(path: Path) -> None:
    """Make a file's content, or a directory's entries, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def publish(finished: wire.Finished, data_dir: Path) -> Artifact:
    """Checksum the file, make it durable and move it to `results/<task>/<attempt>.mp4`.

    The name holds the attempt, so that a late zombie can never replace the file of another attempt. Returns the
    artifact; the caller commits it, and deletes the file if that is refused. Raises OSError.
    """
    source = Path(finished.path)
    with source.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        size = os.fstat(stream.fileno()).st_size
        os.fsync(stream.fileno())
    relative = Path(RESULTS) / finished.task_id / f"{finished.attempt}{source.suffix}"
    target = data_dir / relative
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
    fsync_path(target.parent)
    fsync_path(target.parent.parent)
    return Artifact(
        path=str(relative),
        sha256=digest,
        bytes=size,
        duration_s=finished.duration_s,
        width=finished.width,
        height=finished.height,
        fps=finished.fps,
        frames=finished.frames,
    )


def discard(task_id: str, attempt: int, data_dir: Path) -> None:
    """Remove what an attempt that was fenced out may have put in place without committing it."""
    folder = data_dir / RESULTS / task_id
    for path in folder.glob(f"{attempt}.*"):
        path.unlink(missing_ok=True)
    _remove_if_empty(folder)


def unpublish(artifact: Artifact, data_dir: Path) -> None:
    """Remove a file whose commit was refused, and its directory if nothing else lies there."""
    path = data_dir / artifact.path
    path.unlink(missing_ok=True)
    _remove_if_empty(path.parent)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
