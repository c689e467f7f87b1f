"""The failure table and what is read from it."""

from __future__ import annotations

import errno
import queue

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from app.retry.backoff import make_backoff
from app.retry.classifier import classify_exception, classify_exit, is_out_of_memory
from app.retry.decision import decide
from app.retry.taxonomy import FAILURE_TABLE, CodedError, Failure, FailureCode

codes = st.sampled_from(list(FailureCode))


def test_every_code_has_one_row_with_message_and_hint():
    assert set(FAILURE_TABLE) == set(FailureCode)
    for code, row in FAILURE_TABLE.items():
        assert len(row.message) > 15, code
        assert len(row.hint) > 15, code


@given(codes, st.text(alphabet=" \t\n", max_size=3))
def test_a_failure_never_has_an_empty_message_or_hint(code, blank):  # R0.1
    failure = Failure(code, blank, blank)
    assert failure.message.strip()
    assert failure.hint.strip()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (queue.Empty(), FailureCode.QUEUE_TIMEOUT),
        (queue.Full(), FailureCode.QUEUE_TIMEOUT),
        (BrokenPipeError(), FailureCode.UPSTREAM_CONNECTION),
        (ConnectionResetError(), FailureCode.UPSTREAM_CONNECTION),
        (EOFError(), FailureCode.UPSTREAM_CONNECTION),
        (TimeoutError(), FailureCode.UPSTREAM_TIMEOUT),
        (OSError(errno.ENOSPC, "No space left on device"), FailureCode.DISK_FULL),
        (OSError(errno.EIO, "Input/output error"), FailureCode.DISK_ERROR),
        (OSError(errno.EROFS, "Read-only file system"), FailureCode.DISK_ERROR),
        (FileNotFoundError(errno.ENOENT, "gone"), FailureCode.INPUT_NOT_FOUND),
        (PermissionError(errno.EACCES, "no"), FailureCode.INPUT_FORBIDDEN),
        (MemoryError(), FailureCode.HOST_OOM),
        (torch.OutOfMemoryError(), FailureCode.GPU_OOM),
        (torch.cuda.OutOfMemoryError("Allocation on device 0 would exceed allowed memory."), FailureCode.GPU_OOM),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), FailureCode.GPU_OOM),
        (
            torch.AcceleratorError("CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation'"),
            FailureCode.GPU_OOM,
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            FailureCode.GPU_OOM,
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), FailureCode.GPU_OOM),
        (RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory"), FailureCode.HOST_OOM),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), FailureCode.GPU_LOST),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), FailureCode.GPU_LOST),
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), FailureCode.GPU_LOST),
        (torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"), FailureCode.GPU_LOST),
        (torch.AcceleratorError("CUDA error: something of a later driver"), FailureCode.GPU_LOST),
        (torch.AcceleratorError("CUDA error: no kernel image is available for execution"), FailureCode.GPU_UNAVAILABLE),
        (torch.AcceleratorError("CUDA error: invalid configuration argument"), FailureCode.INTERNAL),
        (RuntimeError("the words illegal memory access in a sentence"), FailureCode.INTERNAL),
        (CodedError(FailureCode.INPUT_NO_FACE), FailureCode.INPUT_NO_FACE),
        (ValueError("surprise"), FailureCode.INTERNAL),
        (ValueError(), FailureCode.INTERNAL),
    ],
)
def test_errors_are_classified_by_type(error, code):  # R0.8
    failure = classify_exception(error)
    assert failure.code is code
    assert failure.message.strip()


@pytest.mark.parametrize(("exitcode", "word"), [(-9, "SIGKILL"), (-11, "SIGSEGV"), (0, "without a result"), (7, "7")])
def test_a_dead_process_is_a_crash_that_names_how(exitcode, word):
    failure = classify_exit(exitcode, "last words")
    assert failure.code is FailureCode.WORKER_CRASHED
    assert word in failure.message
    assert failure.detail["last_words"] == "last words"


def _decide(code, earlier=(), retries=0, deadline_at=None):
    return decide(
        Failure(code), earlier=earlier, retries=retries, max_retries=3, now=1000.0, deadline_at=deadline_at,
        backoff=make_backoff("exponential", 60.0),
    )  # fmt: skip


@given(codes, st.lists(codes, max_size=6), st.integers(0, 6))
def test_no_decision_goes_past_a_cap(code, earlier, retries):
    decision = _decide(code, earlier, retries)
    row = FAILURE_TABLE[code]
    assert decision.reason
    if decision.end == "retry":
        assert row.retries is not None
        assert earlier.count(code) < row.retries
        assert retries < 3
    if row.retries is None:
        assert decision.end == "requeue"


def test_a_crash_is_retried_three_times_with_growing_waits():  # R0.9
    waits = [_decide(FailureCode.WORKER_CRASHED, [FailureCode.WORKER_CRASHED] * n, n).backoff_s for n in range(3)]
    assert waits == [1.0, 2.0, 4.0]
    assert _decide(FailureCode.WORKER_CRASHED, [FailureCode.WORKER_CRASHED] * 3, 3).end == "fail"


def test_no_retry_is_scheduled_past_the_deadline():
    assert _decide(FailureCode.DISK_FULL, deadline_at=1020.0).end == "fail"
    assert _decide(FailureCode.DISK_FULL, deadline_at=1040.0).end == "retry"


def test_a_real_allocation_that_the_host_refuses_is_told_as_such():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60, dtype=torch.uint8)
    assert classify_exception(refused.value).code is FailureCode.HOST_OOM
    assert is_out_of_memory(refused.value)
