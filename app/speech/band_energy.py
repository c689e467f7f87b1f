"""Articulation from band energies alone: loudness opens the jaw, a murmur or a gap amid speech shuts the lips."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.speech.channels import HOP
from app.speech.logmel import HALF_WINDOW, LogMel

_CONTEXT_ROWS = 25
"""Rows seen to either side: a quarter of a second tells a gap within speech from a pause."""


class BandEnergyArticulation(nn.Module):
    """[batch, samples] -> [batch, rows, 6], looking `before` and `after` samples around each row's instant."""

    before = HALF_WINDOW + _CONTEXT_ROWS * HOP
    after = HALF_WINDOW + _CONTEXT_ROWS * HOP

    def __init__(self) -> None:
        super().__init__()
        self.logmel = LogMel()

    def forward(self, samples: Tensor) -> Tensor:
        mel = self.logmel(samples)
        body, treble, murmur = mel[:, 14:44].mean(1), mel[:, 44:].mean(1), mel[:, :8].mean(1)
        loud = torch.sigmoid((body + 0.2) * 5.0)
        near = F.max_pool1d(loud[:, None], 2 * _CONTEXT_ROWS + 1, stride=1)[:, 0]
        inner = slice(_CONTEXT_ROWS, -_CONTEXT_ROWS)
        speech = (near * 1.2 - 0.1).clamp(0.0, 1.0)
        hush = torch.sigmoid((-treble - 0.5) * 6.0) * (1.0 - loud)
        closure = (hush * torch.sigmoid((murmur + 1.0) * 3.0))[:, inner] * speech
        jaw = loud[:, inner] * (1.0 - closure) * 0.7
        bright = torch.tanh((mel[:, 36:46].mean(1) - mel[:, 14:24].mean(1)) * 1.5)[:, inner] * jaw
        width, protrusion = 0.5 + 0.3 * bright, (-bright).clamp(min=0.0) * 0.6
        return torch.stack([jaw, width, protrusion, closure, torch.zeros_like(jaw), speech], dim=-1)
