"""Boxes of one size in a batch of frames: what is cut out of them, and pasted back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Region:
    """Boxes of one size in B frames: `left`, `top` [B] int, `width`, `height`."""

    left: Tensor
    top: Tensor
    width: int
    height: int

    def part(self, frames: slice) -> Region:
        """The boxes of some of the frames."""
        return Region(self.left[frames], self.top[frames], self.width, self.height)

    def expand(self, frames: int) -> Region:
        """One box for so many frames."""
        return Region(self.left.expand(frames), self.top.expand(frames), self.width, self.height)

    def cut(self, frames: Tensor, rows: Tensor) -> Tensor:
        """[N, height, width, 3] out of the frames `rows` [N] of [B, H, W, 3]."""
        return torch.stack([frames[n, y : y + self.height, x : x + self.width] for n, x, y in self._boxes(rows)])

    def paste(self, frames: Tensor, rows: Tensor, patches: Tensor) -> None:
        """Write patches [N, height, width, 3] into the frames `rows` [N] of [B, H, W, 3]."""
        for (n, x, y), patch in zip(self._boxes(rows), patches, strict=True):
            frames[n, y : y + self.height, x : x + self.width] = patch

    def _boxes(self, rows: Tensor) -> list[tuple[int, int, int]]:
        return list(zip(rows.tolist(), self.left.tolist(), self.top.tolist(), strict=True))
