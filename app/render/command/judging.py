"""Which failure a program's end is: by its exit code, by its last words, by what it did not leave behind."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from typing import Any

from app.render.command.settings import CommandSettings
from app.retry.classifier import code_in_output, name_exit
from app.retry.taxonomy import CodedError, FailureCode

_SHELL_SIGNAL = 128
"""Shells and container runtimes say 128 + the signal's number of a program that was killed."""
_DEADLY = frozenset(
    {signal.SIGILL, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM}
)
_WORDS = 300


def judge(
    exitcode: int, lines: Sequence[str], settings: CommandSettings, *, has_video: bool, oom_kill: bool
) -> CodedError | None:
    """What went wrong, None if nothing did: exit code 0 (negative: a signal) and a video.

    `lines`: the last lines of output. `oom_kill`: whether the kernel killed for want of memory meanwhile.
    """
    if exitcode == 0 and has_video:
        return None
    if exitcode > _SHELL_SIGNAL and exitcode - _SHELL_SIGNAL in _DEADLY and exitcode not in settings.exit_codes:
        exitcode = _SHELL_SIGNAL - exitcode
    how = name_exit(exitcode)
    detail: dict[str, Any] = {"exitcode": exitcode, "how": how, "last_words": "\n".join(lines)}
    code = _code(exitcode, lines, settings, oom_kill)
    what = "ended without an error and left no video" if exitcode == 0 else f"ended with {how}"
    last = f": {lines[-1][:_WORDS]}" if lines else " and without a word"
    return CodedError(code, f"The program {what}{last}", **detail)


def _code(exitcode: int, lines: Sequence[str], settings: CommandSettings, oom_kill: bool) -> FailureCode:
    if exitcode in settings.exit_codes:
        return settings.exit_codes[exitcode]
    text = "\n".join(lines)
    for pattern in settings.patterns:
        if re.search(pattern.match, text, re.MULTILINE):
            return pattern.code
    if exitcode == -signal.SIGKILL and oom_kill:
        return FailureCode.HOST_OOM
    if (known := code_in_output(text)) is not None:
        return known
    if exitcode == 0:
        return FailureCode.OUTPUT_INVALID
    return FailureCode.WORKER_CRASHED if exitcode < 0 else FailureCode.INTERNAL
