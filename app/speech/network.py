"""The network from log-mel spectra to articulation: a small Conformer that looks at some seconds at a time.

A. Gulati et al., "Conformer: Convolution-augmented Transformer for Speech Recognition", Interspeech 2020. The shape of
the encoder is that of hama's phoneme recogniser (Apache-2.0), from whose weights the training begins.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from app.speech.channels import CHANNELS, CLOSURE, HOP, LABIODENTAL, REST, SPEECH
from app.speech.logmel import HALF_WINDOW, MELS, LogMel

WEIGHTS = Path(__file__).parent / "weights" / "articulation.safetensors"

STEP_ROWS = 2
"""Rows to a step: the encoder thinks at 50 Hz, and the last layer answers at 100 Hz."""

FEATURES = 288
"""What the last layer reads at each step: the encoder's middle, nearer to sound, and its end, nearer to words."""

WINDOW_ROWS = 400
"""Rows that a window yields: 4 s, so that the context computed twice costs little and memory stays small."""

_ROWS_BEFORE, _ROWS_AFTER = 100, 60
"""Context of a window: 1 s, by which noise is told from speech, and 0.6 s, for sounds are known by what follows."""

_WIDTH, _INNER, _HEADS, _BLOCKS, _KERNEL = 144, 576, 4, 4, 31
_MIDDLE = 2

_SETTLING = (1 / 12, 3 / 12, 4 / 12, 3 / 12, 1 / 12)
"""Each row's answer is averaged with its neighbours' by this (a Hann window): it mends closures that flicker for a
row."""

SETTLED = len(_SETTLING) // 2
"""Rows to either side that averaging takes."""

_PARTING_ROWS, _PARTING = 5, 9.0
"""A closure that runs into a lip at the teeth within so many rows is doubted by this many logits: most often it is an
/n/ before /f/ or /v/, as in "conference", said with the lip on its way to the teeth."""

_SPEAKING = 0.3
"""Below this value of the speech channel all others are drawn towards rest, in proportion: noise that begins or
ends at once, as at the edges of a recording, must not twitch the mouth."""


class _FeedForward(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, _INNER), nn.SiLU(), nn.Linear(_INNER, _WIDTH))


class _Attention(nn.Module):
    """Each step looks at all steps of the window. It has no notion of order: the convolutions bring that."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(_WIDTH)
        self.ask = nn.Linear(_WIDTH, 3 * _WIDTH)
        self.answer = nn.Linear(_WIDTH, _WIDTH)

    def forward(self, steps: Tensor) -> Tensor:
        asked = self.ask(self.norm(steps)).reshape(*steps.shape[:2], 3, _HEADS, -1)
        query, key, value = asked.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value)
        answered: Tensor = self.answer(seen.transpose(1, 2).flatten(2))
        return answered


class _Convolution(nn.Module):
    """Each step looks at 0.3 s to either side, each feature by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(_WIDTH)
        self.gated = nn.Linear(_WIDTH, 2 * _WIDTH)
        self.over_time = nn.Conv1d(_WIDTH, _WIDTH, _KERNEL, padding=_KERNEL // 2, groups=_WIDTH)
        self.mixed = nn.Linear(_WIDTH, _WIDTH)

    def forward(self, steps: Tensor) -> Tensor:
        gated = functional.glu(self.gated(self.norm(steps)), dim=-1)
        seen = self.over_time(gated.transpose(1, 2)).transpose(1, 2)
        mixed: Tensor = self.mixed(functional.silu(seen))
        return mixed


class _Block(nn.Module):
    """One Conformer block: half a feed-forward, attention, convolution, the other half, a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.forward_1 = _FeedForward()
        self.attention = _Attention()
        self.convolution = _Convolution()
        self.forward_2 = _FeedForward()
        self.norm = nn.LayerNorm(_WIDTH)

    def forward(self, steps: Tensor) -> Tensor:
        steps = steps + 0.5 * self.forward_1(steps)
        steps = steps + self.attention(steps)
        steps = steps + self.convolution(steps)
        normed: Tensor = self.norm(steps + 0.5 * self.forward_2(steps))
        return normed


class ArticulationNetwork(nn.Module):
    """[batch, before + (n - 1) * HOP + after] samples, n even -> [batch, n, 6] in 0..1, columns `CHANNELS`.

    Row k describes sample before + k * HOP. `before` and `after` are the samples of context that it needs. It is
    trained for n = WINDOW_ROWS.
    """

    rest: Tensor
    settling: Tensor
    parting: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.logmel = LogMel()
        self.stem = nn.Conv1d(MELS, _WIDTH, kernel_size=3, stride=STEP_ROWS, padding=1)
        self.blocks = nn.ModuleList(_Block() for _ in range(_BLOCKS))
        self.last = nn.Linear(FEATURES, STEP_ROWS * len(CHANNELS))
        self.register_buffer("rest", torch.tensor(REST.tolist()), persistent=False)
        self.register_buffer("settling", torch.tensor(_SETTLING), persistent=False)
        self.register_buffer("parting", torch.zeros(len(CHANNELS)), persistent=False)
        self.parting[CLOSURE] = _PARTING
        self.before = HALF_WINDOW + _ROWS_BEFORE * HOP
        self.after = HALF_WINDOW + _ROWS_AFTER * HOP

    def forward(self, samples: Tensor) -> Tensor:
        logits = described(self.last(self.features(self.logmel(samples))), SETTLED + _PARTING_ROWS)
        settled = logits.unfold(1, 2 * SETTLED + 1, 1) @ self.settling
        at_teeth = settled[..., LABIODENTAL].sigmoid().unfold(1, _PARTING_ROWS + 1, 1).amax(dim=-1)
        pose = torch.sigmoid(settled[:, :-_PARTING_ROWS] - self.parting * at_teeth[..., None])
        active = (pose[..., SPEECH:] / _SPEAKING).clamp(max=1.0)
        moved = self.rest + active * (pose - self.rest)
        return torch.cat([moved[..., :SPEECH], pose[..., SPEECH:]], dim=-1)

    def features(self, mel: Tensor) -> Tensor:
        """Log-mel spectra [batch, rows, MELS], context included -> [batch, steps, FEATURES]."""
        steps = functional.gelu(self.stem(mel.transpose(1, 2))).transpose(1, 2)
        middle = steps
        for number, block in enumerate(self.blocks, start=1):
            steps = block(steps)
            if number == _MIDDLE:
                middle = steps
        return torch.cat([middle, steps], dim=-1)


def described(steps: Tensor, after: int = SETTLED) -> Tensor:
    """[batch, steps, STEP_ROWS * values] -> [batch, SETTLED + n + after, values]: the rows that the window is about,
    those that averaging takes, and what is wanted after them."""
    rows = steps.reshape(len(steps), STEP_ROWS * steps.shape[1], -1)
    return rows[:, _ROWS_BEFORE - SETTLED : rows.shape[1] - _ROWS_AFTER + after]


def load_network(device: torch.device) -> ArticulationNetwork:
    """The network with the weights that the package carries (half precision, used in single), ready for use.

    Raises FileNotFoundError where they are missing and RuntimeError where they are another network's.
    """
    network = ArticulationNetwork()
    network.load_state_dict(load_file(WEIGHTS))
    return network.eval().to(device)
