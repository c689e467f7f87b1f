"""The two BlazeFace detector networks: raw scores and boxes on anchors."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from app.face.layers import BlazeBlock, DoubleBlazeBlock, SameConv2d

KEYPOINTS = 6  # right eye, left eye (the person's), nose tip, mouth, right and left ear tragion
COORDINATES = 4 + 2 * KEYPOINTS  # x, y of the centre, width, height, then the keypoints


class ShortRangeNet(nn.Module):
    """Finds faces that fill about a tenth to the whole of a 128x128 picture.

    Architecture and weights: MediaPipe ``face_detection_short_range.tflite`` (arXiv:1907.05047).
    """

    size = 128
    anchors: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv2d(3, 24, 5, stride=2)
        widths = [24, 24, 28, 32, 36, 42, 48, 56, 64, 72, 80, 88]
        halved = {2, 5}
        self.fine = nn.Sequential(
            *(BlazeBlock(a, b, 2 if i in halved else 1) for i, (a, b) in enumerate(pairwise(widths)))
        )
        self.coarse = nn.Sequential(BlazeBlock(88, 96, 2), *(BlazeBlock(96, 96) for _ in range(4)))
        self.fine_score = nn.Conv2d(88, 2, 1)
        self.coarse_score = nn.Conv2d(96, 6, 1)
        self.fine_box = nn.Conv2d(88, 2 * COORDINATES, 1)
        self.coarse_box = nn.Conv2d(96, 6 * COORDINATES, 1)
        self.register_buffer("anchors", torch.cat([_grid(16, 2), _grid(8, 6)]), persistent=False)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``[B, 3, 128, 128]`` in -1..1 to score logits ``[B, 896]`` and offsets ``[B, 896, 16]`` in pixels."""
        fine = self.fine(functional.relu(self.stem(picture)))
        coarse = self.coarse(fine)
        scores = torch.cat([_rows(self.fine_score(fine), 1), _rows(self.coarse_score(coarse), 1)], dim=1)
        boxes = torch.cat([_rows(self.fine_box(fine), COORDINATES), _rows(self.coarse_box(coarse), COORDINATES)], dim=1)
        return scores[..., 0], boxes


class FullRangeNet(nn.Module):
    """Finds faces down to about a fifteenth of a 192x192 picture.

    Architecture and weights: ``face_detection_full_range.tflite`` of MediaPipe.
    """

    size = 192
    anchors: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv2d(3, 32, 3, stride=2)
        block = DoubleBlazeBlock
        self.at_4 = nn.Sequential(
            block(32, 8, 32), block(32, 8, 32), block(32, 12, 48, 2), block(48, 12, 48), block(48, 16, 64)
        )
        self.at_8 = nn.Sequential(block(64, 24, 96, 2), block(96, 32, 128), block(128, 32, 128))
        self.at_16 = nn.Sequential(block(128, 36, 144, 2), block(144, 48, 192), block(192, 64, 256))
        self.at_32 = nn.Sequential(block(256, 96, 384, 2), *(block(384, 96, 384) for _ in range(3)))
        self.merge_16 = _Merge(384, 256, 96, blocks=2)
        self.merge_8 = _Merge(96, 128, 64, blocks=2)
        self.merge_4 = _Merge(64, 64, 48, blocks=1)
        self.score = nn.Conv2d(48, 1, 1)
        self.box = nn.Conv2d(48, COORDINATES, 1)
        self.register_buffer("anchors", _grid(48, 1), persistent=False)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``[B, 3, 192, 192]`` in -1..1 to score logits ``[B, 2304]`` and offsets ``[B, 2304, 16]`` in pixels."""
        at_4 = self.at_4(functional.relu(self.stem(picture)))
        at_8 = self.at_8(at_4)
        at_16 = self.at_16(at_8)
        merged = self.merge_16(self.at_32(at_16), at_16)
        merged = self.merge_4(self.merge_8(merged, at_8), at_4)
        return _rows(self.score(merged), 1)[..., 0], _rows(self.box(merged), COORDINATES)


class _Merge(nn.Module):
    """One step of the feature pyramid: the coarser map, doubled, plus the finer one, then some blocks."""

    def __init__(self, coarse: int, fine: int, width: int, blocks: int) -> None:
        super().__init__()
        self.from_coarse = nn.Conv2d(coarse, width, 1)
        self.from_fine = nn.Conv2d(fine, width, 1)
        self.blocks = nn.Sequential(*(DoubleBlazeBlock(width, width // 2, width) for _ in range(blocks)))

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        doubled = functional.interpolate(functional.relu(self.from_coarse(coarse)), scale_factor=2.0, mode="bilinear")
        merged: Tensor = self.blocks(functional.relu(self.from_fine(fine)) + doubled)
        return merged


def _grid(cells: int, repeats: int) -> Tensor:
    """Centres of a grid of cells as shares of the picture, row by row, each repeated: ``[cells² * repeats, 2]``."""
    centres = (torch.arange(cells) + 0.5) / cells
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2).repeat_interleave(repeats, dim=0)


def _rows(features: Tensor, width: int) -> Tensor:
    return features.permute(0, 2, 3, 1).reshape(features.shape[0], -1, width)
