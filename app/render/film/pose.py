"""Where the head is in every frame: a scaled rotation from head coordinates to pixels.

Head coordinates: the origin lies between the mouth's corners, u points to the right of an unmirrored picture, v down,
w away from the camera when the face looks at it; the unit is the distance of the outer eye corners (about 9 cm), so
that lengths given in it fit faces of any size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from app.render.film import points


@dataclass(frozen=True)
class HeadPose:
    """`pixel = scale * rotation @ head + origin` for T frames.

    `rotation` [T, 3, 3], `scale` [T] in pixels per unit, `origin` [T, 3] in pixels (the third is depth), float32.
    """

    rotation: Tensor
    scale: Tensor
    origin: Tensor

    def __len__(self) -> int:
        return len(self.scale)

    def at(self, index: Tensor) -> HeadPose:
        """The poses of the frames `index` [B]."""
        return HeadPose(self.rotation[index], self.scale[index], self.origin[index])

    def part(self, frames: slice) -> HeadPose:
        """The poses of consecutive frames."""
        return HeadPose(self.rotation[frames], self.scale[frames], self.origin[frames])

    def to(self, device: torch.device) -> HeadPose:
        """The same poses on another device."""
        return HeadPose(self.rotation.to(device), self.scale.to(device), self.origin.to(device))

    def to_head(self, pixels: Tensor) -> Tensor:
        """Points [T, N, 3] in pixels as head coordinates."""
        return (pixels - self.origin[:, None]) @ self.rotation / self.scale[:, None, None]

    def to_pixels(self, head: Tensor) -> Tensor:
        """Points [T, N, 3] or [N, 3] in head coordinates as pixels with depth."""
        return head @ self.rotation.mT * self.scale[:, None, None] + self.origin[:, None]

    def flat(self) -> Tensor:
        """[T, 2, 2]: how a step in the head's (u, v) plane shows in the picture, in units of `scale` pixels."""
        return self.rotation[:, :2, :2]


def fit_poses(pixels: Tensor, present: Tensor) -> HeadPose:
    """Poses of T frames from the points that speech does not move.

    pixels: [T, COUNT, 3]; present: [T] bool, at least one true. The frame that faces the camera most gives axes and
    unit; the others are fitted to it, then all to their mean shape, by least squares (Umeyama, PAMI 1991).
    """
    exact = pixels.double()
    own = _own_poses(exact)
    sideways = own.rotation[:, 2, :2].abs().sum(1).masked_fill(~present, torch.inf)
    frontal = int(sideways.argmin())
    fixed = list(points.FIXED)
    reference = own.at(torch.tensor([frontal])).to_head(exact[frontal : frontal + 1])[0]
    if len(exact) == 1:
        return _single(own)
    poses = _fit(exact[:, fixed], reference[fixed])
    for _ in range(2):
        mean = poses.to_head(exact)[present].mean(0)
        poses = _fit(exact[:, fixed], mean[fixed])
    return _single(poses)


def _single(pose: HeadPose) -> HeadPose:
    return HeadPose(pose.rotation.float(), pose.scale.float(), pose.origin.float())


def _own_poses(pixels: Tensor) -> HeadPose:
    """Poses from each frame's own eyes and mouth alone."""
    eyes = pixels[:, list(points.OUTER_EYES)]
    across = eyes[:, 1] - eyes[:, 0]
    scale = across.norm(dim=1).clamp_min(1e-6)
    origin = pixels[:, list(points.CORNERS)].mean(1)
    right = across / scale[:, None]
    down = origin - pixels[:, list(points.EYE_CORNERS)].mean(1)
    down = down - (down * right).sum(1, keepdim=True) * right
    down = down / down.norm(dim=1, keepdim=True).clamp_min(1e-6)
    return HeadPose(torch.stack([right, down, torch.linalg.cross(right, down)], dim=2), scale, origin)


def _fit(pixels: Tensor, shape: Tensor) -> HeadPose:
    """Least-squares similarity that takes `shape` [N, 3] to `pixels` [T, N, 3]."""
    centre, middle = pixels.mean(1), shape.mean(0)
    spread = shape - middle
    covariance = (pixels - centre[:, None]).mT @ spread / len(shape)
    left, values, right = torch.linalg.svd(covariance)
    sign = torch.ones_like(values)
    sign[:, 2] = torch.det(left @ right).sign()
    rotation = (left * sign[:, None]) @ right
    scale = (values * sign).sum(1) / spread.square().sum(1).mean().clamp_min(1e-12)
    scale = scale.clamp_min(1e-6)
    return HeadPose(rotation, scale, centre - scale[:, None] * (rotation @ middle))
