"""Finished videos at paths that callers name: only below the roots, whole or not at all, never over another file."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from app.intake.below import Outside, open_below, real_roots, resolve_below

SUFFIX = ".mp4"
"""What is placed are videos in this container. It also keeps callers from making files that mean more to others."""
_NAME_BYTES = 255
_PIECE_BYTES = 1024 * 1024
_NAMELESS: int | None = getattr(os, "O_TMPFILE", None)
_NO_NAMELESS = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})
_NO_SYNC = frozenset({errno.EINVAL, errno.EOPNOTSUPP})
_NO_LINK = frozenset({errno.EOPNOTSUPP, errno.EPERM, errno.EXDEV, errno.ENOENT, errno.EMLINK, errno.ENOSYS})

Reason = Literal[
    "relative", "name", "outside_roots", "suffix", "no_folder", "permission", "exists", "no_space", "disk", "unreadable"
]


class CannotPlace(Exception):
    """A video cannot lie where the caller wants it. Its text says why, `hint` what to do, `reason` is for programs."""

    def __init__(self, reason: Reason, detail: str, hint: str) -> None:
        self.reason = reason
        self.hint = hint
        super().__init__(detail)


@dataclass(frozen=True, slots=True)
class Target:
    """A path that may be written: `folder` has no links in it, `name` is that of a file in it."""

    root: str
    folder: str
    name: str


class Places:
    """Where videos may be put. All calls block."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = real_roots(roots)

    def target(self, path: str) -> Target:
        """The place that `path` means. Raises `CannotPlace` where nothing can be put there, whoever asks.

        Links and dots in the folder are resolved first; what lies outside of the roots is refused in the same words
        whether it exists or not.
        """
        folder, slash, name = path.rpartition("/")
        if not path.startswith("/") or not slash:
            raise CannotPlace("relative", "The path is not absolute.", "Give the absolute path of the file.")
        if not _can_be(path, name):
            raise CannotPlace("name", "No file can have such a path.", "Give a shorter one, in plain characters.")
        if not name.lower().endswith(SUFFIX):
            text = f"The name does not end in {SUFFIX}."
            raise CannotPlace("suffix", text, f"Videos are MP4 files: name one, for example /videos/out{SUFFIX}.")
        try:
            root, resolved = resolve_below(self._roots, folder or "/")
        except Outside:
            hint = "Name a file below one of the folders that the service may write to; its operator sets them."
            raise CannotPlace("outside_roots", "The path is not below a folder for results.", hint) from None
        except (OSError, ValueError):
            raise _no_folder() from None
        found = Target(root, resolved, name)
        with _folder(found) as descriptor:
            if not os.access(".", os.W_OK, dir_fd=descriptor):
                raise _forbidden("This service may not write to the folder of the path.")
        return found

    def holds(self, target: Target) -> tuple[int, str] | None:
        """Length and SHA-256 of the file that lies there, None where nothing does.

        Raises `CannotPlace`, reason `exists`, for what is no regular file (a link, a folder), and as `target`.
        """
        with _folder(target) as folder:
            try:
                descriptor = os.open(
                    target.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
                )
            except FileNotFoundError:
                return None
            except OSError:
                raise taken() from None
            try:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode):
                    raise taken()
                with _disk(), os.fdopen(descriptor, "rb", closefd=False) as file:
                    return found.st_size, hashlib.file_digest(file, "sha256").hexdigest()
            finally:
                os.close(descriptor)

    def has(self, target: Target, size: int) -> bool:
        """Whether a regular file of this length lies there. Raises `CannotPlace` as `target`."""
        with _folder(target) as folder:
            try:
                found = os.stat(target.name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                return False
            except OSError as error:
                raise _failed(error) from None
            return stat.S_ISREG(found.st_mode) and found.st_size == size

    def put(self, source: Path, target: Target, size: int, sha256: str) -> None:
        """Copy a finished video of this length and SHA-256 there, durably. The same file lying there already will do.

        It appears under its name when it is whole. Raises `CannotPlace`.
        """
        with _folder(target) as folder:
            try:
                content = source.open("rb")
            except OSError:
                text = "The video is not there any more."
                raise CannotPlace("unreadable", text, "Results are kept for a limited time: submit it again.") from None
            with content, _disk():
                try:
                    _put(content, folder, target.name)
                except FileExistsError:
                    if self.holds(target) != (size, sha256):
                        raise taken() from None


def taken() -> CannotPlace:
    """The refusal to write over something."""
    hint = "Name another path, or remove that file: none is written over."
    return CannotPlace("exists", "Another file lies at the path already.", hint)


def _can_be(path: str, name: str) -> bool:
    try:
        return b"\0" not in os.fsencode(path) and len(os.fsencode(name)) <= _NAME_BYTES
    except UnicodeEncodeError:
        return False


def _forbidden(detail: str) -> CannotPlace:
    return CannotPlace("permission", detail, "Give the service's user the right to write there.")


def _no_folder() -> CannotPlace:
    return CannotPlace("no_folder", "The folder of the path is not there.", "Make the folder first.")


@contextmanager
def _folder(target: Target) -> Iterator[int]:
    """A descriptor of the target's folder."""
    try:
        descriptor = open_below(target.root, target.folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        raise _forbidden("This service may not use the folder of the path.") from None
    except (OSError, ValueError):
        # Not there, a file on the way, a link that was put in the way, a name too long or that no file can have.
        raise _no_folder() from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _failed(error) from error


def _failed(error: OSError) -> CannotPlace:
    words = error.strerror or str(error) or type(error).__name__
    if error.errno in (errno.EACCES, errno.EPERM):
        return _forbidden(f"The file may not be written: {words}.")
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return CannotPlace("no_space", f"The file cannot be written: {words}.", "Make room there, then ask again.")
    return CannotPlace("disk", f"The file cannot be written: {words}.", "Look after that disk, then ask again.")


def _put(content: BinaryIO, folder: int, name: str) -> None:
    """Copy `content` to a new file in the folder. Raises FileExistsError where there is one, OSError."""
    if not _put_nameless(content, folder, name):
        content.seek(0)
        _put_named(content, folder, name)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in _NO_SYNC:  # not every file system over a network knows it
            raise


def _put_nameless(content: BinaryIO, folder: int, name: str) -> bool:
    """By a file that gets its name when it is whole: nothing is left if the service is killed meanwhile.

    False where the file system cannot do that.
    """
    if _NAMELESS is None:
        return False
    try:
        descriptor = os.open(".", _NAMELESS | os.O_WRONLY | os.O_CLOEXEC, 0o666, dir_fd=folder)
    except OSError as error:
        if error.errno in _NO_NAMELESS:
            return False
        raise
    with os.fdopen(descriptor, "wb") as file:
        _fill(content, file)
        try:
            os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=folder)
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno in _NO_LINK:
                return False
            raise
    return True


def _put_named(content: BinaryIO, folder: int, name: str) -> None:
    """By a file of another name. The right one is taken first, by an empty file, so that nothing can be replaced."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
    os.close(os.open(name, flags, 0o666, dir_fd=folder))
    hidden = f".greenroom-{secrets.token_hex(8)}.part"
    try:
        with os.fdopen(os.open(hidden, flags, 0o666, dir_fd=folder), "wb") as file:
            _fill(content, file)
        os.replace(hidden, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        for left in (hidden, name):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(left, dir_fd=folder)
        raise


def _fill(content: BinaryIO, file: BinaryIO) -> None:
    shutil.copyfileobj(content, file, _PIECE_BYTES)
    file.flush()
    os.fsync(file.fileno())
