"""Convolution blocks shared by the face networks, and how their weights are read."""

from __future__ import annotations

from importlib import resources

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

WEIGHTS_PACKAGE = "app.face"
WEIGHTS_FOLDER = "weights"


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's "SAME" does for inputs divisible by the stride.

    TensorFlow puts the odd pixel of padding after the image, torch's own padding puts it on both sides;
    at stride 2 the two look at different pixels.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        total = kernel - stride
        even = total // 2 if total % 2 == 0 else 0
        super().__init__(inputs, outputs, kernel, stride, padding=even, groups=groups)
        self._uneven = (total // 2, total - total // 2) if total % 2 else None

    def forward(self, image: Tensor) -> Tensor:
        """Map ``[B, inputs, H, W]`` to ``[B, outputs, H / stride, W / stride]``."""
        if self._uneven is not None:
            before, after = self._uneven
            image = functional.pad(image, (before, after, before, after))
        return super().forward(image)


def add_shortcut(change: Tensor, image: Tensor, stride: int) -> Tensor:
    """Add a block's input, max-pooled by ``stride``, to the first channels of what the block computed, in place."""
    kept = functional.max_pool2d(image, stride) if stride > 1 else image
    change[:, : kept.shape[1]] += kept
    return change


class BlazeBlock(nn.Module):
    """Depthwise 3x3, pointwise 1x1, shortcut, activation (BlazeFace, arXiv:1907.05047, figure 1)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, *, prelu: bool = False) -> None:
        super().__init__()
        self._stride = stride
        self.depthwise = SameConv2d(inputs, inputs, 3, stride, groups=inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)
        self.activation: nn.Module = nn.PReLU(outputs) if prelu else nn.ReLU()

    def forward(self, image: Tensor) -> Tensor:
        """Map ``[B, inputs, H, W]`` to ``[B, outputs, H / stride, W / stride]``."""
        change = self.pointwise(self.depthwise(image))
        activated: Tensor = self.activation(add_shortcut(change, image, self._stride))
        return activated


class DoubleBlazeBlock(nn.Module):
    """Two depthwise-pointwise pairs through a narrow middle, shortcut, ReLU (the full-range detector's block)."""

    def __init__(self, inputs: int, middle: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self._stride = stride
        self.depthwise_in = SameConv2d(inputs, inputs, 3, stride, groups=inputs)
        self.narrow = nn.Conv2d(inputs, middle, 1)
        self.depthwise_middle = SameConv2d(middle, middle, 3, groups=middle)
        self.widen = nn.Conv2d(middle, outputs, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map ``[B, inputs, H, W]`` to ``[B, outputs, H / stride, W / stride]``."""
        change = functional.relu(self.narrow(self.depthwise_in(image)))
        change = self.widen(self.depthwise_middle(change))
        return functional.relu_(add_shortcut(change, image, self._stride))


def read_weights(network: nn.Module, name: str) -> None:
    """Fill ``network`` from the packaged ``weights/<name>.safetensors`` and make it ready for inference.

    The files hold float16; the network computes in float32, as the published models do.

    Raises:
        FileNotFoundError: the package lacks the file (run ``training/convert_face_models.py``).
        RuntimeError: the file does not fit the network.
    """
    path = resources.files(WEIGHTS_PACKAGE) / WEIGHTS_FOLDER / f"{name}.safetensors"
    stored = load(path.read_bytes())
    network.load_state_dict({key: t.float() if t.is_floating_point() else t for key, t in stored.items()})
    network.eval().requires_grad_(False)
    for parameter in network.parameters():
        if parameter.ndim == 4:  # depthwise convolutions run about twice as fast so
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
