"""Is the sound of the finished video the speech that was sent: the loudness of both, every ten milliseconds."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

_RATE = 16_000
_HOP = 160
HOPS_PER_SECOND = _RATE // _HOP
_FLOOR = 10 ** (-60 / 20)
"""Quieter than 60 dB below full scale is silence: a codec may do there what it likes."""
_AT_ONCE = _RATE
"""Samples measured together: decoders yield a few hundred, and each call costs more than the sums in it."""
_REACH_S = 0.6
"""Delays looked for, either way."""

Loudness = npt.NDArray[np.float64]


def loudness(blocks: Iterable[npt.NDArray[np.float32]]) -> Loudness:
    """The loudness of a sound in dB above -60 dB of full scale, 100 a second.

    blocks: mono at 16 kHz, float32 [n] of any lengths.
    """
    levels: list[Loudness] = []
    waiting: list[npt.NDArray[np.float32]] = []
    held = 0
    for block in blocks:
        waiting.append(block)
        held += len(block)
        if held >= _AT_ONCE:
            joined = np.concatenate(waiting)
            whole = held // _HOP * _HOP
            levels.append(_decibels(joined[:whole].reshape(-1, _HOP)))
            waiting, held = [joined[whole:]], held - whole
    if held:
        rest = np.concatenate(waiting)
        whole = held // _HOP * _HOP
        levels.append(_decibels(rest[:whole].reshape(-1, _HOP)))
        if whole < held:
            levels.append(_decibels(rest[None, whole:]))
    return np.concatenate(levels) if levels else np.zeros(0)


def _decibels(pieces: npt.NDArray[np.float32]) -> Loudness:
    power = np.square(pieces, dtype=np.float64).mean(axis=1)
    level: Loudness = 20 * np.log10(np.maximum(np.sqrt(power), _FLOOR) / _FLOOR)
    return level


def compare(sent: Loudness, made: Loudness) -> tuple[float, float] | None:
    """How well the loudness of both agrees (correlation, -1..1) at the delay of `made` where it agrees best, and that
    delay in seconds. None where what was sent has no loud and quiet to compare."""
    if len(sent) < 20 or sent.std() < 1.0:
        return None
    reach = min(round(_REACH_S * HOPS_PER_SECOND), len(sent) // 2)
    best, delay = -1.0, 0
    for lag in sorted(range(-reach, reach + 1), key=abs):
        one = sent[max(0, -lag) : len(sent) - max(0, lag)]
        other = made[max(0, lag) :][: len(one)]
        agreement = correlation(one[: len(other)], other)
        if agreement > best + 1e-6:
            best, delay = agreement, lag
    return best, delay / HOPS_PER_SECOND


def correlation(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Pearson's correlation of two vectors of one length; 0 where one of them is constant."""
    if len(one) < 3:
        return 0.0
    a, b = one - one.mean(), other - other.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 1e-9 else 0.0
