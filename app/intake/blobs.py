"""The content-addressed blob store: one file per content, below `<root>/<2 hex>/<sha256>`.

A blob counts only once it is durable: written to a temporary file in the same file system, fsynced, renamed, and its
directory fsynced. What was accepted can then neither vanish nor change while its task waits. All disk work runs in
threads of this store's own, so that a slow disk holds up neither the event loop nor other users of the default pool.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

import structlog

from app.intake.copying import BUFFER_BYTES, copy, sync_directory, write_all
from app.intake.refusal import disk_errors, too_large

log = structlog.get_logger(__name__)

TOUCH_S = 1.0
"""How long a mark of use counts as now: a sweep's grace time is counted in hours."""
_THREADS = 4
_TOUCHES = 4096

_SHA256 = re.compile(r"[0-9a-f]{64}")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Blob:
    """A durable content: its SHA-256 in lower-case hex and its length."""

    sha256: str
    bytes: int


class DigestMismatch(Exception):
    """The bytes that arrived do not have the digest that the sender announced; nothing was kept."""

    def __init__(self, expected: str, actual: str) -> None:
        self.expected = expected
        self.actual = actual
        super().__init__(f"The content has the SHA-256 {actual}, not {expected}.")


class BlobStore:
    """The blobs below `root`, and the threads that write them.

    Safe to use from any thread. `sweep` and the writers exclude each other within one process; between processes the
    grace time does.
    """

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._clock = clock
        self._temporary = root / "tmp"
        self._temporary.mkdir(parents=True, exist_ok=True)
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="intake")
        self._lock = threading.Lock()
        self._touched: OrderedDict[str, float] = OrderedDict()

    # -- readers ----------------------------------------------------------------------------------------------
    def path(self, sha256: str) -> Path:
        """Where the content lies, or would lie. Raises ValueError for anything but 64 lower-case hex digits."""
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"not a SHA-256 in lower-case hex: {sha256!r}")
        return self._root / sha256[:2] / sha256

    def touch(self, sha256: str) -> bool:
        """Whether the content is there; marks it as used now, so that a sweep within its grace time leaves it.

        Raises DISK_ERROR.
        """
        now = self._clock()
        with self._lock:
            try:
                with disk_errors():
                    os.utime(self.path(sha256))
            except FileNotFoundError:
                self._touched.pop(sha256, None)
                return False
            self._touched[sha256] = now
            self._touched.move_to_end(sha256)
            if len(self._touched) > _TOUCHES:
                self._touched.popitem(last=False)
            return True

    def touch_again(self, sha256: str) -> bool:
        """As `touch`, for a content that is used many times a second: a mark of less than `TOUCH_S` ago will do."""
        with self._lock:
            touched = self._touched.get(sha256)
            if touched is not None and self._clock() - touched < TOUCH_S:
                return True
        return self.touch(sha256)

    # -- writers ----------------------------------------------------------------------------------------------
    def writer(self, max_bytes: int) -> BlobWriter:
        """A new content of at most `max_bytes`, written piece by piece; use it as an async context manager."""
        return BlobWriter(self, max_bytes)

    async def put(self, chunks: AsyncIterator[bytes], *, max_bytes: int) -> Blob:
        """Store all of `chunks`. Raises INPUT_TOO_LARGE as soon as they pass `max_bytes`, DISK_FULL, DISK_ERROR."""
        async with self.writer(max_bytes) as writer:
            async for chunk in chunks:
                await writer.write(chunk)
            return await writer.commit()

    async def in_thread(self, function: Callable[..., _T], *args: object) -> _T:
        """Run blocking work in one of the store's threads."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    def submit(self, function: Callable[[], object]) -> None:
        """Run blocking work some time, without waiting; dropped if the store is closed."""
        try:
            self._executor.submit(function)
        except RuntimeError:
            function()

    def open_temporary(self) -> tuple[BinaryIO, Path]:
        """A new empty file that `publish` can turn into a blob. Blocking."""
        path = self._temporary / secrets.token_hex(16)
        return path.open("xb", buffering=0), path

    def publish(self, temporary: Path, blob: Blob) -> None:
        """Make a fsynced temporary file the blob, or drop it if that content is here already. Blocking."""
        final = self.path(blob.sha256)
        if not final.parent.is_dir():
            final.parent.mkdir(exist_ok=True)
            sync_directory(self._root)
        with self._lock:
            if _size(final) == blob.bytes:
                os.utime(final)
                temporary.unlink()
            else:
                temporary.replace(final)
        # Also for a content that was here already: its writer may not have come this far yet.
        sync_directory(final.parent)

    def copy(self, descriptor: int, *, max_bytes: int) -> Blob:
        """Store what can be read from `descriptor`. Blocking. Raises INPUT_TOO_LARGE, DISK_FULL, DISK_ERROR.

        The copy is made first (in the kernel, sharing the blocks where the file system can) and hashed then: nobody
        but us can change it any more.
        """
        with disk_errors():
            file, path = self.open_temporary()
            try:
                with file:
                    copy(descriptor, file, max_bytes)
                    os.fsync(file.fileno())
                with path.open("rb") as copied:
                    blob = Blob(hashlib.file_digest(copied, "sha256").hexdigest(), os.fstat(copied.fileno()).st_size)
                self.publish(path, blob)
            finally:
                path.unlink(missing_ok=True)
            return blob

    # -- housekeeping -----------------------------------------------------------------------------------------
    def sweep(self, in_use: Callable[[Sequence[str]], set[str]], *, grace_s: float) -> list[Blob]:
        """Delete contents that `in_use` does not return and that nobody stored or touched for `grace_s`. Blocking.

        Also deletes temporary files that old. The grace time must be longer than a request can take from storing a
        content to committing the record that refers to it.
        """
        old = time.time() - grace_s
        for path in self._temporary.iterdir():
            if _modified(path) < old:
                _remove(path)
        removed = []
        for shard in sorted(p for p in self._root.iterdir() if len(p.name) == 2):
            idle = [p.name for p in shard.iterdir() if _SHA256.fullmatch(p.name) and _modified(p) < old]
            for sha256 in sorted(set(idle) - in_use(idle)) if idle else ():
                path = self.path(sha256)
                with self._lock:
                    if _modified(path) < old:
                        self._touched.pop(sha256, None)
                        size = _size(path) or 0
                        if _remove(path):
                            removed.append(Blob(sha256, size))
        return removed

    def close(self) -> None:
        """Wait for writes under way and stop the threads."""
        self._executor.shutdown(wait=True)


class BlobWriter:
    """One content on its way in. Leaving the context without `commit` leaves nothing behind."""

    def __init__(self, store: BlobStore, max_bytes: int) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._lock = threading.Lock()
        self._hash = hashlib.sha256()
        self._file: BinaryIO | None = None
        self._path: Path | None = None
        self._closed = False
        self.bytes = 0
        """Bytes taken so far."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    async def write(self, chunk: bytes) -> None:
        """Take the next bytes. Raises INPUT_TOO_LARGE when they pass the limit, DISK_FULL, DISK_ERROR."""
        self.bytes += len(chunk)
        if self.bytes > self._max_bytes:
            raise too_large(self._max_bytes)
        self._gathered.append(chunk)
        self._gathered_bytes += len(chunk)
        if self._gathered_bytes >= BUFFER_BYTES:
            gathered, self._gathered, self._gathered_bytes = self._gathered, [], 0
            await self._store.in_thread(self._drain, gathered)

    async def commit(self, *, expected_sha256: str | None = None) -> Blob:
        """Make the content durable. Raises `DigestMismatch` where the sender announced another digest, DISK_FULL,
        DISK_ERROR.
        """
        gathered, self._gathered = self._gathered, []
        return await self._store.in_thread(self._finish, gathered, expected_sha256)

    def abort(self) -> None:
        """Drop what was written, in the background. Safe to repeat and after `commit`."""
        if not self._closed:
            self._store.submit(self._discard)

    # In threads; the lock orders them, since a cancelled `write` may still be at work when `abort` comes.
    def _drain(self, gathered: list[bytes]) -> None:
        with self._lock, disk_errors():
            if self._closed:
                return
            if self._file is None:
                self._file, self._path = self._store.open_temporary()
            for chunk in gathered:
                self._hash.update(chunk)
                write_all(self._file, chunk)

    def _finish(self, gathered: list[bytes], expected_sha256: str | None) -> Blob:
        self._drain(gathered)
        with self._lock, disk_errors():
            if self._closed or self._file is None or self._path is None:
                raise RuntimeError("the blob writer is closed")
            blob = Blob(self._hash.hexdigest(), self.bytes)
            if expected_sha256 is not None and blob.sha256 != expected_sha256:
                raise DigestMismatch(expected_sha256, blob.sha256)
            os.fsync(self._file.fileno())
            self._file.close()
            self._store.publish(self._path, blob)
            self._closed = True
            return blob

    def _discard(self) -> None:
        with self._lock:
            self._closed = True
            if self._file is not None and self._path is not None:
                self._file.close()
                self._path.unlink(missing_ok=True)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _modified(path: Path) -> float:
    """When the file was last written or touched; now, if it is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _remove(path: Path) -> bool:
    """Remove a file; False, and it is told, where that cannot be done: it must not keep all others."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("file_not_removed", path=str(path), reason=str(error))
        return False
    return True
