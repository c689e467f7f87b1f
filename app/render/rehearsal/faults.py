"""The faults themselves: what each does to the process that runs it."""

from __future__ import annotations

import builtins
import ctypes
import errno
import importlib
import os
import resource
import signal
import struct
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
_MIB = 1024 * 1024
_FULL = Path("/dev/full")
"""Linux's device that is always full."""
_LENGTH = struct.Struct("!i")
"""How `multiprocessing` begins a frame."""
_FOREIGN = (
    b'{"type":"failed","task_id":"task_of_another","attempt":1,"code":"INTERNAL","message":"","hint":"","detail":{}}'
)


def commit(
    options: RehearsalOptions, output_dir: Path, progress: Progress, total: int, event_pipe: int | None = None
) -> None:
    """Do what the options ask for. Returns where the fault lies in the finished file or in what was sent.

    `event_pipe`: the descriptor on which this process speaks to the service.
    """
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
            # PyDLL, unlike CDLL, keeps the interpreter's lock during the call. The kernel takes a read up again after
            # the signal that asks for the stacks; pause() would return, and the process be well again.
            nothing, _held_open = os.pipe()
            ctypes.PyDLL(None).read(nothing, ctypes.create_string_buffer(1), 1)
        case Fault.BLOCK:
            threading.Event().wait()
        case Fault.STALL:
            _stall(progress)
        case Fault.FALSE_DONE:
            progress.report(Phase.ENCODE, total, total)
            raise RuntimeError("rehearsal: failed after 100 %")
        case Fault.LEAVE_BEHIND:
            _leave_behind(output_dir)
        case Fault.LEAK:
            _leak(options.megabytes * _MIB)
        case Fault.FILL_DISK:
            _fill_disk(output_dir, options.megabytes)
        case (
            Fault.HALF_FRAME
            | Fault.STUCK_FRAME
            | Fault.GARBAGE_FRAME
            | Fault.HUGE_FRAME
            | Fault.FOREIGN_FRAME
            | Fault.HANG_UP
        ):
            _misuse_pipe(options.fault, event_pipe)
        case _:
            return


_DAEMON = """
import os, signal, sys
if os.fork():
    os._exit(0)
os.setsid()
print(os.getpid(), flush=True)
os.close(1)
signal.pause()
"""


def start_daemon(output_dir: Path) -> None:
    """Leave a process behind, as a program that puts itself into the background does, once it is on its own."""
    command = [sys.executable, "-c", _DAEMON, str(output_dir)]
    with subprocess.Popen(  # noqa: S603 - our own interpreter and text
        command, stdout=subprocess.PIPE, start_new_session=True
    ) as starter:
        starter.communicate()


def require_memory(frames: int, fits: int) -> None:
    """Raise torch's own error, as its allocator does, unless a batch of `frames` is at most `fits`."""
    if frames > fits:
        torch = importlib.import_module("torch")
        raise torch.OutOfMemoryError(f"CUDA out of memory. Rehearsal: {frames} frames at once, {fits} fit.")


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
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)", str(output_dir)])  # noqa: S603 - our own interpreter
    _die(signal.SIGKILL)


def _leak(size: int) -> NoReturn:
    """Up to a limit of this process's own, so that the machine that rehearses comes to no harm."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + size, hard))
    held = []
    try:
        while True:
            held.append(bytearray(b"x") * _MIB)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _fill_disk(output_dir: Path, megabytes: int) -> NoReturn:
    with (output_dir / "filler.tmp").open("wb") as filler:
        for _ in range(megabytes):
            filler.write(b"x" * _MIB)
    if _FULL.is_char_device():
        with _FULL.open("wb", buffering=0) as full:
            full.write(b"x")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(output_dir))


def _misuse_pipe(fault: Fault, pipe: int | None) -> None:
    if pipe is None:
        raise CodedError(FailureCode.INPUT_INVALID, f"The fault {fault} needs a worker process of a service.")
    match fault:
        case Fault.HALF_FRAME:
            os.write(pipe, _LENGTH.pack(len(_FOREIGN)) + _FOREIGN[:20])
            _die(signal.SIGKILL)
        case Fault.STUCK_FRAME:
            os.write(pipe, _LENGTH.pack(len(_FOREIGN)) + _FOREIGN[:20])
            threading.Event().wait()
        case Fault.GARBAGE_FRAME:
            os.write(pipe, _LENGTH.pack(20) + bytes(range(240, 256)) + b"\x00{}\n")
        case Fault.HUGE_FRAME:
            os.write(pipe, _LENGTH.pack(2**31 - 1) + _FOREIGN)
        case Fault.FOREIGN_FRAME:
            os.write(pipe, _LENGTH.pack(len(_FOREIGN)) + _FOREIGN)
        case _:
            # The number must not be free for the next file that is opened: a message would end up in it.
            with Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), pipe)
