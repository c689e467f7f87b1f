"""Is all of a file there: what its own headers promise, held against its bytes and against what was measured.

FFmpeg plays what is left of a cut-off file and clips the durations that it reports to that, so that the promises of
wav, mp3 and Ogg are read here. Sources: RIFF/WAVE (Microsoft, 1991; RF64 is EBU Tech 3306), Sony Wave64, RFC 3533
(Ogg), RFC 9639 (flac), id3.org, and for the Xing, Info and VBRI frames of mp3 what LAME and Fraunhofer's encoder write.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from app.media.containers import invalid
from app.retry.taxonomy import CodedError

_MISSING_SHARE, _MISSING_S = 0.02, 0.5
"""A file that holds less than its header says by more than this share and time was cut off."""
_MAX_CHUNKS = 1000
_STREAMED = ((0, 0), (0x7FFF0000, 0x80000000), (0xFFFF0000, 0xFFFFFFFF))
"""Sizes (first, last) of a wav `data` chunk whose writer could not go back: ffmpeg and browsers write all ones or 0,
sox, espeak and arecord about 2 GiB. RF64 files have all ones here."""
_OGG_TAIL = 2 * 65_307
"""Twice the largest Ogg page, in bytes."""
_OGG_HEADER = 27
_MP3_SCAN = 4096
"""Bytes behind the ID3 tag in which the first mp3 frame must begin."""
_MP3_RATES = (44_100, 48_000, 32_000)


def cut_off(path: Path, message: str) -> CodedError:
    """The error for a file that is not all there; `message` goes on after its name."""
    return invalid("truncated", f"{path.name} {message}", "The upload or the recording was cut off; send it whole.")


def check_length(path: Path, declared: float, measured: float) -> None:
    """Raise INPUT_INVALID `truncated` where clearly fewer seconds were measured than declared (0: not declared)."""
    if _is_short(declared, measured):
        raise cut_off(path, f"holds {measured:.2f} s of the {declared:.2f} s that its header declares.")


def check_bytes(path: Path, head: bytes) -> None:
    """Raise INPUT_INVALID `truncated` for a wav or Ogg file that lacks its end, and for an mp3 or flac file that
    ends in its tags. Everything else passes.

    `head` is the file's first 16 bytes or more.
    """
    if head[:4] in (b"RIFF", b"RIFX") and head[8:12] == b"WAVE":
        _check_wav(path, "big" if head[:4] == b"RIFX" else "little")
    elif head[:4] == b"riff":
        _check_wave64(path)
    elif head[:4] == b"OggS":
        _check_ogg(path)
    elif (head[:4] == b"fLaC" and _end_of_flac_header(path) > path.stat().st_size) or (
        head[:3] == b"ID3" and len(head) >= 10 and _end_of_id3(head) > path.stat().st_size
    ):
        raise cut_off(path, "ends before its sound begins.")


def _is_short(declared: float, there: float) -> bool:
    return declared - there > max(_MISSING_S, _MISSING_SHARE * declared)


def _check_wav(path: Path, order: Literal["little", "big"]) -> None:
    size, byte_rate = path.stat().st_size, 0
    with path.open("rb") as file:
        offset = 12
        for _ in range(_MAX_CHUNKS):
            name, length = _at(file, offset, 4), int.from_bytes(_at(file, offset + 4, 4), order)
            offset += 8
            if offset > size:
                return
            if name == b"fmt ":
                byte_rate = int.from_bytes(_at(file, offset + 8, 4), order)
            elif name == b"data":
                if not any(first <= length <= last for first, last in _STREAMED):
                    _check_samples(path, byte_rate, length, size - offset)
                return
            offset += length + length % 2


def _check_wave64(path: Path) -> None:
    size, byte_rate = path.stat().st_size, 0
    with path.open("rb") as file:
        offset = 40
        for _ in range(_MAX_CHUNKS):
            name, length = _at(file, offset, 4), int.from_bytes(_at(file, offset + 16, 8), "little")
            if offset + 24 > size or length < 24:
                return
            if name == b"fmt ":
                byte_rate = int.from_bytes(_at(file, offset + 32, 4), "little")
            elif name == b"data":
                if length < 1 << 62:  # more is a writer that could not go back
                    _check_samples(path, byte_rate, length - 24, size - offset - 24)
                return
            offset += (length + 7) // 8 * 8


def _at(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def _check_samples(path: Path, byte_rate: int, declared: int, there: int) -> None:
    if _is_short(declared / byte_rate, there / byte_rate) if byte_rate else there < declared * (1 - _MISSING_SHARE):
        raise cut_off(path, f"holds {there} bytes of the {declared} bytes of sound that its header declares.")


def _check_ogg(path: Path) -> None:
    """The last page of a file is the last one of its stream, whichever that is, and must say so."""
    size = path.stat().st_size
    with path.open("rb") as file:
        tail = _at(file, max(size - _OGG_TAIL, 0), _OGG_TAIL)
    page = tail.rfind(b"OggS")
    while page >= 0 and not (tail[page + 4 : page + 5] in (b"\0", b"") and tail[page + 5 : page + 6] < b"\x08"):
        page = tail.rfind(b"OggS", 0, page)
    if page < 0:
        return
    segments = int.from_bytes(tail[page + _OGG_HEADER - 1 : page + _OGG_HEADER], "little")
    lengths = tail[page + _OGG_HEADER : page + _OGG_HEADER + segments]
    if len(lengths) < segments or page + _OGG_HEADER + segments + sum(lengths) > len(tail):
        raise cut_off(path, "ends in the middle of an Ogg page.")
    if not tail[page + 5] & 4:
        raise cut_off(path, "ends without an end-of-stream page.")


def _end_of_flac_header(path: Path) -> int:
    with path.open("rb") as file:
        offset = 4
        for _ in range(_MAX_CHUNKS):
            block = _at(file, offset, 4)
            offset += 4 + int.from_bytes(block[1:], "big")
            if len(block) < 4 or block[0] & 0x80:
                break
    return offset


def _end_of_id3(tag: bytes) -> int:
    """Seven bits of each byte of its size count; a flag says that a copy of the tag's header follows it."""
    return 10 + sum((tag[6 + i] & 0x7F) << (21 - 7 * i) for i in range(4)) + (10 if tag[5] & 0x10 else 0)


