"""Removing jitter from landmarks without delay."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

# A parabola over five frames (Savitzky-Golay): at 25 frames a second it keeps 91% of a movement of 4 Hz, about the pace
# of syllables, and so lets lips close for one consonant; a window of seven would keep 67%.
WINDOW = 5
DEGREE = 2


def smooth(landmarks: npt.NDArray[np.float32], present: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Smooth every coordinate over time within each unbroken run of present frames.

    The first and last frames of a run get the value of the parabola through the run's end, so nothing lags or shrinks.
    Runs shorter than the window stay as they are, and so do absent frames.

    Args:
        landmarks: ``[T, N, 3]``.
        present: ``[T]``.

    Returns:
        A new array like ``landmarks``.
    """
    result = landmarks.copy()
    fit = _fit_matrix()
    half = WINDOW // 2
    for start, end in runs(present):
        if end - start < WINDOW:
            continue
        run = landmarks[start:end]
        inner = sum(fit[half, i] * run[i : len(run) - WINDOW + 1 + i] for i in range(WINDOW))
        result[start + half : end - half] = inner
        result[start : start + half] = np.einsum("ij,jnc->inc", fit[:half], run[:WINDOW])
        result[end - half : end] = np.einsum("ij,jnc->inc", fit[-half:], run[-WINDOW:])
    return result


def runs(present: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """The unbroken stretches of True as (first, one past the last)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], present, [False]]).astype(np.int8)))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        yield int(start), int(end)


def fill_absent(landmarks: npt.NDArray[np.float32], present: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Give absent frames the points of the nearest present one (the earlier of two equally near)."""
    known = np.flatnonzero(present)
    if len(known) in (0, len(present)):
        return landmarks
    frames = np.arange(len(present))
    after = np.searchsorted(known, frames).clip(0, len(known) - 1)
    before = (after - 1).clip(0)
    nearer = np.where(np.abs(known[before] - frames) <= np.abs(known[after] - frames), before, after)
    return np.where(present[:, None, None], landmarks, landmarks[known[nearer]])


def _fit_matrix() -> npt.NDArray[np.float32]:
    """Row i gives the weights of the window's frames in the fitted parabola's value at frame i."""
    powers = np.vander(np.arange(WINDOW) - WINDOW // 2, DEGREE + 1)
    return (powers @ np.linalg.pinv(powers)).astype(np.float32)
