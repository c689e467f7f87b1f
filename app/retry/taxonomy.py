"""The failure taxonomy: one code per kind of failure, and one row per code that answers every question about it.

Codes are set where an error is raised. This module is plain data and imports nothing of ours, so that renderers,
the media layer, the worker child and the service all speak of failures in the same words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class FailureCode(StrEnum):
    """What went wrong. The value is what callers see in `error.code`."""

    INPUT_NOT_FOUND = "INPUT_NOT_FOUND"
    INPUT_FORBIDDEN = "INPUT_FORBIDDEN"
    INPUT_INVALID = "INPUT_INVALID"
    INPUT_NO_FACE = "INPUT_NO_FACE"
    INPUT_TOO_LARGE = "INPUT_TOO_LARGE"
    UPSTREAM_TIMEOUT = "UPSTREAM_TIMEOUT"
    UPSTREAM_CONNECTION = "UPSTREAM_CONNECTION"
    UPSTREAM_5XX = "UPSTREAM_5XX"
    UPSTREAM_BUSY = "UPSTREAM_BUSY"
    UPSTREAM_REJECTED = "UPSTREAM_REJECTED"
    UPSTREAM_AUTH = "UPSTREAM_AUTH"
    QUEUE_TIMEOUT = "QUEUE_TIMEOUT"
    WORKER_CRASHED = "WORKER_CRASHED"
    WORKER_UNRESPONSIVE = "WORKER_UNRESPONSIVE"
    WORKER_STALLED = "WORKER_STALLED"
    WORKER_START_FAILED = "WORKER_START_FAILED"
    RENDER_TIMEOUT = "RENDER_TIMEOUT"
    GPU_UNAVAILABLE = "GPU_UNAVAILABLE"
    GPU_OOM = "GPU_OOM"
    GPU_LOST = "GPU_LOST"
    HOST_OOM = "HOST_OOM"
    DISK_FULL = "DISK_FULL"
    DISK_ERROR = "DISK_ERROR"
    MEDIA_HELPER_FAILED = "MEDIA_HELPER_FAILED"
    JUDGE_FAILED = "JUDGE_FAILED"
    OUTPUT_INVALID = "OUTPUT_INVALID"
    LOW_CONFIDENCE = "LOW_CONFIDENCE"
    PREDECESSOR_FAILED = "PREDECESSOR_FAILED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED = "CANCELLED"
    TASK_LOST = "TASK_LOST"
    INTERRUPTED = "INTERRUPTED"
    INTERNAL = "INTERNAL"


CALLERS_FAULT = frozenset(code for code in FailureCode if code.startswith("INPUT_"))
"""Failures for which the input is to blame: they say nothing about the service or a tier."""


@dataclass(frozen=True, slots=True)
class FailurePolicy:
    """One row of the failure table.

    `retries` is the cap of automatic retries for this cause and `first_delay_s` the first backoff;
    `None` retries means always and free of charge. `next_tier_after` is how many failures of a task on one tier it
    takes to go on to the next: 1 at once, None never. `message` is shown when the cause has no text of its own.
    """

    retries: int | None
    first_delay_s: float
    next_tier_after: int | None
    kills_process: bool
    device_suspect: bool
    counts_on_breaker: bool
    message: str
    hint: str

    @property
    def retryable(self) -> bool:
        """Whether the service itself tries again after this failure."""
        return self.retries is None or self.retries > 0


def _row(
    retries: int | None,
    delay: float,
    *,
    tier: int | None,
    kills: bool,
    suspect: bool,
    breaker: bool,
    message: str,
    hint: str,
) -> FailurePolicy:
    return FailurePolicy(retries, delay, tier, kills, suspect, breaker, message, hint)


_C = FailureCode
_CHECK_INPUT = "Check the file and submit a new task; the same input will fail again."

FAILURE_TABLE: dict[FailureCode, FailurePolicy] = {
    _C.INPUT_NOT_FOUND: _row(
        0, 0, tier=None, kills=False, suspect=False, breaker=False,
        message="An input of the task does not exist or is no longer there.",
        hint="Check the path, the URL or the upload id; uploads are kept for a limited time.",
    ),
    _C.INPUT_FORBIDDEN: _row(
        0, 0, tier=None, kills=False, suspect=False, breaker=False,
        message="An input of the task may not be read by this service.",
        hint="Put the file below one of the configured media roots, or upload it.",
    ),
    _C.INPUT_INVALID: _row(
        0, 0, tier=None, kills=False, suspect=False, breaker=False,
        message="An input of the task cannot be decoded or is not of the expected kind.",
        hint=_CHECK_INPUT,
    ),
    _C.INPUT_NO_FACE: _row(
        0, 0, tier=None, kills=False, suspect=False, breaker=False,
        message="No face was found in the source.",
        hint="Use a picture or video that shows one face, upright and at least 64 pixels wide.",
    ),
    _C.INPUT_TOO_LARGE: _row(
        0, 0, tier=None, kills=False, suspect=False, breaker=False,
        message="An input of the task is over a limit of this service.",
        hint="Shorten or scale the input, or ask the operator to raise the limit.",
    ),
    _C.UPSTREAM_TIMEOUT: _row(
        3, 1, tier=1, kills=False, suspect=False, breaker=True,
        message="A remote service did not answer in time.",
        hint="Tried again by itself. If it persists, check the load and the address of that service.",
    ),
    _C.UPSTREAM_CONNECTION: _row(
        3, 1, tier=1, kills=False, suspect=False, breaker=True,
        message="A remote service could not be reached.",
        hint="Tried again by itself. If it persists, check that the service runs and its address is right.",
    ),
    _C.UPSTREAM_5XX: _row(
        2, 2, tier=1, kills=False, suspect=False, breaker=True,
        message="A remote service answered with a server error.",
        hint="Tried again by itself. Look into the log of that service.",
    ),
    _C.UPSTREAM_BUSY: _row(
        2, 2, tier=1, kills=False, suspect=False, breaker=False,
        message="A remote service is busy and refused the work for now.",
        hint="Tried again when that service asked for it. Lower the concurrency of its tier if this is frequent.",
    ),
    _C.UPSTREAM_REJECTED: _row(
        0, 0, tier=1, kills=False, suspect=False, breaker=False,
        message="A remote service rejected the request as invalid.",
        hint="The request does not suit that service: check the options of its tier.",
    ),
    _C.UPSTREAM_AUTH: _row(
        0, 0, tier=1, kills=False, suspect=False, breaker=True,
        message="A remote service refused our credentials.",
        hint="Check the credentials in the configuration of its tier.",
    ),
    _C.QUEUE_TIMEOUT: _row(
        3, 1, tier=1, kills=True, suspect=False, breaker=True,
        message="An internal queue stayed empty until its time limit (queue.Empty): the stage before it is hung, "
        "died without a word, or was still loading its models.",
        hint="Tried again in a fresh process. If it persists, look at the worker's log for the stage before it.",
    ),
    _C.WORKER_CRASHED: _row(
        3, 1, tier=2, kills=True, suspect=False, breaker=True,
        message="The worker process died while it rendered.",
        hint="Tried again in a fresh process. The attempt's postmortem names the signal or exit code.",
    ),
    _C.WORKER_UNRESPONSIVE: _row(
        3, 1, tier=2, kills=True, suspect=False, breaker=True,
        message="The worker process stopped answering its health checks.",
        hint="It was killed and the task tried again. The attempt's postmortem shows where it hung.",
    ),
    _C.WORKER_STALLED: _row(
        3, 1, tier=2, kills=True, suspect=False, breaker=True,
        message="The worker process is alive but its work did not move for longer than the phase allows.",
        hint="It was killed and the task tried again. The attempt's postmortem shows phase and frame.",
    ),
    _C.WORKER_START_FAILED: _row(
        0, 0, tier=1, kills=True, suspect=True, breaker=True,
        message="A worker process could not start.",
        hint="Run `greenroom doctor` on the host; the log holds the worker's last words.",
    ),
    _C.RENDER_TIMEOUT: _row(
        1, 1, tier=1, kills=True, suspect=False, breaker=True,
        message="The attempt took longer than the time limit of its tier.",
        hint="Raise `time_limit_s` of the tier, or send shorter speech; the attempt shows how far it came.",
    ),
    _C.GPU_UNAVAILABLE: _row(
        0, 0, tier=1, kills=True, suspect=True, breaker=True,
        message="The device that was asked for is not usable.",
        hint="Run `greenroom doctor`; check driver, CUDA_VISIBLE_DEVICES and the torch build.",
    ),
    _C.GPU_OOM: _row(
        2, 1, tier=2, kills=False, suspect=False, breaker=False,
        message="The GPU ran out of memory.",
        hint="Tried again with half the batch. If it persists, use a smaller source or fewer processes per GPU.",
    ),
    _C.GPU_LOST: _row(
        3, 1, tier=1, kills=True, suspect=True, breaker=True,
        message="The GPU reported an error that its process cannot recover from.",
        hint="Tried again in a fresh process. If it persists, check the driver's log for Xid errors.",
    ),
    _C.HOST_OOM: _row(
        1, 5, tier=1, kills=True, suspect=False, breaker=False,
        message="The system killed the worker because memory ran out.",
        hint="Give the host more memory or run fewer slots.",
    ),
    _C.DISK_FULL: _row(
        3, 30, tier=None, kills=False, suspect=False, breaker=False,
        message="The disk is full.",
        hint="Free space below the data directory; the task is tried again by itself.",
    ),
    _C.DISK_ERROR: _row(
        3, 30, tier=None, kills=False, suspect=False, breaker=False,
        message="The disk reports an error or can only be read.",
        hint="Tried again by itself. If it persists, the operator has to look after the disk of the data directory.",
    ),
    _C.MEDIA_HELPER_FAILED: _row(
        3, 1, tier=None, kills=False, suspect=False, breaker=False,
        message="The media helper, the process that opens media files for the service, does not work.",
        hint="The file is not to blame: send it again. If it persists, the operator has to look after the host.",
    ),
    _C.JUDGE_FAILED: _row(
        2, 1, tier=2, kills=False, suspect=False, breaker=False,
        message="No judge, the process that watches finished videos of light slots, could do its work.",
        hint="Neither the video nor its renderer is to blame; tried again by itself. If it persists, the log says why "
        "the judges fail (judge_failed, worker_start_failed).",
    ),
    _C.OUTPUT_INVALID: _row(
        1, 0, tier=1, kills=False, suspect=False, breaker=True,
        message="The rendered file is broken: it was checked and not published.",
        hint="Tried again by itself. The attempt's record names the check that failed.",
    ),
    _C.LOW_CONFIDENCE: _row(
        1, 0, tier=1, kills=False, suspect=False, breaker=True,
        message="The rendered video did not reach the confidence threshold.",
        hint="Use a clearer source or audio, or approve it by hand.",
    ),
    _C.PREDECESSOR_FAILED: _row(
        0, 0, tier=None, kills=False, suspect=False, breaker=False,
        message="A task that this one waited for has ended without a result.",
        hint="Retry that task first, then this one: it follows the newest retry. One that was cancelled cannot be "
        "retried: derive from it, then from this one with the new task in its place.",
    ),
    _C.DEADLINE_EXCEEDED: _row(
        0, 0, tier=None, kills=True, suspect=False, breaker=False,
        message="The task did not finish before its deadline.",
        hint="Raise `deadline_s`, or add slots; the attempts tell where the time went.",
    ),
    _C.CANCELLED: _row(
        0, 0, tier=None, kills=True, suspect=False, breaker=False,
        message="The task was cancelled.",
        hint="Submit it again if the cancellation was not meant.",
    ),
    _C.TASK_LOST: _row(
        1, 1, tier=1, kills=True, suspect=False, breaker=True,
        message="The record of the running task vanished.",
        hint="Tried again by itself. If it persists, check that nothing else deletes the renderer's tasks.",
    ),
    _C.INTERRUPTED: _row(
        None, 0, tier=None, kills=False, suspect=False, breaker=False,
        message="The service stopped while the task was running.",
        hint="The task runs again by itself and no retry is charged.",
    ),
    _C.INTERNAL: _row(
        1, 1, tier=1, kills=False, suspect=False, breaker=True,
        message="An unexpected error happened while the task was rendered.",
        hint="The attempt's record keeps its type, message and traceback; please report it.",
    ),
}  # fmt: skip
"""Every code has exactly one row (tested). Source: DESIGN section 7."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure as it is recorded: `message` and `hint` are never empty."""

    code: FailureCode
    message: str = ""
    hint: str = ""
    detail: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        policy = FAILURE_TABLE[self.code]
        if not self.message.strip():
            object.__setattr__(self, "message", policy.message)
        if not self.hint.strip():
            object.__setattr__(self, "hint", policy.hint)

    @property
    def policy(self) -> FailurePolicy:
        """This failure's row of the table."""
        return FAILURE_TABLE[self.code]


class CodedError(Exception):
    """An error that knows its failure code. Raise it where the failure happens.

    `detail` holds JSON-ready facts (field, limit, measured value, exit code ...).
    """

    def __init__(self, code: FailureCode, message: str = "", hint: str = "", **detail: Any) -> None:
        self.failure = Failure(code, message, hint, detail)
        super().__init__(self.failure.message)

    @property
    def code(self) -> FailureCode:
        """The failure code."""
        return self.failure.code
