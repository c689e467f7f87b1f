"""The mel spectrogram that the generator hears: that of the original project, in constant memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from app.render.wav2lip.profile import SAMPLE_RATE, WAV2LIP, MelScale

_COLUMNS_AT_ONCE = 2048
"""Spectra computed together: 25 s of speech, 13 MB."""
_LINEAR_HZ = 200 / 3  # of one mel below the corner (Slaney's Auditory Toolbox, 1998, as librosa has it)
_CORNER_HZ = 1000.0
_LOG_STEP = math.log(6.4) / 27  # above it


def mel_spectrogram(
    wave: Tensor | np.ndarray[tuple[int], np.dtype[np.floating]], scale: MelScale = WAV2LIP.mel
) -> Tensor:
    """The mel spectrogram of a whole wave.

    Args:
        wave: `[T]`, mono at 16 kHz, T >= 1, in -1..1.
        scale: the numbers; by default the original's.

    Returns:
        `[bands, 1 + T // hop]` float32 in -bound..bound. Column `n` looks at the samples around `n * hop`.

    Raises:
        ValueError: not a vector, or an empty one.
    """
    samples = torch.as_tensor(wave)
    if samples.ndim != 1 or not len(samples):
        raise ValueError(f"a wave is a vector of samples, not {list(samples.shape)}")
    return torch.cat(list(mel_pieces([samples], scale)), dim=1)


def mel_pieces(blocks: Iterable[Tensor], scale: MelScale) -> Iterator[Tensor]:
    """The same, `[bands, n]` by `[bands, n]`, for a wave that comes in blocks; the cuts leave no trace."""
    stream = _Frames(scale)
    filters = mel_filters(scale)
    window = torch.hann_window(scale.window, periodic=True, dtype=torch.float64)
    for block in blocks:
        for frames in stream.feed(block.to("cpu", torch.float64)):
            yield _mel(frames, window, filters, scale)
    for frames in stream.finish():
        yield _mel(frames, window, filters, scale)


def _mel(frames: Tensor, window: Tensor, filters: Tensor, scale: MelScale) -> Tensor:
    # Double precision: the quietest bands lie 100 dB below the loudest, where single precision is off by whole dB.
    magnitude = torch.fft.rfft(frames * window).abs() @ filters.T
    decibels = 20 * magnitude.clamp_min(10 ** (scale.floor_db / 20)).log10() - scale.reference_db
    share = (decibels - scale.floor_db) / -scale.floor_db
    mel: Tensor = (2 * scale.bound * share - scale.bound).clamp(-scale.bound, scale.bound).float().T
    return mel


class _Frames:
    """Cuts the pre-emphasised wave, reflected at both ends by half a window, into overlapping frames."""

    def __init__(self, scale: MelScale) -> None:
        self._scale = scale
        self._reach = scale.window // 2
        self._last = torch.zeros(1, dtype=torch.float64)
        self._begun = False
        self._held = torch.zeros(0, dtype=torch.float64)
        """Samples that further frames need; before the first frame, everything."""

    def feed(self, block: Tensor) -> Iterator[Tensor]:
        """`[n]` samples in, frames `[m, window]` out."""
        if not len(block):
            return
        sharpened = block - self._scale.preemphasis * torch.cat([self._last, block[:-1]])
        self._last = block[-1:]
        self._held = torch.cat([self._held, sharpened])
        if not self._begun and len(self._held) > self._reach:
            self._begun = True
            self._held = torch.cat([self._held[1 : self._reach + 1].flip(0), self._held])
        if self._begun:
            yield from self._cut()

    def finish(self) -> Iterator[Tensor]:
        """The frames that reach over the end."""
        if not self._begun:
            self._held = _reflected(self._held, self._reach)
        else:
            self._held = torch.cat([self._held, self._held[-self._reach - 1 : -1].flip(0)])
        yield from self._cut()

    def _cut(self) -> Iterator[Tensor]:
        window, hop = self._scale.window, self._scale.hop
        while len(self._held) >= window:
            count = min((len(self._held) - window) // hop + 1, _COLUMNS_AT_ONCE)
            yield self._held[: (count - 1) * hop + window].unfold(0, window, hop)
            self._held = self._held[count * hop :]


def _reflected(samples: Tensor, reach: int) -> Tensor:
    """A wave too short for one reflection is reflected back and forth."""
    period = max(2 * (len(samples) - 1), 1)
    phase = torch.arange(-reach, len(samples) + reach).remainder(period)
    return samples[torch.minimum(phase, period - phase).clamp_max(len(samples) - 1)]


def mel_filters(scale: MelScale) -> Tensor:
    """Triangles over the spectrum `[bands, window // 2 + 1]`, each of the same area (Slaney's scale and norm)."""
    ends = _mels(torch.tensor([scale.low_hz, scale.high_hz], dtype=torch.float64))
    edges = _hertz(torch.linspace(float(ends[0]), float(ends[1]), scale.bands + 2, dtype=torch.float64))
    bins = torch.linspace(0, SAMPLE_RATE / 2, scale.window // 2 + 1, dtype=torch.float64)
    slopes = edges[:, None] - bins
    steps = edges.diff()
    rising = -slopes[:-2] / steps[:-1, None]
    falling = slopes[2:] / steps[1:, None]
    area = 2 / (edges[2:] - edges[:-2])
    return torch.minimum(rising, falling).clamp_min(0) * area[:, None]


def _mels(hertz: Tensor) -> Tensor:
    corner = _CORNER_HZ / _LINEAR_HZ
    return torch.where(
        hertz < _CORNER_HZ, hertz / _LINEAR_HZ, corner + (hertz.clamp_min(1e-9) / _CORNER_HZ).log() / _LOG_STEP
    )


def _hertz(mels: Tensor) -> Tensor:
    corner = _CORNER_HZ / _LINEAR_HZ
    return torch.where(mels < corner, mels * _LINEAR_HZ, _CORNER_HZ * ((mels - corner) * _LOG_STEP).exp())
