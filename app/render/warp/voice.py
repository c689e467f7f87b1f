"""The voice as the renderer needs it: what the mouth does in each video frame, and how long all of it lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from app.media.audio_in import audio_blocks
from app.speech.articulation import sample_at
from app.speech.channels import HOP, JAW, SAMPLE_RATE, WIDTH, FloatArray

_SMOOTH_ROWS = 2.0
"""Standard deviation, in rows of 10 ms, of the filter over jaw and lips: flesh does not twitch at 50 Hz."""


class SpeechModel(Protocol):
    """What turns audio into articulation; `app.speech.articulation.SpeechAnalyser` is one."""

    def analyse(self, blocks: Iterable[FloatArray]) -> Iterator[FloatArray]:
        """Mono blocks at 16 kHz in, pieces [m, 6] of the 100 Hz curve out."""


@dataclass(frozen=True)
class Voice:
    """`curve` [m, 6] at 100 Hz, `samples` at 16 kHz, `loudness` [m] root mean square of the samples of each row.

    28 bytes a row, 10 MB an hour.
    """

    curve: FloatArray
    samples: int
    loudness: FloatArray

    def frame_count(self, rate: Fraction) -> int:
        """Frames of a video of the voice's length, at least one."""
        return max(1, round(Fraction(self.samples, SAMPLE_RATE) * rate))

    def articulation(self, first: int, count: int, rate: Fraction) -> FloatArray:
        """What the mouth does in frames `first` to `first + count - 1`, [count, 6]; a frame stands for its middle."""
        # One frame more on either side, so that the reach of the outer frames does not depend on how batches fall.
        numbers = np.arange(first - 1, first + count + 1)
        times = (numbers + 0.5) / float(rate)
        low = max(0, int(times[0] * 100) - 20)
        part = self.curve[low : max(low, int(times[-1] * 100) + 20)]
        return sample_at(part, times - low / 100)[1:-1]


def listen(path: Path, analyser: SpeechModel, heard: Callable[[int], None]) -> Voice:
    """Analyse the audio of `path` as it is decoded; `heard(rows)` is called along the way.

    Raises CodedError where the audio cannot be decoded.
    """
    counter = _Counter(audio_blocks(path, SAMPLE_RATE))
    pieces: list[FloatArray] = []
    rows = 0
    for piece in analyser.analyse(counter):
        pieces.append(piece)
        rows += len(piece)
        heard(rows)
    curve = np.concatenate(pieces) if pieces else np.zeros((0, 6), np.float32)
    return Voice(_smoothed(curve), counter.samples, counter.loudness(len(curve)))


class _Counter:
    """Counts the samples that pass and measures how loud they are."""

    def __init__(self, blocks: Iterable[FloatArray]) -> None:
        self._blocks = blocks
        self._rest = np.zeros(0, np.float32)
        self._measured: list[FloatArray] = []
        self.samples = 0

    def __iter__(self) -> Iterator[FloatArray]:
        for block in self._blocks:
            self.samples += len(block)
            heard = np.concatenate([self._rest, np.nan_to_num(block)])
            whole = len(heard) // HOP * HOP
            self._rest = heard[whole:]
            self._measured.append(_root_mean_squares(heard[:whole]))
            yield block

    def loudness(self, rows: int) -> FloatArray:
        """Of the first `rows` rows."""
        last = np.pad(self._rest, (0, -len(self._rest) % HOP))
        measured = np.concatenate([*self._measured, _root_mean_squares(last)])
        return np.pad(measured, (0, max(0, rows - len(measured))))[:rows]


def _root_mean_squares(samples: FloatArray) -> FloatArray:
    """Of every `HOP` samples."""
    rows = samples.reshape(-1, HOP)
    loudness: FloatArray = np.sqrt((rows * rows).mean(1))
    return loudness


def _smoothed(curve: FloatArray) -> FloatArray:
    """Filter jaw, width and protrusion; contacts (closure, labiodental) stay as sharp as they are."""
    if not len(curve):
        return curve
    reach = int(3 * _SMOOTH_ROWS)
    offsets: npt.NDArray[np.float64] = np.arange(-reach, reach + 1) / _SMOOTH_ROWS
    kernel = np.exp(-0.5 * offsets**2)
    kernel /= kernel.sum()
    out = curve.copy()
    for column in (JAW, WIDTH, WIDTH + 1):
        padded = np.pad(curve[:, column].astype(np.float64), reach, mode="edge")
        out[:, column] = np.convolve(padded, kernel, mode="valid")
    return out
