"""What a mouth looks like at an instant: articulation curves sorted into nine visemes."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.speech.channels import CLOSURE, JAW, LABIODENTAL, PROTRUSION, SPEECH, WIDTH, FloatArray

_SHAPES = {
    "narrow": (0.20, 0.10, 0.95),  # u, w, y
    "round": (0.55, 0.25, 0.65),  # o, ɔ, ø
    "pout": (0.12, 0.35, 0.55),  # ʃ, ʒ, ɹ
    "wide": (0.25, 0.88, 0.00),  # i, ɪ, j
    "half open": (0.50, 0.68, 0.00),  # e, ɛ, ə
    "open": (0.85, 0.55, 0.00),  # a, ɑ, æ
    "teeth": (0.12, 0.57, 0.00),  # s, t, n and their like, the jaw up
}
"""Jaw, width and protrusion of each viseme that is neither sealed lips nor lip at the teeth."""

VISEMES = ("sealed", "lip at teeth", *_SHAPES)

_CONTACT_ABOVE = 0.5


def visemes(curve: FloatArray) -> npt.NDArray[np.int64]:
    """The viseme of each row of a curve [m, 6], as an index into VISEMES: contact where there is one, otherwise the
    shape that is nearest in jaw, width and protrusion."""
    centres = np.array(list(_SHAPES.values()))
    away = np.square(curve[:, None, [JAW, WIDTH, PROTRUSION]] - centres).sum(axis=2)
    named = 2 + away.argmin(axis=1)
    named[curve[:, LABIODENTAL] > _CONTACT_ABOVE] = 1
    named[curve[:, CLOSURE] > _CONTACT_ABOVE] = 0
    return named


_SOFTNESS = 0.03
"""Square of the distance between poses at which the odds of two visemes change e-fold."""


def viseme_loss(pose: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the shape that is nearest in the target, where someone speaks and no lips touch, with those of
    the pose by their distances. Both [batch, rows, 6] in 0..1."""
    centres = torch.tensor(list(_SHAPES.values()))
    open_lips = (target[..., SPEECH] > 0.5) & (target[..., [CLOSURE, LABIODENTAL]].amax(-1) <= _CONTACT_ABOVE)

    def away(curve: Tensor) -> Tensor:
        shapes = curve[open_lips][:, [JAW, WIDTH, PROTRUSION]]
        return (shapes[:, None] - centres).square().sum(-1)

    nearest = away(target).argmin(-1)
    loss: Tensor = torch.nn.functional.cross_entropy(-away(pose) / _SOFTNESS, nearest)
    return loss
