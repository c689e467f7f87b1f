"""Blocks of the generator as one call each on an x86 CPU: the ReLU happens while oneDNN writes the convolution.

Apart, it passes over the whole picture once more, which costs half as much as a convolution in bfloat16. The calls are
those that torch's own compiler emits; the compiler itself would need a C++ toolchain at run time.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import Tensor, nn

_CALLS = ("_convolution_pointwise", "_convolution_transpose_pointwise", "_reorder_convolution_transpose_weight")
_RELU: tuple[Any, ...] = ("relu", [], "")


def can_fuse(device: torch.device) -> bool:
    """Whether this torch has the calls for `device`; without them blocks do the same step by step."""
    if device.type != "cpu" or platform.machine() not in ("x86_64", "AMD64"):
        return False
    built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return built and all(hasattr(torch.ops.mkldnn, name) for name in _CALLS)


class FusedBlock(nn.Module):
    """relu(convolution(x)), inference only."""

    def __init__(self, convolution: nn.Conv2d | nn.ConvTranspose2d) -> None:
        super().__init__()
        around = [convolution.padding]
        if isinstance(convolution, nn.ConvTranspose2d):
            around.append(convolution.output_padding)
        self._geometry = [*map(list, around), list(convolution.stride), list(convolution.dilation), convolution.groups]
        weight = convolution.weight.detach()
        self._call = torch.ops.mkldnn._convolution_pointwise
        if isinstance(convolution, nn.ConvTranspose2d):
            self._call = torch.ops.mkldnn._convolution_transpose_pointwise
            # Laid out as oneDNN wants them, once: it takes as long as half a batch. Weights of plain convolutions are
            # laid out by the way; the layout kept for one size of batch can be a hundred times slower for another.
            weight = torch.ops.mkldnn._reorder_convolution_transpose_weight(weight, *self._geometry, None)
        self._weight, self._bias = weight, convolution.bias

    def forward(self, x: Tensor) -> Tensor:
        """`[B, in, H, W]` to `[B, out, H', W']`."""
        made: Tensor = self._call(x, self._weight, self._bias, *self._geometry, *_RELU)
        return made
