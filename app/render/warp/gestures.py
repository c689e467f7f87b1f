"""What frames of a portrait do besides speaking."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gestures:
    """Of B frames: `lids` [B] 0 open .. 1 shut, `moves` [B, 7] (`life`), `gaze` [B, 2] radians that the eyes are turned
    to the picture's right and down from where they look in the photo."""

    lids: Tensor
    moves: Tensor
    gaze: Tensor

    def at(self, frames: Tensor, device: torch.device) -> Gestures:
        """The gestures of the frames `frames` [N], on a device."""
        return Gestures(*(value[frames].to(device) for value in (self.lids, self.moves, self.gaze)))

    def part(self, frames: slice) -> Gestures:
        """The gestures of some of the frames."""
        return Gestures(self.lids[frames], self.moves[frames], self.gaze[frames])
