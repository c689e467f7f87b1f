"""How well a predicted articulation curve agrees with a reference."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

ROWS_PER_SECOND = 100
SEALED_ABOVE = 0.7
"""Predicted closure from which the lips count as sealed; the renderer's lips touch from there on."""

WITHIN_S = 0.04
"""A seal is found when one is predicted this near: one frame of 25 a second."""

_CLOSURE = 3
_LARGEST_LAG_ROWS = 15


@dataclass(frozen=True)
class SealScore:
    """Agreement on when the lips are sealed."""

    present: int
    found: int
    predicted: int
    lags_s: list[float]  # of each that was found, positive when predicted late

    @property
    def recall(self) -> float:
        """Share of the seals that were found."""
        return self.found / max(self.present, 1)

    @property
    def false_share(self) -> float:
        """Share of the predicted seals that are none."""
        return (self.predicted - self.found) / max(self.predicted, 1)

    @property
    def lag_ms(self) -> float:
        """Median lag of those found."""
        return 1000 * float(np.median(self.lags_s)) if self.lags_s else float("nan")

    def __add__(self, other: "SealScore") -> "SealScore":
        return SealScore(
            self.present + other.present,
            self.found + other.found,
            self.predicted + other.predicted,
            self.lags_s + other.lags_s,
        )


NO_SEALS = SealScore(0, 0, 0, [])


def predicted_seals(curve: FloatArray, threshold: float = SEALED_ABOVE) -> list[tuple[float, float]]:
    """Stretches, in seconds, where the closure channel of a curve [m, 6] is above the threshold."""
    above = np.concatenate([[False], curve[:, _CLOSURE] > threshold, [False]])
    edges = np.flatnonzero(np.diff(above.astype(np.int8)))
    return [
        (begin / ROWS_PER_SECOND, (end - 1) / ROWS_PER_SECOND)
        for begin, end in zip(edges[::2], edges[1::2], strict=True)
    ]


def score_seals(
    predicted: list[tuple[float, float]], present: list[tuple[float, float]], middles: bool = False
) -> SealScore:
    """Pair each seal that is present with the nearest predicted one, none used twice.

    The middle of the predicted one must fall into the one that is present or within WITHIN_S of it; with `middles`,
    within WITHIN_S of its middle, which is harder for long ones.
    """
    centres = [(start + end) / 2 for start, end in predicted]
    free = set(range(len(centres)))
    lags = []
    for start, end in present:
        middle = (start + end) / 2
        reach = WITHIN_S if middles else WITHIN_S + (end - start) / 2
        nearest = min(free, key=lambda index: abs(centres[index] - middle), default=None)
        if nearest is not None and abs(centres[nearest] - middle) <= reach + 1e-9:
            free.discard(nearest)
            lags.append(centres[nearest] - middle)
    return SealScore(len(present), len(lags), len(predicted), lags)


def correlation(predicted: FloatArray, reference: FloatArray) -> float:
    """Pearson's, of two channels; not a number where one of them never changes."""
    if np.ptp(predicted) == 0 or np.ptp(reference) == 0:
        return float("nan")
    return float(np.corrcoef(predicted, reference)[0, 1])


def best_lag_ms(predicted: FloatArray, reference: FloatArray) -> int:
    """Shift, in ms, at which two channels agree best; positive when the prediction is late."""
    span = range(-_LARGEST_LAG_ROWS, _LARGEST_LAG_ROWS + 1)
    inner = slice(_LARGEST_LAG_ROWS, len(reference) - _LARGEST_LAG_ROWS)
    agreement = [correlation(np.roll(predicted, -lag)[inner], reference[inner]) for lag in span]
    return 1000 // ROWS_PER_SECOND * (int(np.argmax(agreement)) - _LARGEST_LAG_ROWS)
