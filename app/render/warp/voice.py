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
from app.render.warp.hiss import hiss_of
from app.speech.articulation import sample_at
from app.speech.channels import HOP, JAW, ROWS_PER_SECOND, SAMPLE_RATE, SPEECH, WIDTH, FloatArray

_SMOOTH_ROWS = 2.0
"""Standard deviation, in rows of 10 ms, of the filter over jaw and lips: flesh does not twitch at 50 Hz."""


class SpeechModel(Protocol):
    """What turns audio into articulation; `app.speech.articulation.SpeechAnalyser` is one."""

    def analyse(self, blocks: Iterable[FloatArray]) -> Iterator[FloatArray]:
        """Mono blocks at 16 kHz in, pieces [m, 6] of the 100 Hz curve out."""


@dataclass(frozen=True)
class Voice:
    """`curve` [m, 6] at 100 Hz, `samples` at 16 kHz, `loudness` [m] root mean square of the samples of each row, `hiss`
    [m] how much it hisses, 0..1.

    32 bytes a row, 12 MB an hour.
    """

    curve: FloatArray
    samples: int
    loudness: FloatArray
    hiss: FloatArray

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

    def hissing(self, first: int, count: int, rate: Fraction) -> FloatArray:
        """How much each of these frames hisses, [count]."""
        rows = (np.arange(first, first + count) + 0.5) / float(rate) * ROWS_PER_SECOND
        low = min(int(rows[0]), len(self.hiss))
        part = np.concatenate([self.hiss[low : int(rows[-1]) + 2], np.zeros(1, np.float32)])
        hissing: FloatArray = np.interp(rows - low, np.arange(len(part)), part).astype(np.float32)
        return hissing


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
    loudness, roughness = counter.measured(len(curve))
    return Voice(_smoothed(curve), counter.samples, loudness, hiss_of(loudness, roughness, curve[:, SPEECH]))


class _Counter:
    """Counts the samples that pass and measures how loud they are and how much they change from one to the next."""

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

    def measured(self, rows: int) -> tuple[FloatArray, FloatArray]:
        """Root mean squares of the samples, and of their differences, of the first `rows` rows."""
        last = np.pad(self._rest, (0, -len(self._rest) % HOP))
        found = np.concatenate([*self._measured, _root_mean_squares(last)], 1)
        loudness, roughness = np.pad(found, ((0, 0), (0, max(0, rows - found.shape[1]))))[:, :rows]
        return loudness, roughness


def _root_mean_squares(samples: FloatArray) -> FloatArray:
    """Of every `HOP` samples and of their differences, [2, m]."""
    rows = samples.reshape(-1, HOP)
    steps = rows[:, 1:] - rows[:, :-1]
    found: FloatArray = np.sqrt(np.stack([(rows * rows).mean(1), (steps * steps).mean(1)]))
    return found


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
