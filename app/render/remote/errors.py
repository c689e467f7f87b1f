"""How a call to another server fails: one coded error per way, whose text says which call, when and what came back."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.retry.taxonomy import CodedError, FailureCode

_SHOWN = 300
"""Characters of an answer's body that an error quotes."""
_MAX_RETRY_AFTER_S = 3600.0
"""A server that asks for more has another clock, or means that it is switched off."""
_TRANSIENT = frozenset({408, 425, 429})
_FINAL = frozenset({501, 505})
"""Server errors that the same request meets again."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True)
class Request:
    """One request as errors name it: no query, since that may hold what logs should not."""

    method: str
    host: str
    path: str
    began: float
    """On the monotonic clock."""

    def fail(self, code: FailureCode, reason: str, what: str, *, body: bytes = b"", **detail: Any) -> CodedError:
        """The error that says `what` happened to this request. `reason` is a stable word for programs."""
        seconds = time.monotonic() - self.began
        shown = quote(body)
        text = f"{self.method} {self.host}{self.path} {what} after {seconds:.2f} s" + (f": {shown}" if shown else ".")
        facts: dict[str, Any] = {
            "reason": reason,
            "method": self.method,
            "host": self.host,
            "path": self.path,
            "seconds": round(seconds, 3),
        }
        return CodedError(code, text, **facts, **({"body": shown} if shown else {}), **detail)

    def refused(self, status: int, phrase: str, headers: Mapping[str, str], body: bytes) -> CodedError:
        """The error for an answer whose status is no success."""
        detail: dict[str, Any] = {"status": status}
        code = _code_of(status)
        if code is FailureCode.UPSTREAM_BUSY and (wait := retry_after(headers.get("retry-after", ""))) is not None:
            detail["retry_after_s"] = wait
        return self.fail(code, "status", f"answered {status} {phrase}".rstrip(), body=body, **detail)


def _code_of(status: int) -> FailureCode:
    if status in (429, 503):
        return FailureCode.UPSTREAM_BUSY
    if status in (401, 403, 407):
        return FailureCode.UPSTREAM_AUTH
    if status in (408, 425):
        return FailureCode.UPSTREAM_TIMEOUT
    if 500 <= status < 600 and status not in _FINAL:
        return FailureCode.UPSTREAM_5XX
    return FailureCode.UPSTREAM_REJECTED


def may_pass(error: BaseException, *, repeatable: bool) -> bool:
    """Whether the same call may succeed in a moment.

    `repeatable`: it does no harm twice. Otherwise only what the server has surely not begun with is tried again.
    """
    if not isinstance(error, CodedError):
        return False
    detail, code = error.failure.detail, error.code
    if detail["reason"] in ("connect_timeout", "connect"):
        return True
    if (status := detail.get("status")) is not None:
        return status in _TRANSIENT or status == 503 or (repeatable and status >= 500 and status not in _FINAL)
    return repeatable and code in (FailureCode.UPSTREAM_TIMEOUT, FailureCode.UPSTREAM_CONNECTION)


def surely_not_taken(error: CodedError) -> bool:
    """Whether a submission that failed was refused or never reached the server. Otherwise it may have been taken."""
    detail = error.failure.detail
    status = detail.get("status", 0)
    return 400 <= status < 500 or status == 503 or detail.get("reason") in ("connect", "connect_timeout")


def retry_after(value: str) -> float | None:
    """Seconds that a `Retry-After` asks for (a number or a date, RFC 9110), at most an hour; None if malformed."""
    value = value.strip()
    if value.isdecimal():
        return min(float(value), _MAX_RETRY_AFTER_S)
    try:
        at = email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(at - time.time(), 0.0), _MAX_RETRY_AFTER_S)


def quote(body: bytes) -> str:
    """The beginning of a body as one line of text."""
    text = _CONTROL.sub(" ", body[: 4 * _SHOWN].decode("utf-8", "replace")).strip()
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
