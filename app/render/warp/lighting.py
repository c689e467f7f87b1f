"""The light on the lower face, read from the skin beside the mouth."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from app.render.film import points

_PALE_SPREAD = 0.25  # of pale skin: strongest less weakest channel, over brightness
_PATCH = 0.10  # side of the patch averaged around each point, in units


@dataclass(frozen=True)
class Light:
    """Colour of the skin [B, 3] (0..255) and how much brighter its left side in the picture is than its right one
    (`slope` [B]: relative change per unit of u, within ±0.6)."""

    skin: Tensor
    slope: Tensor

    @property
    def colourful(self) -> Tensor:
        """How much colour the picture has, [B] 0..1: 0 for a black-and-white one, 1 from pale skin on."""
        return colourfulness(self.skin)

    def expand(self, frames: int) -> Light:
        """The light of a still source for each of so many frames."""
        return Light(self.skin.expand(frames, -1), self.slope.expand(frames))


def colourfulness(skin: Tensor) -> Tensor:
    """How much colour a picture with skin of colour [.., 3] has, 0..1."""
    spread = (skin.amax(-1) - skin.amin(-1)) / skin.mean(-1).clamp_min(1.0)
    return (spread / _PALE_SPREAD).clamp(0, 1)


def read_light(region: Tensor, pixels: Tensor, scale: Tensor) -> Light:
    """Light of B frames.

    region: [B, 3, H, W] 0..255; pixels: [B, COUNT, 2] points in pixels of the region; scale: [B] pixels per unit.
    """
    size = max(1, int(float(scale.mean()) * _PATCH))
    group = [*points.CHEEK_RIGHT, *points.CHEEK_LEFT]
    if len(region) < len(pixels):  # a still source: its points are the same in every frame
        pixels, scale = pixels[: len(region)], scale[: len(region)]
    smooth = functional.avg_pool2d(region, size, max(1, size // 2), ceil_mode=True, count_include_pad=False)
    extent = pixels.new_tensor([region.shape[3] - 1, region.shape[2] - 1]).clamp_min(1)
    grid = (pixels[:, group] / extent * 2 - 1)[:, None]
    sampled = functional.grid_sample(smooth, grid, padding_mode="border", align_corners=True)[:, :, 0]
    half = len(points.CHEEK_RIGHT)
    right, left = sampled[..., :half].mean(2), sampled[..., half:].mean(2)
    skin = (right + left) / 2
    distance = (pixels[:, list(points.CHEEK_LEFT)] - pixels[:, list(points.CHEEK_RIGHT)]).norm(dim=2).mean(1) / scale
    slope = (left.mean(1) - right.mean(1)) / skin.mean(1).clamp_min(1) / distance.clamp_min(0.2)
    return Light(skin, slope.clamp(-0.6, 0.6))
