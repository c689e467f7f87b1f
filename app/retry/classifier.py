"""Which failure an error is. By type and code where the error is ours or Python's; by text only for torch's errors.

Imports no framework: a worker child classifies with it before torch is loaded, and the service for a dead process.
"""

from __future__ import annotations

import errno
import queue
import signal
import traceback
from typing import Any

from app.retry.taxonomy import CodedError, Failure, FailureCode

_STICKY_CUDA = ("illegal memory access", "device-side assert", "unspecified launch failure", "CUDA error")
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""A full file system, a full quota, a process's limit on file sizes."""
_TRACEBACK_CHARS = 8_000
"""Enough for the frames that matter; an error record stays small."""


def _describe(error: BaseException) -> dict[str, Any]:
    text = "".join(traceback.format_exception(error))
    return {
        "type": f"{type(error).__module__}.{type(error).__qualname__}",
        "text": str(error),
        "traceback": text[-_TRACEBACK_CHARS:],
    }


def _code_of_os_error(error: OSError) -> FailureCode | None:
    if error.errno in NO_SPACE:
        return FailureCode.DISK_FULL
    if isinstance(error, BrokenPipeError | ConnectionError):
        return FailureCode.UPSTREAM_CONNECTION
    if isinstance(error, FileNotFoundError):
        return FailureCode.INPUT_NOT_FOUND
    if isinstance(error, PermissionError):
        return FailureCode.INPUT_FORBIDDEN
    if isinstance(error, TimeoutError):
        return FailureCode.UPSTREAM_TIMEOUT
    return None


def _code_of(error: BaseException) -> FailureCode:
    if isinstance(error, queue.Empty | queue.Full):
        return FailureCode.QUEUE_TIMEOUT
    if isinstance(error, MemoryError):
        return FailureCode.HOST_OOM
    if isinstance(error, EOFError):
        return FailureCode.UPSTREAM_CONNECTION
    if isinstance(error, OSError) and (code := _code_of_os_error(error)) is not None:
        return code
    if type(error).__name__ == "OutOfMemoryError" or "CUDA out of memory" in str(error):
        return FailureCode.GPU_OOM
    if isinstance(error, RuntimeError) and any(words in str(error) for words in _STICKY_CUDA):
        return FailureCode.GPU_LOST
    return FailureCode.INTERNAL


def classify_exception(error: BaseException) -> Failure:
    """The failure that `error` is. An unknown one is INTERNAL and keeps its type, message and traceback."""
    if isinstance(error, CodedError):
        return error.failure
    code = _code_of(error)
    detail = _describe(error)
    if code is FailureCode.INTERNAL:
        text = str(error).strip() or "no message"
        return Failure(code, f"Unexpected {type(error).__name__}: {text}", detail=detail)
    return Failure(code, detail=detail)


def name_exit(exitcode: int | None) -> str:
    """`exitcode` of `multiprocessing` (negative = signal) in words: `SIGKILL`, `exit code 3`."""
    if exitcode is None:
        return "unknown exit"
    if exitcode < 0:
        try:
            return signal.Signals(-exitcode).name
        except ValueError:
            return f"signal {-exitcode}"
    return f"exit code {exitcode}"


def classify_exit(exitcode: int | None, last_words: str = "", *, oom_kill: bool = False) -> Failure:
    """The failure of a process that died during an attempt, exit code 0 without a result included.

    `oom_kill`: whether the kernel counted a kill for want of memory meanwhile; it makes a SIGKILL HOST_OOM.
    """
    how = name_exit(exitcode)
    detail: dict[str, Any] = {"exitcode": exitcode, "how": how}
    if last_words:
        detail["last_words"] = last_words
    if oom_kill and exitcode == -signal.SIGKILL:
        return Failure(FailureCode.HOST_OOM, detail=detail)
    what = (
        "ended without a result (exit code 0)"
        if exitcode == 0
        else f"was killed by {how}"
        if (exitcode or 0) < 0
        else f"died with {how}"
    )
    return Failure(FailureCode.WORKER_CRASHED, f"The worker process {what} while it rendered.", detail=detail)
