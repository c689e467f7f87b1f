"""Log-mel spectra in torch, the same for training and for use."""

import torch
from torch import Tensor, nn

from app.speech.channels import HOP

MELS = 80
"""Bands, as in the recogniser that the network begins from."""

WINDOW = 400
"""Samples a spectrum is taken over: 25 ms, long enough to hold two periods of a low voice."""

HALF_WINDOW = WINDOW // 2

FREQUENCIES = WINDOW // 2 + 1

_FLOOR = 1e-10
"""Least energy of a band, so that digital silence has a logarithm."""


class LogMel(nn.Module):
    """Log-mel spectra: [batch, WINDOW + (n - 1) * HOP] samples -> [batch, n, MELS]; spectrum k is of the
    WINDOW samples centred on sample HALF_WINDOW + k * HOP. The filters come with the weights."""

    window: Tensor
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.register_buffer("filters", torch.zeros(FREQUENCIES, MELS))

    def forward(self, samples: Tensor, filters: Tensor | None = None) -> Tensor:
        """filters: others than the usual, [batch, FREQUENCIES, MELS], to hear the voice as a longer or shorter
        vocal tract would make it."""
        frames = samples.unfold(-1, WINDOW, HOP) * self.window
        energy = torch.view_as_real(torch.fft.rfft(frames)).square().sum(dim=-1)
        bands: Tensor = energy @ (self.filters if filters is None else filters)
        return bands.clamp(min=_FLOOR).log()
