"""Errors of the intake: coded, and tied to the field of the request that they are about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from app.retry.classifier import NO_SPACE
from app.retry.taxonomy import CodedError, FailureCode


class InputsRefused(Exception):
    """Several inputs of one request were refused. `errors` has at least one entry, each with `detail["field"]`."""

    def __init__(self, errors: Sequence[CodedError]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(str(error) for error in self.errors))


def refuse(code: FailureCode, message: str, hint: str = "", *, reason: str, **detail: object) -> CodedError:
    """A `CodedError` with `detail["reason"]`, a stable word that programs can act on."""
    return CodedError(code, message, hint, reason=reason, **detail)


def with_field(error: CodedError, field: str) -> CodedError:
    """The same error, said about `field` of the request (kept where the error names a field already)."""
    failure = error.failure
    return CodedError(failure.code, failure.message, failure.hint, **{"field": field, **failure.detail})


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn "no space left" and "quota exceeded" into DISK_FULL; other errors pass through."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            hint = "Send it again later; the operator has to free space below the data directory."
            raise refuse(FailureCode.DISK_FULL, "", hint, reason="no_space") from error
        raise
