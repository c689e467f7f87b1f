"""Where speech hisses (s, z and their like), for which the teeth come together: the network does not tell it apart.

Such sounds have most of their energy above 4 kHz, voiced ones and vowels hardly any (Jongman, Wayland & Wong, JASA
2000). How much a signal changes from sample to sample shows that without a spectrum: of its power's fourfold, the power
of its differences is the mean of sin²(pi f / rate) over the spectrum.
"""

from __future__ import annotations

import numpy as np

from app.speech.channels import SAMPLE_RATE, FloatArray

HISSES = (np.sin(np.pi * np.array([2_700, 3_800]) / SAMPLE_RATE) ** 2).tolist()
"""Shares of power from which something begins to hiss, and from which it does: what has its energy at these Hz."""

_HEARD = (0.04, 0.08)  # of loud speech, in amplitude, from which it is heard
_ABOVE_NOISE = 3.0  # times as loud as the quietest part, at least
_LOUD, _QUIET = 90, 5  # percentiles
_SMOOTH_ROWS = 3.0  # standard deviation of the filter, in rows of 10 ms: lips go ahead of such a sound


def hiss_of(loudness: FloatArray, roughness: FloatArray, speech: FloatArray) -> FloatArray:
    """How much each instant hisses, [m] 0..1, from the root mean squares of its samples and of their differences
    [m], and from whether someone speaks [m] 0..1."""
    spoken = loudness[speech > 0.5]
    if not len(spoken):
        return np.zeros_like(loudness)
    share = np.square(roughness) / np.maximum(4 * np.square(loudness), 1e-12)
    least = max(_HEARD[0] * float(np.percentile(spoken, _LOUD)), _ABOVE_NOISE * float(np.percentile(loudness, _QUIET)))
    heard = _smooth((loudness / max(least, 1e-9) - 1) / (_HEARD[1] / _HEARD[0] - 1))
    raw = _smooth((share - HISSES[0]) / (HISSES[1] - HISSES[0])) * heard * speech
    reach = int(3 * _SMOOTH_ROWS)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / _SMOOTH_ROWS) ** 2)
    padded = np.pad(raw, reach, mode="edge")
    smooth: FloatArray = np.convolve(padded, kernel / kernel.sum(), mode="valid").astype(np.float32)
    return smooth


def _smooth(value: FloatArray) -> FloatArray:
    x = np.clip(value, 0.0, 1.0)
    smooth: FloatArray = x * x * (3 - 2 * x)
    return smooth
