"""Errors of the intake: coded, and tied to the field of the request that they are about."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog

from app.retry.classifier import DISK_FAULTS, NO_SPACE
from app.retry.taxonomy import CodedError, FailureCode

_log = structlog.get_logger(__name__)
_OURS = frozenset(
    {
        FailureCode.DISK_FULL,
        FailureCode.DISK_ERROR,
        FailureCode.MEDIA_HELPER_FAILED,
        FailureCode.WORKER_START_FAILED,
        FailureCode.INTERNAL,
    }
)


class InputsRefused(Exception):
    """Several inputs of one request were refused. `errors` has at least one entry, each with `detail["field"]`."""

    def __init__(self, errors: Sequence[CodedError]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(str(error) for error in self.errors))


def refuse(code: FailureCode, message: str, hint: str = "", *, reason: str, **detail: object) -> CodedError:
    """A `CodedError` with `detail["reason"]`, a stable word that programs can act on."""
    return CodedError(code, message, hint, reason=reason, **detail)


def too_large(limit: int, *, reason: str = "bytes") -> CodedError:
    """INPUT_TOO_LARGE for a content over `limit` bytes."""
    return refuse(
        FailureCode.INPUT_TOO_LARGE,
        f"The file is larger than the limit of {limit} bytes.",
        "Send a smaller file, or ask the operator to raise the limit.",
        reason=reason,
        limit=limit,
    )


def with_field(error: CodedError, field: str) -> CodedError:
    """The same error, said about `field` of the request (kept where the error names a field already).

    What is no fault of the input is said about no field.
    """
    failure = error.failure
    if failure.code in _OURS:
        return error
    return CodedError(failure.code, failure.message, failure.hint, **{"field": field, **failure.detail})


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn "no space left" and "quota exceeded" into DISK_FULL, a failing disk into DISK_ERROR; others pass through."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            hint = "Send it again later; the operator has to free space below the data directory."
            raise refuse(FailureCode.DISK_FULL, "", hint, reason="no_space") from error
        if error.errno in DISK_FAULTS:
            reason = errno.errorcode[error.errno or 0]
            _log.error("disk_error", error=str(error), reason=reason)
            text = f"The disk of the data directory cannot be written: {error.strerror or reason}."
            hint = "Send it again later; the operator has to look after the disk of the data directory."
            raise refuse(FailureCode.DISK_ERROR, text, hint, reason=reason) from error
        raise
