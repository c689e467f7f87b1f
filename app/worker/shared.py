"""The small shared-memory block of a slot: heartbeat and progress, written by the child, read by the service.

Layout (little endian): heartbeat count u64, progress count u64, phase u64 (index in `PHASES`), done u64, total u64,
attempt u64, child pid u64, peak memory in bytes u64, begin of the phase u64 (nanoseconds on the monotonic clock, which
all processes of a machine share); then how many phases the attempt has entered u64, and for each of the first `STEPS`
of them its index u64 and when f64 (epoch seconds). Every field is one aligned 8-byte word, which
x86-64 and ARM64 write whole; the reader tolerates a done/total pair of two neighbouring reports.

The memory has no name: it goes with the last process that holds it, however that one dies, and it needs no /dev/shm.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import time
from dataclasses import dataclass

from app.render.contract import Phase

PHASES = tuple(Phase)
STEPS = 16
"""More than any renderer enters; of one that goes to and fro, the first."""
_WORD, _TIME = struct.Struct("<Q"), struct.Struct("<d")
_BEAT, _MOVES, _PHASE, _DONE, _TOTAL, _ATTEMPT, _PID, _PEAK, _SINCE, _ENTERED, _FIRST = (n * 8 for n in range(11))
_LARGEST = 2**63 - 1
"""More than anything counts, and what a database can hold: a program's output may say any number."""
SIZE = _FIRST + STEPS * 16


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a slot's block. `beats` and `moves` only ever grow; compare two readings to see life and movement."""

    beats: int
    moves: int
    phase: Phase
    done: int
    total: int
    attempt: int
    pid: int
    peak_memory: int
    """The most memory that the process ever held, bytes, as of its last heartbeat; 0 where its system does not tell."""
    since: float
    """When the phase began, seconds on the monotonic clock."""


def _nameless() -> int:
    """A descriptor of fresh memory of `SIZE` bytes."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("greenroom-progress")
    else:
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    os.ftruncate(handle, SIZE)
    return handle


class ProgressBlock:
    """One slot's block. The service makes it; the child inherits its descriptor."""

    def __init__(self, handle: int | None = None) -> None:
        """`handle`: the descriptor of a block that exists, which becomes this one's own."""
        self._handle = _nameless() if handle is None else handle
        self._memory = mmap.mmap(self._handle, SIZE)
        self._words = memoryview(self._memory)
        self._closed = False
        self._current: Phase | None = None

    @property
    def handle(self) -> int:
        """The descriptor of the memory, for the process that is to inherit it."""
        return self._handle

    def _put(self, offset: int, value: int) -> None:
        _WORD.pack_into(self._words, offset, value)

    def _get(self, offset: int) -> int:
        return int(_WORD.unpack_from(self._words, offset)[0])

    def beat(self, pid: int, peak_memory: int) -> None:
        """Child: one heartbeat, with the most memory that it ever held, bytes."""
        self._put(_PID, pid)
        self._put(_PEAK, peak_memory)
        self._put(_BEAT, self._get(_BEAT) + 1)

    def begin(self, attempt: int) -> None:
        """Child: a new attempt starts, in phase load, with nothing done."""
        self._put(_ATTEMPT, attempt)
        self._put(_ENTERED, 0)
        self._current = None
        self.move(PHASES[0], 0, 0)

    def move(self, phase: Phase, done: int, total: int) -> None:
        """Child: the work moved."""
        if phase is not self._current:
            self._enter(phase)
        self._put(_PHASE, PHASES.index(phase))
        self._put(_TOTAL, min(max(total, 0), _LARGEST))
        self._put(_DONE, min(max(done, 0), _LARGEST))
        self._put(_MOVES, self._get(_MOVES) + 1)

    def _enter(self, phase: Phase) -> None:
        self._current = phase
        self._put(_SINCE, time.monotonic_ns())
        entered = self._get(_ENTERED)
        if entered < STEPS:
            self._put(_FIRST + entered * 16, PHASES.index(phase))
            _TIME.pack_into(self._words, _FIRST + entered * 16 + 8, time.time())
            self._put(_ENTERED, entered + 1)

    def steps(self) -> list[tuple[Phase, float]]:
        """Service: the phases that the attempt has entered, in order, and when (epoch seconds)."""
        entered = min(self._get(_ENTERED), STEPS)
        return [
            (
                PHASES[min(self._get(_FIRST + index * 16), len(PHASES) - 1)],
                float(_TIME.unpack_from(self._words, _FIRST + index * 16 + 8)[0]),
            )
            for index in range(entered)
        ]

    def read(self) -> Reading:
        """Service: what the child last wrote."""
        phase = PHASES[min(self._get(_PHASE), len(PHASES) - 1)]
        return Reading(
            beats=self._get(_BEAT),
            moves=self._get(_MOVES),
            phase=phase,
            done=self._get(_DONE),
            total=self._get(_TOTAL),
            attempt=self._get(_ATTEMPT),
            pid=self._get(_PID),
            peak_memory=self._get(_PEAK),
            since=self._get(_SINCE) / 1e9,
        )

    def close(self) -> None:
        """Let go of the memory. Safe to repeat; reading afterwards raises ValueError."""
        if not self._closed:
            self._closed = True
            self._words.release()
            self._memory.close()
            os.close(self._handle)
