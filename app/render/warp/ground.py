"""What frames are painted on: the part of the source that may change, its lattice, its light, its movements."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from app.render.film.pose import HeadPose
from app.render.film.region import Region
from app.render.warp.eyeballs import Eyeballs, find_eyeballs
from app.render.warp.eyewear import has_glasses
from app.render.warp.folds import Folds, find_folds
from app.render.warp.head_motion import HeadMotion
from app.render.warp.lattice import Lattice
from app.render.warp.life import BROWS
from app.render.warp.lighting import Light, read_light
from app.render.warp.mask import LowerFaceMask
from app.render.warp.subject import Subject, TeethPlane


@dataclass(frozen=True)
class Ground:
    """`source` [B or 1, 3, h, w] 0..255 in the boxes of `region`, `lattice` over it, its light, and for portraits that
    move the fields of unit movements [7, rows, columns, 2] at the knots (`life`). Of stills also the skin's `folds`,
    and of those that move the `eyes`."""

    region: Region
    source: Tensor
    lattice: Lattice
    light: Light
    movements: Tensor | None = None
    folds: Folds | None = None
    eyes: Eyeballs | None = None


def ground_of(region: Region, patches: Tensor, pixels: Tensor, pose: HeadPose) -> Ground:
    """For patches [B, h, w, 3] uint8 cut from frames whose points are `pixels` [B, COUNT, 3]; on the points' device."""
    device = pixels.device
    source = patches.to(device).permute(0, 3, 1, 2).float()
    corner = torch.stack([region.left, region.top], 1).to(device, torch.float32)
    lattice = Lattice(region, (corner - pose.origin[:, :2]) / pose.scale[:, None], pose.scale)
    return Ground(region, source, lattice, read_light(source, pixels[..., :2] - corner[:, None], pose.scale))


def ground_of_still(still: Tensor, subject: Subject, mask: LowerFaceMask, *, moving: bool) -> Ground:
    """For every frame of a picture [H, W, 3] uint8: its lower face, or all that goes with a `moving` head."""
    pose, (height, width) = subject.poses, still.shape[:2]
    head = HeadMotion(pose, subject.rest.seen, width, height)
    region = head.region() if moving else mask.region(pose, width, height)
    patch = region.cut(still[None], torch.zeros(1, dtype=torch.long))
    ground = ground_of(region, patch, subject.pixels, pose)
    ground = replace(ground, folds=_folds_of(ground, subject, mask))
    if not moving:
        return ground
    movements = head.fields(ground.lattice.knots[0])
    if has_glasses(planes(still, movements.device), pose, subject.rest.seen):
        movements[BROWS] = 0  # the rims would bend
    eyes = find_eyeballs(pose, subject.pixels[0], region, ground.lattice)
    return replace(ground, movements=movements, eyes=eyes)


def _folds_of(ground: Ground, subject: Subject, mask: LowerFaceMask) -> Folds:
    pose, lattice = subject.poses, ground.lattice
    places = lattice.dense(lattice.knots)
    allowed = mask.weight(*TeethPlane(pose, 0.0).to_plane(places)[0].unbind(-1))
    points_at = (subject.pixels[0, :, :2] - pose.origin[0, :2]) / pose.scale[0]
    return find_folds(ground.source, places[0], allowed, points_at, float(pose.scale[0]), subject.rest.gap)


def planes(picture: Tensor, device: torch.device) -> Tensor:
    """A picture [H, W, 3] uint8 as [3, H, W] float32."""
    return picture.to(device).permute(2, 0, 1).float()
