"""Which failure an error is. By type and code where the error is ours, Python's, or torch's for want of memory; by
CUDA's own words for what else its devices report.

Imports no framework: a worker child classifies with it before torch is loaded, and the service for a dead process.
"""

from __future__ import annotations

import errno
import queue
import re
import signal
import sys
import traceback
from typing import Any

from app.retry.taxonomy import CodedError, Failure, FailureCode

_CUDA_ERROR = re.compile(r"CUDA error: (?P<words>[^\n]*)")
_GPU_MEMORY = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "CUFFT_ALLOC_FAILED")
_NO_DEVICE = (
    "no kernel image is available",
    "no CUDA-capable device is detected",
    "invalid device ordinal",
    "driver version is insufficient",
    "system not yet initialized",
)
_OUR_MISTAKE = (
    "invalid argument",
    "invalid configuration argument",
    "too many resources requested for launch",
    "operation not supported",
)
"""Errors of one call, after which the context goes on. Source: the descriptions of `cudaError_t` in the CUDA Runtime
API: those of sticky errors say that the process must be ended. What is not known here is taken for sticky."""
_HOST_MEMORY = "DefaultCPUAllocator"
"""torch's allocator on the CPU names itself in its RuntimeError."""
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""A full file system, a full quota, a process's limit on file sizes."""
DISK_FAULTS = frozenset({errno.EIO, errno.EROFS, errno.ENXIO, errno.ENODEV, errno.ESTALE})
"""A disk that fails, is read-only or gone, or a network share that was taken away."""
_LAST_WORDS = (
    (FailureCode.QUEUE_TIMEOUT, re.compile(r"^(_?queue\.)(Empty|Full)\b", re.MULTILINE)),
    (FailureCode.HOST_OOM, re.compile(r"^MemoryError\b|numpy\.\S*_ArrayMemoryError", re.MULTILINE)),
    (FailureCode.GPU_UNAVAILABLE, re.compile(r"Found no NVIDIA driver|Torch not compiled with CUDA enabled")),
    (FailureCode.DISK_FULL, re.compile(r"No space left on device")),
)
"""How tracebacks and tools name what they died of. Source: CPython's and torch's own texts."""
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
    if error.errno in DISK_FAULTS:
        return FailureCode.DISK_ERROR
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
    if isinstance(error, RuntimeError):
        return _code_of_torch_error(error)
    return FailureCode.INTERNAL


def _code_of_torch_error(error: RuntimeError) -> FailureCode:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return FailureCode.GPU_OOM
    return _code_of_torch_words(str(error))


def _code_of_torch_words(text: str) -> FailureCode:
    if _HOST_MEMORY in text:
        return FailureCode.HOST_OOM
    if "CUDA out of memory" in text or any(words in text for words in _GPU_MEMORY[1:]):
        return FailureCode.GPU_OOM
    found = _CUDA_ERROR.search(text)
    if found is None:
        return FailureCode.INTERNAL
    for code, known in (
        (FailureCode.GPU_OOM, _GPU_MEMORY),
        (FailureCode.GPU_UNAVAILABLE, _NO_DEVICE),
        (FailureCode.INTERNAL, _OUR_MISTAKE),
    ):
        if any(words in found["words"] for words in known):
            return code
    return FailureCode.GPU_LOST


def code_in_output(text: str) -> FailureCode | None:
    """The failure that a Python program of somebody else died of, by the traceback in its last words; None: unknown."""
    if (found := _code_of_torch_words(text)) is not FailureCode.INTERNAL:
        return found
    return next((code for code, known in _LAST_WORDS if known.search(text)), None)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether smaller pieces may help: memory ran out, of a GPU or for torch on the CPU."""
    return isinstance(error, RuntimeError) and _code_of(error) in (FailureCode.GPU_OOM, FailureCode.HOST_OOM)


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
    """`exitcode` (negative = signal) in words: `SIGKILL`, `exit code 3`."""
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
