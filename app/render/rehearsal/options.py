"""Options of the rehearsal renderer. Imports no torch."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.render.contract import Capabilities, Phase
from app.retry.taxonomy import FailureCode


class Fault(StrEnum):
    """What goes wrong, at the phase and frame that the options name."""

    NONE = "none"
    RAISE = "raise"
    """Raise `code` (a failure code) or `exception` (a Python type, `module.Name`) with `message`."""
    OUT_OF_MEMORY = "out_of_memory"
    """Raise torch's error for a batch of more than `fits` frames, as a GPU does whose memory holds no more."""
    EXIT = "exit"
    """Leave the process with `exit_code`, without a word."""
    KILL = "kill"
    """SIGKILL itself."""
    STOP = "stop"
    """SIGSTOP itself: the process is there and does nothing."""
    BLOCK_GIL = "block_gil"
    """Block for ever in C code that holds the interpreter's lock."""
    BLOCK = "block"
    """Block for ever, with heartbeats going on."""
    STALL = "stall"
    """Stop moving but look at the cancel flag: alive, answering, not working."""
    IGNORE_CANCEL = "ignore_cancel"
    """Go on rendering and swallow every cancellation."""
    FALSE_DONE = "false_done"
    """Report 100 % and then fail."""
    LEAVE_BEHIND = "leave_behind"
    """Start a child process and write files, then die with SIGKILL."""
    LEAK = "leak"
    """Hold ever more memory until `megabytes` more than before are held and the system grants no more: MemoryError."""
    FILL_DISK = "fill_disk"
    """Write `megabytes` into the attempt's directory, then meet the kernel's "no space left on device"."""
    HALF_FRAME = "half_frame"
    """Die with SIGKILL in the middle of a message to the service."""
    STUCK_FRAME = "stuck_frame"
    """Begin a message to the service and never end it, with heartbeats going on."""
    GARBAGE_FRAME = "garbage_frame"
    """Send the service a whole frame that is no message, then go on."""
    HUGE_FRAME = "huge_frame"
    """Send the service a frame that claims a length of nearly 2 GiB, then go on."""
    FOREIGN_FRAME = "foreign_frame"
    """Report the end of another task's attempt, as a dirty queue would, then go on."""
    HANG_UP = "hang_up"
    """Close the pipe to the service, then go on."""
    UNPLAYABLE = "unplayable"
    """Say that it is finished with a file that is no video."""
    SHORT = "short"
    """Say that it is finished with a video of half the length."""
    MUTE = "mute"
    """Say that it is finished with a video without sound."""
    BLACK = "black"
    """Make a black picture. Playable and whole: it passes until the quality gate looks at pictures."""
    FROZEN = "frozen"
    """Repeat the first picture to the end. Playable and whole: it passes until the quality gate looks at pictures."""


class RehearsalOptions(BaseModel):
    """A rehearsal: which fault, where, in how many attempts. Without a fault it makes a small moving picture."""

    model_config = ConfigDict(extra="forbid")

    fault: Fault = Fault.NONE
    phase: Phase = Phase.RENDER
    frame: Annotated[int, Field(ge=0)] = 0
    """The fault comes before this frame of the render phase (ignored for other phases)."""
    times: Annotated[int, Field(ge=1)] | None = None
    """The fault comes in the first so many attempts; null: always."""
    exception: str | None = None
    code: FailureCode | None = None
    message: str = ""
    exit_code: Annotated[int, Field(ge=0, le=255)] = 1
    frame_s: Annotated[float, Field(ge=0, le=60)] = 0.0
    """Seconds that each frame takes."""
    megabytes: Annotated[int, Field(ge=1, le=1024)] = 16
    """Bound of `leak` (memory) and `fill_disk` (disk), MiB."""
    daemon: bool = False
    """Before the first frame, leave a process behind that has a session of its own and no parent."""
    batch: Annotated[int, Field(ge=1, le=64)] = 8
    """Frames that are made together."""
    fits: Annotated[int, Field(ge=0)] = 0
    """The largest batch that `out_of_memory` lets pass."""
    fps: Annotated[float, Field(ge=1, le=60)] = 25.0
    size: Annotated[int, Field(ge=16, le=1024, multiple_of=2)] = 64
    """Width and height of the picture, pixels."""
    reuse: bool = False
    """Hand out a copy of what this process made last, if that was the same: a render that costs next to nothing
    (`frame_s` does not count), by which everything around a render can be measured. With a fault it renders as always.
    """

    @model_validator(mode="after")
    def _raise_needs_a_cause(self) -> RehearsalOptions:
        if self.fault is Fault.RAISE and (self.exception is None) == (self.code is None):
            raise ValueError("fault 'raise' needs either 'exception' or 'code'")
        return self


CAPABILITIES = Capabilities(sources=frozenset({"image", "video"}), options=RehearsalOptions, cacheable=False)
