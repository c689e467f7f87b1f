"""Inputs at `file://` addresses: only below the media roots, opened so that no link or race leads out of them."""

from __future__ import annotations

import os
import stat
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote_to_bytes

from app.intake.below import Outside, open_below, real_roots, resolve_below
from app.intake.blobs import Blob, BlobStore
from app.intake.names import display_name
from app.intake.refusal import refuse, too_large
from app.retry.taxonomy import CodedError, FailureCode

_CACHE_ENTRIES = 4096
SETTLE_S = 2.0
"""A file that changed less than this long ago is not remembered: time stamps are coarser than writes."""

_Key = tuple[str, int, int, int, int, int]


class LocalFiles:
    """Copies files below `roots` into the blob store. Knows a file again by its stat, so that a repeat is cheap."""

    def __init__(self, blobs: BlobStore, roots: Sequence[Path], *, clock: Callable[[], float] = time.time) -> None:
        self._blobs = blobs
        self._roots = real_roots(roots)
        self._clock = clock
        self._known: OrderedDict[_Key, Blob] = OrderedDict()

    async def ingest(self, uri: str, *, max_bytes: int) -> tuple[Blob, str]:
        """The file at `uri` as a blob, and its name. Raises INPUT_INVALID, _FORBIDDEN, _NOT_FOUND, _TOO_LARGE."""
        path = parse_file_uri(uri)
        blob = await self._blobs.in_thread(self._ingest, path, max_bytes)
        return blob, display_name(os.fsencode(path).decode(errors="replace"))

    def _ingest(self, path: str, max_bytes: int) -> Blob:
        root, resolved = self._resolve(path)
        with _opened(root, resolved) as descriptor:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise refuse(FailureCode.INPUT_INVALID, "The path is not a regular file.", reason="not_a_regular_file")
            if before.st_size > max_bytes:
                raise too_large(max_bytes)
            key = _identity(resolved, before)
            known = self._known.get(key)
            if known is not None and self._blobs.touch(known.sha256):
                return known
            blob = self._blobs.copy(descriptor, max_bytes=max_bytes)
            if _identity(resolved, os.fstat(descriptor)) != key or blob.bytes != before.st_size:
                raise refuse(
                    FailureCode.INPUT_INVALID,
                    "The file changed while it was read.",
                    "Finish writing it (write elsewhere, then rename), then try again.",
                    reason="changing",
                )
        if max(before.st_mtime, before.st_ctime) < self._clock() - SETTLE_S:
            self._remember(key, blob)
        return blob

    def _resolve(self, path: str) -> tuple[str, str]:
        """The root and the path without links and dots. What lies outside is FORBIDDEN whether it exists or not."""
        try:
            return resolve_below(self._roots, path)
        except Outside:
            hint = "" if self._roots else "No media roots are configured on this service: upload the file."
            raise refuse(
                FailureCode.INPUT_FORBIDDEN, "The path is not below a media root.", hint, reason="outside_roots"
            ) from None
        except (OSError, ValueError):
            raise _not_found() from None

    def _remember(self, key: _Key, blob: Blob) -> None:
        # One dict operation each: safe between the store's threads under the interpreter lock.
        self._known[key] = blob
        while len(self._known) > _CACHE_ENTRIES:
            self._known.popitem(last=False)


def parse_file_uri(uri: str) -> str:
    """The absolute path in `file:///path` or `file://localhost/path`, percent-decoded. Raises INPUT_INVALID."""
    rest = uri[len("file:") :]
    host, slash, tail = rest[2:].partition("/") if rest.startswith("//") else ("", rest[:1], rest[1:])
    if slash != "/" or host.lower() not in {"", "localhost"}:
        raise _bad_uri("Write the address as file:///absolute/path.")
    try:
        raw = unquote_to_bytes("/" + tail)
    except UnicodeEncodeError:
        raise _bad_uri("The path holds characters that no file name can have.") from None
    if b"\0" in raw:
        raise _bad_uri("The path holds a NUL character.")
    return os.fsdecode(raw)


@contextmanager
def _opened(root: str, resolved: str) -> Iterator[int]:
    """A descriptor of the file. Non-blocking, so that a FIFO cannot hold the thread."""
    try:
        descriptor = open_below(root, resolved, os.O_RDONLY | os.O_NONBLOCK)
    except PermissionError:
        raise refuse(
            FailureCode.INPUT_FORBIDDEN,
            "This service has no permission to read the file.",
            "Change the file's permissions, or upload it.",
            reason="permission",
        ) from None
    except OSError:
        # Not there, a folder on the way is a file, a link in the way, a socket, a name too long.
        raise _not_found() from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _identity(path: str, status: os.stat_result) -> _Key:
    return path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _not_found() -> CodedError:
    return refuse(FailureCode.INPUT_NOT_FOUND, "There is no such file.", "Check the path.", reason="no_such_file")


def _bad_uri(message: str) -> CodedError:
    return refuse(FailureCode.INPUT_INVALID, message, "Give file:///absolute/path.", reason="url")
