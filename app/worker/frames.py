"""Whole frames from the pipe of a process that may die, hang or write rubbish at any byte.

`multiprocessing` writes a frame as a length (4 bytes, big endian, signed) and so many bytes. Its own reader waits for
the rest of a frame that was begun and believes every length; this one does neither.
"""

from __future__ import annotations

import os
import struct
from multiprocessing.connection import Connection

import msgspec

LIMIT = 16 * 1024 * 1024
"""Longest frame that is believed, bytes: the longest real one holds a traceback and some figures."""
_LENGTH = struct.Struct("!i")
HEADER_BYTES = _LENGTH.size
"""What a frame is longer on the pipe than its message."""


class BrokenFrame(msgspec.DecodeError):
    """What came is not the beginning of a message."""


class FrameReader:
    """Reads frames from a connection without ever waiting for one."""

    def __init__(self, connection: Connection) -> None:
        self._handle = connection.fileno()
        os.set_blocking(self._handle, False)
        self._wanted: int | None = None
        self._part = bytearray()

    def read(self) -> bytes | None:
        """The next whole frame, None while there is none. Takes no byte of the frame after it.

        Raises EOFError once the writer is gone, in the middle of a frame too, and `BrokenFrame`.
        """
        if self._wanted is None:
            if not self._fill(_LENGTH.size):
                return None
            (self._wanted,) = _LENGTH.unpack(self._part)
            self._part.clear()
            if not 0 <= self._wanted <= LIMIT:
                raise BrokenFrame(f"a frame cannot have a length of {self._wanted} bytes")
        if not self._fill(self._wanted):
            return None
        frame = bytes(self._part)
        self._part.clear()
        self._wanted = None
        return frame

    def _fill(self, size: int) -> bool:
        while len(self._part) < size:
            try:
                more = os.read(self._handle, size - len(self._part))
            except BlockingIOError:
                return False
            except OSError as error:
                raise EOFError from error
            if not more:
                raise EOFError
            self._part += more
        return True
