"""What a Duix.Avatar server answers, told apart. Source: the project's published client, issues with its server's log,
and public copies of the server's entry `app_local.py`.

The server keeps one record per task in memory and runs one task at a time. It answers everything with status 200 and an
envelope `{code, success, msg, data}`; `success` is true even for refusals, and `msg` may be a number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.retry.taxonomy import CodedError, FailureCode

SYSTEM_ERROR, DONE, BUSY, BAD_PARAMETER, NO_LOCK, UNKNOWN_TASK = 9999, 10000, 10001, 10002, 10003, 10004

RUNNING, SUCCEEDED, FAILED = 1, 2, 3

_GPU_MEMORY = re.compile(r"out of memory|ALLOC_FAILED", re.IGNORECASE)
_UNREADABLE = re.compile(r"format (?:video|audio) error", re.IGNORECASE)
_INPUT = re.compile(r"no face|face.{0,20}not (?:found|detected)|人脸", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a task stands. `progress` in percent; `result` is where its video lies once it has succeeded."""

    status: int
    progress: int
    words: str
    result: str


def accepted(answer: Mapping[str, Any]) -> None:
    """Raise what a `/easy/submit` answer means unless it accepts the task: UPSTREAM_BUSY, _REJECTED or _5XX."""
    if (code := _code(answer)) != DONE:
        raise _refusal(code, answer)


def standing(answer: Mapping[str, Any]) -> Standing | None:
    """What a `/easy/query` answer says of a task; None where the server does not know it.

    Raises CodedError for the server's own errors, and UPSTREAM_5XX, reason `unexpected`, for what makes no sense.
    """
    code = _code(answer)
    if code == UNKNOWN_TASK:
        return None
    if code != DONE:
        raise _refusal(code, answer)
    told = answer.get("data")
    if not isinstance(told, Mapping) or told.get("status") not in (RUNNING, SUCCEEDED, FAILED):
        raise _unexpected(answer)
    progress = told.get("progress")
    percent = int(progress) if isinstance(progress, int | float) and 0 <= progress <= 100 else 0
    result = told.get("result")
    return Standing(told["status"], percent, _words(told.get("msg")), result if isinstance(result, str) else "")


def failed(code: str, found: Standing, reached: int) -> CodedError:
    """The error for a task that the server says has failed. `reached`: how far it was, in percent; now it says 0."""
    words, hint = found.words.strip(), ""
    if _GPU_MEMORY.search(words):
        kind = FailureCode.GPU_OOM
    elif _UNREADABLE.search(words):
        kind = FailureCode.UPSTREAM_REJECTED
        hint = (
            "It could not read its inputs: check that `shared_dir` and `server_dir` of the tier name the same folder."
        )
    elif _INPUT.search(words):
        # Not the caller's fault for certain: another tier may well see the face or read the file.
        kind = FailureCode.UPSTREAM_REJECTED
    else:
        kind = FailureCode.UPSTREAM_5XX
    told = words or (
        "it gave no reason. Its log names the stage; a stage that died or hung leaves an empty message (queue.Empty)"
    )
    message = f"The Duix server failed task {code} at {reached} %: {told}"
    return CodedError(kind, message, hint, reason="failed", task=code)


def _code(answer: Mapping[str, Any]) -> int:
    code = answer.get("code")
    if isinstance(code, bool) or not isinstance(code, int):
        raise _unexpected(answer)
    return code


def _refusal(code: int, answer: Mapping[str, Any]) -> CodedError:
    words = _words(answer.get("msg"))
    kind, reason = {
        BUSY: (FailureCode.UPSTREAM_BUSY, "busy"),
        BAD_PARAMETER: (FailureCode.UPSTREAM_REJECTED, "bad_parameter"),
        SYSTEM_ERROR: (FailureCode.UPSTREAM_5XX, "system_error"),
        NO_LOCK: (FailureCode.UPSTREAM_5XX, "no_lock"),
    }.get(code, (FailureCode.UPSTREAM_5XX, "unexpected"))
    return CodedError(
        kind, f"The Duix server answered {code} ({words or 'without a word'}).", reason=reason, answer=code
    )


def _unexpected(answer: Mapping[str, Any]) -> CodedError:
    text = str(dict(answer))[:300]
    return CodedError(
        FailureCode.UPSTREAM_5XX,
        f"The Duix server answered something else than its protocol: {text}",
        reason="unexpected",
    )


def _words(msg: object) -> str:
    return "" if msg is None else str(msg)[:1000]
