"""The faults themselves: what each does to the process that runs it."""

from __future__ import annotations

import builtins
import ctypes
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

from app.render.contract import Phase, Progress
from app.render.rehearsal.options import Fault, RehearsalOptions
from app.retry.taxonomy import CodedError, FailureCode

_POLL_S = 0.05


def commit(options: RehearsalOptions, output_dir: Path, progress: Progress, total: int) -> None:
    """Do what the options ask for. Returns only where the fault lies in the finished file."""
    match options.fault:
        case Fault.RAISE:
            raise _exception(options)
        case Fault.EXIT:
            os._exit(options.exit_code)
        case Fault.KILL:
            _die(signal.SIGKILL)
        case Fault.STOP:
            os.kill(os.getpid(), signal.SIGSTOP)
        case Fault.BLOCK_GIL:
            # PyDLL, unlike CDLL, keeps the interpreter's lock during the call.
            ctypes.PyDLL(None).pause()
        case Fault.BLOCK:
            threading.Event().wait()
        case Fault.STALL:
            _stall(progress)
        case Fault.FALSE_DONE:
            progress.report(Phase.ENCODE, total, total)
            raise RuntimeError("rehearsal: failed after 100 %")
        case Fault.LEAVE_BEHIND:
            _leave_behind(output_dir)
        case _:
            return


def _exception(options: RehearsalOptions) -> BaseException:
    if options.code is not None:
        return CodedError(options.code, options.message)
    module, _, name = (options.exception or "").rpartition(".")
    try:
        kind = getattr(importlib.import_module(module) if module else builtins, name)
    except (ImportError, AttributeError):
        return CodedError(FailureCode.INPUT_INVALID, f"There is no exception type {options.exception!r}.")
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        return CodedError(FailureCode.INPUT_INVALID, f"{options.exception!r} is not an exception type.")
    return kind(options.message) if options.message else kind()


def _die(number: signal.Signals) -> NoReturn:
    os.kill(os.getpid(), number)
    raise AssertionError("a signal that cannot be caught was caught")


def _stall(progress: Progress) -> NoReturn:
    """Heartbeats go on and the cancel flag is seen, but the counters stand."""
    while True:
        progress.check()
        time.sleep(_POLL_S)


def _leave_behind(output_dir: Path) -> NoReturn:
    (output_dir / "left-behind.tmp").write_bytes(b"x" * 4096)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    _die(signal.SIGKILL)
