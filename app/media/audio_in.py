"""Speech in: any supported audio stream as mono float32 blocks at one rate.

There is one decoding path for analysis and for the sound track of the result (`decoded_frames`), so that both agree
about how long the audio is.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from app.media.containers import audio_stream, decoding, invalid, open_input, undecodable

FloatBlock = npt.NDArray[np.float32]

BAD_PACKETS_IN_A_ROW = 50
"""A damaged packet in a sound file is a click and is skipped, as players do; so many in a row are a broken file."""

_AS_FLOAT = {"flt": "flt", "fltp": "fltp", "dbl": "flt", "dblp": "fltp"}
"""Sample formats that can hold NaN, and the 32-bit format of the same memory layout."""

_NO_GAIN = {"rematrix_maxval": "1.0"}
"""Downmixing averages channels. For float samples swresample's own default lets the sum of channels pass full scale."""


def audio_blocks(path: Path, rate: int = 16_000) -> Iterator[FloatBlock]:
    """Decode the first audio stream of `path` as float32 blocks `[n]` (n > 0 varies), mono, `rate` samples/s.

    Values lie in [-1, 1]; NaN and infinities become 0. Memory does not grow with the length.
    Raises CodedError INPUT_NOT_FOUND or INPUT_INVALID (reason `no_audio_stream`, `no_samples`, `undecodable`, ...).
    """
    for frame in resampled_frames(path, rate, "mono"):
        yield _finite(frame.to_ndarray()[0])


def audio_length(path: Path, rate: int = 16_000) -> int:
    """The number of samples that `audio_blocks(path, rate)` yields in all, by decoding them.

    The last lengths are remembered until their file changes: a renderer and the check of its result ask for the same.
    """
    try:
        file = path.stat()
    except OSError:
        return _counted(path, rate)  # which says what is wrong with it
    return _remembered(path, file.st_ino, file.st_size, file.st_mtime_ns, rate)


@lru_cache(maxsize=8)
def _remembered(path: Path, _inode: int, _size: int, _mtime_ns: int, rate: int) -> int:
    return _counted(path, rate)


def _counted(path: Path, rate: int) -> int:
    return sum(frame.samples for frame in resampled_frames(path, rate, "mono"))


def audio_channels_and_rate(path: Path) -> tuple[int, int]:
    """Channels and sample rate of the first audio stream, as the container declares them."""
    with open_input(path) as container:
        context = audio_stream(container, path).codec_context
        return context.layout.nb_channels, context.sample_rate


def resampled_frames(path: Path, rate: int, layout: str) -> Iterator[AudioFrame]:
    """Decoded audio as planar float frames (`fltp`) of the given rate and layout, finite before it is resampled."""
    resampler: AudioResampler | None = None
    shape: tuple[str, str, int] | None = None
    for decoded in decoded_frames(path):
        frame = _sane_frame(decoded)
        before: list[AudioFrame] = []
        with decoding(path):
            if shape != (frame.format.name, frame.layout.name, frame.sample_rate):
                # Rate and layout may change inside a stream (AAC with SBR, joined files): one resampler for each.
                before = [] if resampler is None else resampler.resample(None)
                shape = (frame.format.name, frame.layout.name, frame.sample_rate)
                resampler = AudioResampler(format="fltp", layout=layout, rate=rate, options=_NO_GAIN)
            assert resampler is not None
            # Gaps and jumps of timestamps are not ours to keep: samples follow one another.
            frame.pts = None
            resampled = before + resampler.resample(frame)
        yield from _nonempty(resampled)
    if resampler is not None:
        with decoding(path):
            rest = resampler.resample(None)
        yield from _nonempty(rest)


def require_mixable(frame: AudioFrame, name: str) -> None:
    """Raise INPUT_INVALID `unsupported_channels` for a frame of channels that cannot be mixed into one."""
    try:
        AudioResampler(format="fltp", layout="mono", rate=16_000).resample(frame)
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, MemoryError):
            raise
        message = f"The {frame.layout.nb_channels} channels of {name} are in no order by which they could be mixed."
        raise invalid("unsupported_channels", message, "Send the speech in mono or stereo.") from error


def decoded_frames(path: Path) -> Iterator[AudioFrame]:
    """Every decoded frame of the first audio stream. Raises `no_samples` where there is none."""
    samples = 0
    bad = 0
    with open_input(path) as container:
        stream = audio_stream(container, path)
        packets = container.demux(stream)
        while True:
            with decoding(path):
                packet = next(packets, None)
            if packet is None:
                break
            try:
                frames = packet.decode()
                bad = 0
            except (av.error.FFmpegError, ValueError) as error:  # "permission denied" and others stand for bad data too
                bad += 1
                if isinstance(error, MemoryError) or bad >= BAD_PACKETS_IN_A_ROW:
                    raise undecodable(path, error) from error
                continue
            for frame in frames:
                if frame.samples > 0:
                    samples += frame.samples
                    yield frame
    if samples == 0:
        raise invalid("no_samples", f"{path.name} has an audio stream, but not one sample in it.")


def _sane_frame(frame: AudioFrame) -> AudioFrame:
    """Replace NaN, infinities and values beyond full scale before the resampler's filter spreads them."""
    if frame.format.name not in _AS_FLOAT:
        return frame
    samples = frame.to_ndarray()
    if np.abs(samples).max() <= 1.0:  # false for NaN too
        return frame
    out = AudioFrame.from_ndarray(_finite(samples), format=_AS_FLOAT[frame.format.name], layout=frame.layout.name)
    out.sample_rate = frame.sample_rate
    return out


def _finite(samples: npt.NDArray[np.generic]) -> FloatBlock:
    block = np.nan_to_num(samples.astype(np.float32, copy=False), nan=0.0, posinf=0.0, neginf=0.0)
    return np.clip(block, -1.0, 1.0)


def _nonempty(frames: list[AudioFrame]) -> Iterator[AudioFrame]:
    return (frame for frame in frames if frame.samples > 0)
