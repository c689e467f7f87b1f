"""Log-mel spectra in torch, the same for training and for use."""

import math

import torch
from torch import Tensor, nn

from app.speech.channels import HOP, SAMPLE_RATE

MELS = 64
"""Bands. 64 from 60 to 7600 Hz still tells /m/ from /n/ by their murmurs, which lie 100-200 Hz apart."""

WINDOW = 400
"""Samples a spectrum is taken over: 25 ms, long enough to hold two periods of a low voice."""

HALF_WINDOW = WINDOW // 2

_FFT = 512
_LOWEST_HZ, _HIGHEST_HZ = 60.0, 7600.0

_FLOOR = 1e-7
"""Added to band energies (of samples in -1..1): about the energy of dither at 16 bits, so that digital
silence and a silent recording look alike."""

_CENTRE, _SPREAD = -6.0, 4.0
"""Bring the logarithms of usual speech to about zero mean and unit deviation."""


class LogMel(nn.Module):
    """Log-mel spectra: [batch, WINDOW + (n - 1) * HOP] samples -> [batch, MELS, n]; spectrum k is of the
    WINDOW samples centred on sample HALF_WINDOW + k * HOP. Mel scale: 2595 log10(1 + f / 700), after
    O'Shaughnessy, Speech Communication (1987)."""

    window: Tensor
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.register_buffer("filters", _mel_filters(), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        frames = samples.unfold(-1, WINDOW, HOP) * self.window
        energy = torch.fft.rfft(frames, n=_FFT).abs().square() / WINDOW
        bands = energy @ self.filters
        scaled: Tensor = ((bands + _FLOOR).log() - _CENTRE) / _SPREAD
        return scaled.transpose(-1, -2)


def _mel(hz: float) -> float:
    return 2595.0 * math.log10(1.0 + hz / 700.0)


def _mel_filters() -> Tensor:
    """Triangular filters of unit sum, [_FFT // 2 + 1, MELS]."""
    mels = torch.linspace(_mel(_LOWEST_HZ), _mel(_HIGHEST_HZ), MELS + 2, dtype=torch.float64)
    edges = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    bins = torch.linspace(0.0, SAMPLE_RATE / 2, _FFT // 2 + 1, dtype=torch.float64)[:, None]
    low, peak, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - low) / (peak - low), (high - bins) / (high - peak)
    filters = torch.minimum(rising, falling).clamp(min=0.0)
    return (filters / filters.sum(dim=0).clamp(min=1e-9)).to(torch.float32)
