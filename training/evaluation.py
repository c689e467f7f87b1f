"""Runs an analyser over takes and puts its scores into a table."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from corpus import Take
from scores import FloatArray, SealScore, best_lag_ms, correlation, predicted_seals, score_seals

from app.speech.articulation import windowed
from app.speech.channels import CLOSURE
from app.speech.network import ArticulationNetwork

Analysis = Callable[[npt.NDArray[np.int16]], FloatArray]


def analysed(network: ArticulationNetwork, audio: npt.NDArray[np.int16]) -> FloatArray:
    """The curve of a recording by a network."""
    pieces = windowed(network, torch.device("cpu"), [audio.astype(np.float32) / 32768])
    return np.concatenate(list(pieces))


def set_threshold(network: ArticulationNetwork, takes: list[Take]) -> float:
    """Shift the closure channel so that 0.5 is where seals found and false balance best (F1) on the takes.

    Returns the threshold that 0.5 now stands for.
    """
    curves = [analysed(network, take.audio) for take in takes]

    def balance(threshold: float) -> float:
        score = SealScore(0, 0, 0, [])
        for take, curve in zip(takes, curves, strict=True):
            score += score_seals(predicted_seals(curve, threshold), take.seals)
        return 2 * score.found / max(score.present + score.predicted, 1)

    best = max(np.arange(0.2, 0.81, 0.05), key=balance)
    with torch.no_grad():
        bias = network.last.bias
        assert bias is not None
        bias[CLOSURE] -= float(np.log(best / (1 - best)))
    return float(best)


def report(takes: list[Take], analyse: Analysis) -> str:
    """A table: for each take its seals found and false, lag, and how jaw, width and protrusion correlate."""
    lines = [f"{'voice':24} seals  found  false  lag ms |    jaw  width  protr  labio  lag ms"]
    total = SealScore(0, 0, 0, [])
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


def seal_report(scores: dict[str, SealScore]) -> str:
    """A table of seals alone, by name."""
    lines = [f"{'voice':24} seals  found  false  lag ms"]
    lines += [f"{name.removeprefix('held-out-'):24} {_seals(score)}" for name, score in scores.items()]
    total = sum(scores.values(), start=SealScore(0, 0, 0, []))
    return "\n".join([*lines, f"{'all':24} {_seals(total)}"])


def _seals(score: SealScore) -> str:
    return f"{score.present:5d}  {score.recall:5.3f}  {score.false_share:5.3f}  {score.lag_ms:6.1f}"
