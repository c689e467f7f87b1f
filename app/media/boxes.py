"""The top-level boxes of an MP4/MOV file, read without a codec library.

Source of the layout: ISO/IEC 14496-12, section 4.2 (32-bit size and type; size 1: 64 bits follow, 0: to the end).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

MAX_BOXES = 100_000
"""A fragmented hour has some thousand boxes; a hostile file may have a box every 8 bytes."""

PICTURE_BRANDS = frozenset({"heic", "heix", "hevc", "hevx", "heim", "heis", "mif1", "msf1", "avif", "avis"})

_FIRST_KINDS = frozenset({"ftyp", "moov", "mdat", "free", "skip", "wide", "pnot", "styp"})


@dataclass(frozen=True, slots=True)
class Box:
    """One box: its four-character kind, its offset and its declared size, both in bytes, the header included."""

    kind: str
    offset: int
    size: int


def top_level_boxes(path: Path) -> list[Box]:
    """The boxes in file order. The last one may claim to reach beyond the end of the file."""
    boxes: list[Box] = []
    end = path.stat().st_size
    offset = 0
    with path.open("rb") as file:
        while offset + 8 <= end and len(boxes) < MAX_BOXES:
            file.seek(offset)
            head = file.read(16)
            size, raw_kind = struct.unpack(">I4s", head[:8])
            header = 8
            if size == 1 and len(head) == 16:
                (size,) = struct.unpack(">Q", head[8:])
                header = 16
            elif size == 0:
                size = end - offset
            if size < header:
                break
            boxes.append(Box(raw_kind.decode("latin-1"), offset, size))
            offset += size
    return boxes


def is_isobmff(path: Path) -> bool:
    """Whether the file begins like an MP4 or MOV file."""
    with path.open("rb") as file:
        head = file.read(8)
    return len(head) == 8 and head[4:].decode("latin-1") in _FIRST_KINDS


def brand(path: Path) -> str:
    """The major brand of an MP4, MOV or HEIF file; empty where it has none."""
    with path.open("rb") as file:
        head = file.read(12)
    return head[8:].decode("latin-1") if head[4:8] == b"ftyp" else ""


def declared_end(boxes: list[Box]) -> int:
    """The byte where the file should end by its own boxes."""
    return boxes[-1].offset + boxes[-1].size if boxes else 0
