"""The network from log-mel spectra to articulation: dilated convolutions over time, without padding."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from app.speech.channels import CHANNELS, HOP, REST, SPEECH
from app.speech.logmel import HALF_WINDOW, MELS, LogMel

WEIGHTS = Path(__file__).parent / "weights" / "articulation.safetensors"

FEATURES = 128
"""Features at each instant; with the layers below, 0.6 million parameters."""

_KERNEL = 3

_CENTRED = (1, 2, 4, 8, 1, 2)
"""Dilations, in rows, of layers that see as far ahead as back. With the first layer and the averaging they look
210 ms ahead: enough to see a closure's release and the vowel after it."""

_BACKWARD = (8, 16, 32)
"""Dilations of layers that look back only: with the others, over 1.3 s, by which noise is told from speech."""


_SETTLING = (1 / 12, 3 / 12, 4 / 12, 3 / 12, 1 / 12)
"""Each row's answer is averaged with its neighbours' by this (a Hann window): it mends closures that flicker for a
row. On voices of the training corpus it raised the F1 of closures from 0.87 to 0.91."""

SETTLED = len(_SETTLING) // 2
"""Rows of features to either side that averaging takes."""

_SPEAKING = 0.3
"""Below this value of the speech channel all others are drawn towards rest, in proportion: noise that begins or
ends at once, as at the edges of a recording, must not twitch the mouth."""

_LEVEL_FLOOR = 1e-5
"""Keeps the normalisation of a row of zeros finite."""


class _Layer(nn.Module):
    """A residual layer, normalised by each row's root mean square, that drops the rows for which it lacks
    context: no row is ever made up of padding, so cutting a recording into windows changes nothing."""

    def __init__(self, dilation: int, centred: bool) -> None:
        super().__init__()
        self.dropped_before = dilation if centred else 2 * dilation
        self.dropped_after = dilation if centred else 0
        self.scale = nn.Parameter(torch.ones(FEATURES, 1))
        self.over_time = nn.Conv1d(FEATURES, FEATURES, _KERNEL, dilation=dilation)
        self.over_features = nn.Conv1d(FEATURES, FEATURES, 1)

    def forward(self, rows: Tensor) -> Tensor:
        inner = rows[..., self.dropped_before : rows.shape[-1] - self.dropped_after]
        level = rows.square().mean(dim=-2, keepdim=True)
        seen: Tensor = self.over_time(rows * torch.rsqrt(level + _LEVEL_FLOOR) * self.scale)
        added: Tensor = self.over_features(nn.functional.gelu(seen))
        return inner + added


class ArticulationNetwork(nn.Module):
    """[batch, before + (n - 1) * HOP + after] samples -> [batch, n, 6] in 0..1, columns `CHANNELS`.

    Row k describes sample before + k * HOP. `before` and `after` are the samples of context that it needs.
    """

    settling: Tensor
    rest: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.logmel = LogMel()
        self.first = nn.Conv1d(MELS, FEATURES, _KERNEL)
        self.layers = nn.Sequential(
            *(_Layer(dilation, centred=True) for dilation in _CENTRED),
            *(_Layer(dilation, centred=False) for dilation in _BACKWARD),
        )
        self.last = nn.Conv1d(FEATURES, len(CHANNELS), 1)
        self.register_buffer("settling", torch.tensor(_SETTLING).view(1, 1, -1), persistent=False)
        self.register_buffer("rest", torch.tensor(REST.tolist()), persistent=False)
        reach = _KERNEL // 2 + SETTLED
        rows_before = reach + sum(_CENTRED) + 2 * sum(_BACKWARD)
        rows_after = reach + sum(_CENTRED)
        self.before = HALF_WINDOW + rows_before * HOP
        self.after = HALF_WINDOW + rows_after * HOP

    def forward(self, samples: Tensor) -> Tensor:
        logits = self.last(self.features(self.logmel(samples)))
        settled = nn.functional.conv1d(logits.flatten(0, 1)[:, None], self.settling)
        pose = torch.sigmoid(settled.view(len(samples), len(CHANNELS), -1)).transpose(-1, -2)
        active = (pose[..., SPEECH:] / _SPEAKING).clamp(max=1.0)
        moved = self.rest + active * (pose - self.rest)
        return torch.cat([moved[..., :SPEECH], pose[..., SPEECH:]], dim=-1)

    def features(self, mel: Tensor) -> Tensor:
        """What the last layer reads: log-mel spectra [batch, MELS, rows] -> [batch, features, n + 2 * SETTLED]."""
        found: Tensor = self.layers(self.first(mel))
        return found


def load_network(device: torch.device) -> ArticulationNetwork:
    """The network with the weights that the package carries, ready for use.

    Raises FileNotFoundError where they are missing and RuntimeError where they are another network's.
    """
    network = ArticulationNetwork()
    network.load_state_dict(load_file(WEIGHTS))
    return network.eval().to(device)
