"""Checkpoints with random weights under the published names, and the published network written out once more.

Layers, shapes and names: models/wav2lip.py of Rudrabha/Wav2Lip, as a table. Nothing here comes from the code under
test, so that the two can be held against each other.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Layer:
    """One block: a convolution `before` -> `after` and its normalisation; `up` marks a transposed one."""

    name: str
    before: int
    after: int
    kernel: int = 3
    stride: int | tuple[int, int] = 1
    padding: int = 1
    residual: bool = False
    up: bool = False
    output_padding: int = 0


def _same(name: str, width: int) -> Layer:
    return Layer(name, width, width, residual=True)


def _stage(name: str, before: int, after: int, more: int, **entry: Any) -> list[Layer]:
    return [Layer(f"{name}.0", before, after, **entry), *(_same(f"{name}.{n + 1}", after) for n in range(more))]


_F, _D, _A = "face_encoder_blocks", "face_decoder_blocks", "audio_encoder"
_DOUBLE = {"stride": 2, "up": True, "output_padding": 1}

FACE: list[list[Layer]] = [
    _stage(f"{_F}.0", 6, 16, 0, kernel=7, padding=3),
    _stage(f"{_F}.1", 16, 32, 2, stride=2),
    _stage(f"{_F}.2", 32, 64, 3, stride=2),
    _stage(f"{_F}.3", 64, 128, 2, stride=2),
    _stage(f"{_F}.4", 128, 256, 2, stride=2),
    _stage(f"{_F}.5", 256, 512, 1, stride=2),
    [Layer(f"{_F}.6.0", 512, 512, padding=0), Layer(f"{_F}.6.1", 512, 512, kernel=1, padding=0)],
]
SPEECH: list[Layer] = [
    Layer(f"{_A}.0", 1, 32),
    *(_same(f"{_A}.{n}", 32) for n in (1, 2)),
    Layer(f"{_A}.3", 32, 64, stride=(3, 1)),
    *(_same(f"{_A}.{n}", 64) for n in (4, 5)),
    Layer(f"{_A}.6", 64, 128, stride=3),
    *(_same(f"{_A}.{n}", 128) for n in (7, 8)),
    Layer(f"{_A}.9", 128, 256, stride=(3, 2)),
    _same(f"{_A}.10", 256),
    Layer(f"{_A}.11", 256, 512, padding=0),
    Layer(f"{_A}.12", 512, 512, kernel=1, padding=0),
]
DECODER: list[list[Layer]] = [
    [Layer(f"{_D}.0.0", 512, 512, kernel=1, padding=0)],
    _stage(f"{_D}.1", 1024, 512, 1, up=True, padding=0),
    _stage(f"{_D}.2", 1024, 512, 2, **_DOUBLE),
    _stage(f"{_D}.3", 768, 384, 2, **_DOUBLE),
    _stage(f"{_D}.4", 512, 256, 2, **_DOUBLE),
    _stage(f"{_D}.5", 320, 128, 2, **_DOUBLE),
    _stage(f"{_D}.6", 160, 64, 2, **_DOUBLE),
]
OUTPUT = Layer("output_block.0", 80, 32)
_LAST = "output_block.1"


def published_weights(seed: int = 0) -> dict[str, Tensor]:
    """A state_dict of the published generator with random weights, and statistics as if it had been trained."""
    random = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}
    for layer in (*chain(*FACE), *SPEECH, *chain(*DECODER), OUTPUT):
        before, after, kernel = layer.before, layer.after, layer.kernel
        shape = (before, after, kernel, kernel) if layer.up else (after, before, kernel, kernel)
        name = f"{layer.name}.conv_block"
        weights[f"{name}.0.weight"] = torch.randn(shape, generator=random) * (2 / (before * kernel**2)) ** 0.5
        weights[f"{name}.0.bias"] = torch.randn(after, generator=random) * 0.1
        weights[f"{name}.1.weight"] = torch.rand(after, generator=random) + 0.5
        weights[f"{name}.1.bias"] = torch.randn(after, generator=random) * 0.1
        weights[f"{name}.1.running_mean"] = torch.randn(after, generator=random) * 0.1
        weights[f"{name}.1.running_var"] = torch.rand(after, generator=random) * 2 + 1.0
        weights[f"{name}.1.num_batches_tracked"] = torch.tensor(1000)
    weights[f"{_LAST}.weight"] = torch.randn(3, 32, 1, 1, generator=random) * 0.5
    weights[f"{_LAST}.bias"] = torch.randn(3, generator=random) * 0.1
    return weights


def published_forward(weights: dict[str, Tensor], mel: Tensor, face: Tensor) -> Tensor:
    """What the published network makes of mel `[B, 1, 80, 16]` and face `[B, 6, 96, 96]`, in double precision."""
    seen, x = [], face.double()
    for stage in FACE:
        for layer in stage:
            x = _block(weights, layer, x)
        seen.append(x)
    x = mel.double()
    for layer in SPEECH:
        x = _block(weights, layer, x)
    for stage in DECODER:
        for layer in stage:
            x = _block(weights, layer, x)
        x = torch.cat([x, seen.pop()], dim=1)
    x = _block(weights, OUTPUT, x)
    return functional.conv2d(x, weights[f"{_LAST}.weight"].double(), weights[f"{_LAST}.bias"].double()).sigmoid()


def _block(weights: dict[str, Tensor], layer: Layer, x: Tensor) -> Tensor:
    convolution, norm = (
        {key: weights[f"{layer.name}.conv_block.{n}.{key}"].double() for key in keys}
        for n, keys in ((0, ("weight", "bias")), (1, ("weight", "bias", "running_mean", "running_var")))
    )
    if layer.up:
        out = functional.conv_transpose2d(
            x, convolution["weight"], convolution["bias"], layer.stride, layer.padding, layer.output_padding
        )
    else:
        out = functional.conv2d(x, convolution["weight"], convolution["bias"], layer.stride, layer.padding)
    out = functional.batch_norm(out, norm["running_mean"], norm["running_var"], norm["weight"], norm["bias"])
    return (out + x if layer.residual else out).relu()


SMALL: dict[str, Any] = {
    "crop": 64,
    "columns": 8,
    "low": -1.0,
    "colours": "rgb",
    "speech": [{"width": 4}, {"width": 8, "stride": [3, 2], "residual": 1}, {"width": 16, "residual": 0}],
    "face": [[4], [8, 8], [8], [16]],
    "decoder": [[16], [16, 16], [8], [8]],
    "output": 8,
}
"""A generator that is not the published one: other crop, window, range, colours, depth and widths; and quick."""


def save_small(path: Path, seed: int = 0, **changes: Any) -> Path:
    """A checkpoint of `SMALL` with random weights, and its profile beside it."""
    from app.render.wav2lip.network import Generator
    from app.render.wav2lip.profile import profile_path, read_profile

    profile_path(path).write_text(json.dumps(SMALL | changes))
    torch.manual_seed(seed)
    network = Generator(read_profile(path))
    for name, weight in network.named_parameters():
        if weight.ndim == 4:  # so that what is heard and seen is still there at the other end
            torch.nn.init.kaiming_normal_(weight, mode="fan_out" if "face_decoder" in name else "fan_in")
    with torch.no_grad():
        network.audio_encoder[-1].conv_block[0].weight.mul_(20)  # else the face, seen at every size, drowns the speech
    torch.save({"state_dict": network.state_dict()}, path)
    return path
