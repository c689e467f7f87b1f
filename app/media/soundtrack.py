"""The sound track of the result: decoded, resampled and AAC-encoded in step with the video."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.container import OutputContainer

from app.media.audio_in import FloatBlock, audio_channels_and_rate, resampled_frames

BIT_RATE = 128_000
KEPT_RATES = frozenset({16_000, 22_050, 24_000, 32_000, 44_100, 48_000})
"""Rates that AAC has and that every player takes; anything else becomes 48 kHz."""
_FALLBACK_RATE = 48_000
_MAX_BITS_PER_SAMPLE = 5
"""AAC allows 6144 bits per channel in 1024 samples; above this the encoder warns and clamps."""


class Soundtrack:
    """One AAC stream of an open container. The caller says how far the video is; the sound keeps up with it."""

    def __init__(self, container: OutputContainer, source: Path) -> None:
        """Add the stream. Mono stays mono, everything else becomes stereo. Raises CodedError for a bad source."""
        channels, rate = audio_channels_and_rate(source)
        layout = "mono" if channels == 1 else "stereo"
        self.rate = rate if rate in KEPT_RATES else _FALLBACK_RATE
        bits = min(BIT_RATE, _MAX_BITS_PER_SAMPLE * self.rate * (1 if channels == 1 else 2))
        stream = container.add_stream("aac", rate=self.rate, layout=layout, bit_rate=bits)
        assert isinstance(stream, av.AudioStream)
        self._stream = stream
        self._container = container
        self._layout = layout
        self._channels = 1 if channels == 1 else 2
        self._frames: Iterator[AudioFrame] = resampled_frames(source, self.rate, layout)
        self._rest: FloatBlock = np.zeros((self._channels, 0), np.float32)
        self._written = 0

    def advance(self, until: Fraction) -> None:
        """Encode sound up to `until` seconds of the video, as far as there is any."""
        self._encode_until(round(until * self.rate), pad=False)

    def finish(self, end: Fraction) -> None:
        """Encode the rest, cut at `end` seconds or padded with silence up to it, and flush the encoder."""
        self._encode_until(round(end * self.rate), pad=True)
        self._container.mux(self._stream.encode(None))

    def _encode_until(self, target: int, *, pad: bool) -> None:
        while self._written < target:
            if self._rest.shape[1] == 0:
                frame = next(self._frames, None)
                if frame is not None:
                    self._rest = cast("FloatBlock", frame.to_ndarray())
                elif pad:
                    self._rest = np.zeros((self._channels, min(target - self._written, self.rate)), np.float32)
                else:
                    return
            count = target - self._written
            self._encode(self._rest[:, :count])
            self._rest = self._rest[:, count:]

    def _encode(self, samples: FloatBlock) -> None:
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self._layout)
        frame.sample_rate = self.rate
        frame.pts, frame.time_base = self._written, Fraction(1, self.rate)
        self._written += frame.samples
        self._container.mux(self._stream.encode(frame))
