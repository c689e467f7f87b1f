"""Runs an analyser over takes and puts its scores into a table."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from corpus import Take
from scores import NO_SEALS, SEALED_ABOVE, FloatArray, SealScore, best_lag_ms, correlation, predicted_seals, score_seals

from app.speech.articulation import windowed
from app.speech.channels import CHANNELS, CLOSURE
from app.speech.network import ArticulationNetwork

_CRISPER = 2.0
"""Factor on the closure channel's slope: lips that are half shut look worse than lips that are shut or are not."""

_FALSE_SHARE = 0.0125
"""False seals that are borne on voices of training; on others there are some times as many. Chosen on half of the
recorded prompts."""

_STRICTEST = 0.8

Analysis = Callable[[npt.NDArray[np.int16]], FloatArray]


def analysed(network: ArticulationNetwork, audio: npt.NDArray[np.int16]) -> FloatArray:
    """The curve of a recording by a network."""
    pieces = windowed(network, torch.device("cpu"), [audio.astype(np.float32) / 32768])
    return np.concatenate(list(pieces))


def set_threshold(network: ArticulationNetwork, takes: list[Take]) -> float:
    """Make the closure channel crisper, and SEALED_ABOVE the threshold at which most seals are found on the takes
    while at most _FALSE_SHARE are false.

    Returns the threshold that SEALED_ABOVE now stands for.
    """
    curves = [analysed(network, take.audio) for take in takes]

    def score(threshold: float) -> SealScore:
        scores = [
            score_seals(predicted_seals(curve, threshold), take.seals)
            for take, curve in zip(takes, curves, strict=True)
        ]
        return sum(scores, start=NO_SEALS)

    strict_enough = [at for at in map(float, np.arange(0.2, 0.81, 0.05)) if score(at).false_share <= _FALSE_SHARE]
    best = max(strict_enough, key=lambda at: score(at).recall, default=_STRICTEST)
    with torch.no_grad():
        for row in range(CLOSURE, network.last.out_features, len(CHANNELS)):
            network.last.weight[row] *= _CRISPER
            network.last.bias[row] = _CRISPER * (network.last.bias[row] - logit(best)) + logit(SEALED_ABOVE)
    return best


def logit(share: float) -> float:
    return float(np.log(share / (1 - share)))


def report(takes: list[Take], analyse: Analysis) -> str:
    """A table: for each take its seals found and false, lag, and how jaw, width and protrusion correlate."""
    lines = [f"{'voice':24} seals  found  false  lag ms |    jaw  width  protr  labio  lag ms"]
    total = NO_SEALS
    for take in takes:
        curve = analyse(take.audio)
        score = score_seals(predicted_seals(curve), take.seals)
        total += score
        agreement = "  ".join(f"{correlation(curve[:, c], take.curve[:, c]):5.2f}" for c in (0, 1, 2, 4))
        lines.append(
            f"{take.name.removeprefix('held-out-'):24} {_seals(score)} |  {agreement}  "
            f"{best_lag_ms(curve[:, 0], take.curve[:, 0]):6d}"
        )
    lines.append(f"{'all':24} {_seals(total)} |")
    return "\n".join(lines)


def _seals(score: SealScore) -> str:
    return f"{score.present:5d}  {score.recall:5.3f}  {score.false_share:5.3f}  {score.lag_ms:6.1f}"
