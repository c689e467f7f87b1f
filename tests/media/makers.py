"""Makers of real media files for the tests: small, exact, and made in milliseconds."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FloatArray = np.ndarray


def tone(seconds: float, rate: int = 16_000, channels: int = 1, hertz: float = 220.0) -> np.ndarray:
    """A sine of half scale, int16 `[n, channels]`."""
    t = np.arange(round(seconds * rate)) / rate
    mono = (np.sin(2 * np.pi * hertz * t) * 16_000).astype(np.int16)
    return np.repeat(mono[:, None], channels, axis=1)


def write_wav(path: Path, samples: np.ndarray, rate: int = 16_000, *, declared_bytes: int | None = None) -> Path:
    """A RIFF file; `declared_bytes` lets its header lie about the length of the samples."""
    channels = samples.shape[1] if samples.ndim > 1 else 1
    raw = samples.tobytes()
    width = samples.itemsize
    code = 3 if samples.dtype.kind == "f" else 1
    size = len(raw) if declared_bytes is None else declared_bytes
    fmt = struct.pack("<HHIIHH", code, channels, rate, rate * channels * width, channels * width, width * 8)
    riff = struct.pack("<I", min(36 + size, 0xFFFFFFFF))
    path.write_bytes(
        b"RIFF" + riff + b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", size) + raw
    )
    return path


def write_audio(path: Path, codec: str, seconds: float = 1.0, rate: int = 48_000, layout: str = "mono") -> Path:
    """A tone in any container and codec that PyAV can write."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        _encode_tone(container, stream, seconds, rate, layout)
    return path


def _encode_tone(container, stream, seconds: float, rate: int, layout: str) -> None:
    samples = tone(seconds, rate, 1 if layout == "mono" else 2)
    for start in range(0, len(samples), 960):
        piece = np.ascontiguousarray(samples[start : start + 960].reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(piece, format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def numbered_frame(number: int, width: int, height: int) -> np.ndarray:
    """A frame that carries its number: its brightness, in 64 steps of 4 from 0, fills all but a white upper left."""
    image = np.full((height, width, 3), (number % 64) * 4, np.uint8)
    image[: height // 4, : width // 4] = 255
    return image


def read_number(image: np.ndarray) -> int:
    """The number modulo 64 that `numbered_frame` wrote, read from the lower right."""
    height, width, _ = image.shape
    return round(float(image[height * 3 // 4 :, width * 3 // 4 :].mean()) / 4)


def write_video(
    path: Path,
    frames: int = 25,
    width: int = 64,
    height: int = 48,
    rate: Fraction | int = 25,
    codec: str = "libx264",
    *,
    audio: str | None = None,
    audio_seconds: float | None = None,
    times_ms: Sequence[int] | None = None,
    rotation: float = 0,
    hflip: bool = False,
    gop: int = 12,
    aspect: Fraction | None = None,
    pix_fmt: str = "yuv420p",
    movflags: str = "",
) -> Path:
    """A video of numbered frames; `times_ms` makes its rate variable, `audio` names a codec for a tone beside it."""
    with av.open(str(path), "w", container_options={"movflags": movflags} if movflags else {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        tick = Fraction(1, 1000) if times_ms is not None else 1 / Fraction(rate)
        stream.codec_context.time_base = tick
        stream.codec_context.gop_size = gop
        if codec == "libx264":
            stream.options = {"preset": "ultrafast" if times_ms is None else "veryfast", "crf": "10"}
        elif codec.startswith("libvpx"):
            stream.options = {"deadline": "realtime", "cpu-used": "8", "crf": "10", "b": "2M"}
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation or hflip:
            stream.set_display_rotation(rotation, hflip=hflip)
        sound = container.add_stream(audio, rate=48_000, layout="mono") if audio else None
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number, width, height), format="rgb24")
            frame.pts = number if times_ms is None else times_ms[number]
            frame.time_base = tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            seconds = float(frames / Fraction(rate)) if audio_seconds is None else audio_seconds
            _encode_tone(container, sound, seconds, 48_000, "mono")
    return path


def png_header_only(path: Path, width: int, height: int) -> Path:
    """A PNG that declares `width` x `height` and holds a handful of compressed bytes: a decompression bomb."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(100_000), 9)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))
    return path
