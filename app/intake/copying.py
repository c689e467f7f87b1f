"""Bytes into files, where the kernel can without passing through this process, and names that stay."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import BinaryIO

from app.intake.refusal import too_large

BUFFER_BYTES = 1024 * 1024
"""Bytes gathered before a trip to a thread: smaller uploads make one trip in all."""
_KERNEL_COPY_BYTES = 1 << 30
_NO_KERNEL_COPY = frozenset({errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EBADF})
"""Another file system, an old kernel, a network mount: then the bytes go through user space."""


def write_all(file: BinaryIO, chunk: bytes) -> None:
    """Write all of `chunk`, in as many calls as it takes. Raises OSError."""
    view = memoryview(chunk)
    while view:
        view = view[file.write(view) :]


def copy(source: int, target: BinaryIO, max_bytes: int) -> None:
    """Copy to the end of the descriptor `source`, reading at most one byte over the limit.

    Raises OSError, and `CodedError` INPUT_TOO_LARGE.
    """
    remaining, in_kernel = max_bytes + 1, hasattr(os, "copy_file_range")
    while remaining > 0:
        if in_kernel:
            try:
                copied = os.copy_file_range(source, target.fileno(), min(remaining, _KERNEL_COPY_BYTES))
            except OSError as error:
                if error.errno not in _NO_KERNEL_COPY:
                    raise
                in_kernel = False
                continue
        else:
            chunk = os.read(source, min(remaining, BUFFER_BYTES))
            write_all(target, chunk)
            copied = len(chunk)
        if copied == 0:
            return
        remaining -= copied
    raise too_large(max_bytes)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