@dataclass(frozen=True, slots=True)
class Mp3Promise:
    """What the Xing, Info or VBRI frame of an mp3 promises. 0 where it promises nothing."""

    seconds: float = 0.0
    bytes: int = 0
    bytes_there: int = 0
    """From that frame to the end of the file."""

    def declared(self, measured: float) -> float:
        """The seconds that the file should have, of which `measured` were found."""
        by_bytes = measured * self.bytes / self.bytes_there if self.bytes_there else 0.0
        return max(self.seconds, by_bytes)


def mp3_promise(path: Path) -> Mp3Promise:
    """Read the promise of an mp3 file; the empty one where it has none."""
    with path.open("rb") as file:
        tag = _at(file, 0, 10)
        start = _end_of_id3(tag) if tag[:3] == b"ID3" and len(tag) == 10 else 0
        raw = _at(file, start, _MP3_SCAN)
    first = next((i for i in range(len(raw) - 4) if _is_layer_3(raw[i : i + 4])), None)
    if first is None:
        return Mp3Promise()
    frames, count = _promised_frames(raw[first:])
    rate, samples = _rate_and_samples(raw[first:])
    return Mp3Promise(frames * samples / rate, count, path.stat().st_size - start - first)


def _is_layer_3(header: bytes) -> bool:
    sync = header[0] == 0xFF and header[1] & 0xE6 == 0xE2 and header[1] & 0x18 != 0x08
    return sync and header[2] >> 4 not in (0, 15) and header[2] & 0x0C != 0x0C


def _rate_and_samples(frame: bytes) -> tuple[int, int]:
    """Samples/s and samples per frame. The version is 3 for MPEG 1, 2 for MPEG 2, 0 for MPEG 2.5."""
    version = frame[1] >> 3 & 3
    return _MP3_RATES[frame[2] >> 2 & 3] // {3: 1, 2: 2}.get(version, 4), 1152 if version == 3 else 576


def _promised_frames(frame: bytes) -> tuple[int, int]:
    """Frames and bytes; 0 for either where they are not given."""
    mono = frame[3] >> 6 == 3
    side = (17 if mono else 32) if frame[1] & 8 else (9 if mono else 17)
    xing = frame[4 + side :]
    if xing[:4] in (b"Xing", b"Info") and len(xing) >= 16:
        flags, place, values = int.from_bytes(xing[4:8], "big"), 8, []
        for bit in (1, 2):
            values.append(int.from_bytes(xing[place : place + 4], "big") if flags & bit else 0)
            place += 4 if flags & bit else 0
        return values[0], values[1]
    vbri = frame[36:]
    if vbri[:4] == b"VBRI" and len(vbri) >= 18:
        return int.from_bytes(vbri[14:18], "big"), int.from_bytes(vbri[10:14], "big")
    return 0, 0
