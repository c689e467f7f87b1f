"""Telling the frames of a video in which something covers the mouth: a hand, a microphone, a cup.

The mesh places the lips where they would be whether or not they are seen, and its presence score hardly drops. What
lies in front of them has other colours than the same points have in the rest of the video. A cut to other light
changes them too, but leaves the lips redder than the skin around them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from torch import Tensor

from app.face import topology
from app.face.smoothing import runs

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

_LIPS: Final = topology.LIP_UPPER_RINGS[0][1:-1] + topology.LIP_LOWER_RINGS[0][1:-1]
_AROUND: Final = (
    # philtrum, beside the corners, below the lip and chin
    164, 167, 393, 186, 410, 57, 287, 212, 432, 18, 83, 313, 106, 335, 204, 424, 200, 32, 262, 199, 208, 428,
    152, 176, 400,
    # the lips' middle, where they are thickest
    0, 37, 267, 17, 84, 314, 73, 303, 90, 320,
)  # fmt: skip
_UPPER_FACE: Final = (168, 6, 197, 195, 5, 8, 9, 151, 50, 280, 123, 352, 117, 346)
SAMPLED: Final = (*_LIPS, *_AROUND, *_UPPER_FACE)
"""Numbers of the mesh points whose colours are kept."""

_MOUTH = slice(0, len(_LIPS) + len(_AROUND))
_REACH = 0.025  # of the distance of the outer eye corners: how far around a point its colour is averaged
_DARK = 12.0  # levels; below it colours are noise

# Measured on three recorded talking heads with and without a hand or a microphone pasted in front of the mouth: at most
# 34% of the points are off in a frame with a free mouth, at least 42% behind a hand, 50% behind a microphone.
_OFF = 0.35  # of a logarithm; colour counts twice
_SHARE_OFF = 0.38
_LEAST_RUN = 2  # frames; a blurred one alone covers nothing
_LONGEST_GAP = 6  # frames between two covered runs in which the mouth hardly comes free
_REDNESS = 0.05  # of a logarithm by which lips are redder than the skin around them, to be told by it


def tones(frames: Tensor, landmarks: FloatArray) -> npt.NDArray[np.uint8]:
    """Colours ``[B, K, 3]`` of frames ``[B, H, W, 3]`` uint8 at the points ``SAMPLED`` of landmarks ``[B, 478, 3]``."""
    height, width = frames.shape[1:3]
    mesh = landmarks[:, list(SAMPLED), :2]
    unit = np.linalg.norm(landmarks[:, 263, :2] - landmarks[:, 33, :2], axis=1)
    step = np.maximum(1.0, unit * _REACH)[:, None]
    rows = np.arange(len(mesh))[:, None]
    total = np.zeros((*mesh.shape[:2], 3), np.float32)
    pixels = frames.cpu().numpy()
    for across in (-1, 0, 1):
        for down in (-1, 0, 1):
            x = np.rint(mesh[..., 0] + across * step).astype(np.int64).clip(0, width - 1)
            y = np.rint(mesh[..., 1] + down * step).astype(np.int64).clip(0, height - 1)
            total += pixels[rows, y, x]
    return np.rint(total / 9).astype(np.uint8)


def covered(colours: npt.NDArray[np.uint8], present: BoolArray) -> BoolArray:
    """In which frames something covers the mouth, ``[T]``.

    What covers it in every frame is not told from a face that looks like that.

    Args:
        colours: ``[T, K, 3]``, see ``tones``; of frames without the face anything.
        present: ``[T]``.
    """
    if not present.any():
        return np.zeros(len(present), np.bool_)
    looks, red = _looks(colours.astype(np.float32))
    hidden = _unlike(looks, red, present, present)
    free = present & ~hidden
    if hidden.any() and free.any() and np.median(red[hidden]) > np.median(red[free]) + _REDNESS:
        # More frames show what covers the mouth than the mouth.
        hidden = _unlike(looks, red, present, hidden)
    return _steadied(hidden, present)


def _looks(colours: FloatArray) -> tuple[FloatArray, FloatArray]:
    """How each point of the mouth compares with the upper face, ``[T, K, 4]`` brightness and colour in logarithms, and
    how much redder than the skin around them the lips are, ``[T]``."""
    reference = np.median(colours[:, _MOUTH.stop :], axis=1, keepdims=True)
    ratio = np.log((colours[:, _MOUTH] + _DARK) / (reference + _DARK))
    brightness = ratio.mean(2, keepdims=True)
    looks: FloatArray = np.concatenate([brightness, 2 * (ratio - brightness)], 2)
    reddish = ratio[..., 0] - ratio[..., 1]
    count = len(_LIPS)
    return looks, np.median(reddish[:, :count], 1) - np.median(reddish[:, count : count + 25], 1)


def _unlike(looks: FloatArray, red: FloatArray, present: BoolArray, usual: BoolArray) -> BoolArray:
    """The present frames that look unlike most of the ``usual`` ones and show no lips."""
    distance = np.linalg.norm(looks - np.median(looks[usual], 0), axis=2)
    typical = float(np.median(red[usual]))
    lips = red > typical / 2 if typical > _REDNESS else np.zeros(len(red), np.bool_)
    unlike: BoolArray = present & ((distance > _OFF).mean(1) > _SHARE_OFF) & ~lips
    return unlike


def _steadied(hidden: BoolArray, present: BoolArray) -> BoolArray:
    """Without single frames and with short gaps closed."""
    steady = np.zeros_like(hidden)
    last = -_LONGEST_GAP - 1
    for start, end in runs(hidden):
        if end - start < min(_LEAST_RUN, len(hidden)):
            continue
        steady[last if start - last <= _LONGEST_GAP else start : end] = True
        last = end
    return steady & present
