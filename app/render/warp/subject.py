"""Everything about one face that the compositor needs, made once per job."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from app.render.film import points
from app.render.film.pose import HeadPose, fit_poses
from app.render.warp.dentition import drawn_plate, enamel, lower_plate
from app.render.warp.eyewear import has_glasses, inside_eyes
from app.render.warp.lighting import read_light
from app.render.warp.rest import RestFace, lip_gaps, rest_face
from app.render.warp.teeth import LONGEST, SHORTEST, Plate, own_plate
from app.render.warp.teeth_build import build_of

_TEETH_BEHIND = 0.05  # teeth lie this far behind the edge of the lips, in units


@dataclass(frozen=True)
class Subject:
    """A face over the T frames of its source (1 for a portrait): `pixels` [T, COUNT, 3], `poses`, `rest`."""

    pixels: Tensor
    poses: HeadPose
    rest: RestFace

    def to(self, device: torch.device) -> Subject:
        """The same on another device."""
        return Subject(self.pixels.to(device), self.poses.to(device), self.rest.to(device))

    @property
    def teeth_depth(self) -> float:
        """w of the plane in which the teeth lie."""
        return float(self.rest.shape[list(points.INNER_UPPER), 2][4:7].mean()) + _TEETH_BEHIND


def read_subject(pixels: Tensor, present: Tensor) -> Subject:
    """The face of a track: pixels [T, COUNT, 3], present [T] bool with at least one true."""
    poses = fit_poses(pixels, present)
    return Subject(pixels, poses, rest_face(poses.to_head(pixels), present))


class TeethPlane:
    """Takes places in a frame, in units from the head's origin, to (u, v) on the plane of the teeth, and back."""

    def __init__(self, pose: HeadPose, depth: float) -> None:
        flat = pose.flat()
        # A face in full profile would make this singular; the mesh itself gives out long before.
        self._inverse = torch.linalg.inv(flat + 1e-3 * torch.eye(2, device=flat.device))
        self._flat = flat
        self._shift = pose.rotation[:, :2, 2] * depth

    def to_plane(self, places: Tensor) -> Tensor:
        """[B, H, W, 2] units to head coordinates."""
        plane: Tensor = (places - self._shift[:, None, None]) @ self._inverse.mT[:, None]
        return plane


def teeth_plate(subject: Subject, frame: Tensor, index: int) -> Plate:
    """The person's upper teeth from frame `index` of the source, `frame` [H, W, 3] uint8, or drawn ones; the lower
    ones are always drawn."""
    picture = frame.permute(2, 0, 1).float()
    pose = subject.poses.at(torch.tensor([index]))
    scale = float(pose.scale[0])
    pixels = subject.pixels[index : index + 1, :, :2]
    light = read_light(picture[None], pixels, pose.scale)
    plane = TeethPlane(pose, subject.teeth_depth)

    def flattened(places: Tensor) -> Tensor:
        return plane.to_plane(((places - pose.origin[:, None, :2]) / pose.scale[:, None, None])[:, None])[0, 0]

    seen = flattened(pixels)
    origin = pose.origin[0, :2] + pose.rotation[0, :2, 2] * subject.teeth_depth * scale
    upper, lower = seen[list(points.INNER_UPPER)], seen[list(points.INNER_LOWER)]
    plate = own_plate(picture, upper, lower, pose.flat()[0], origin, scale, light.skin[0])
    # Eyes behind glasses are dark in any light.
    worn = has_glasses(picture, pose, subject.rest.seen)
    dim = 1.0 if worn else _dimness(picture, pixels[0], light.skin[0])
    build, largest = build_of(subject.rest.shape, dim), float(subject.poses.scale.max())
    if plate is None:
        rest = flattened(pose.to_pixels(subject.rest.shape)[:, :, :2])
        plate = drawn_plate(rest[list(points.INNER_UPPER)], largest, light.skin[0], dim, build)
    plate = replace(plate, dim=dim)
    return replace(plate, lower=lower_plate(plate, largest, build))


_AS_EYES = 1.25  # teeth are at most so much brighter than the whites of the eyes
_DIMMEST = 0.35


def _dimness(picture: Tensor, pixels: Tensor, skin: Tensor) -> float:
    """What teeth drawn for skin of that colour must be darkened by, from the whites of the eyes: these tell dim light
    from dark skin. picture: [3, H, W]; pixels: [COUNT, 2]."""
    white = float(inside_eyes(picture, pixels).quantile(0.95))
    return min(1.0, max(_DIMMEST, _AS_EYES * white / float(enamel(skin).mean())))


_LOOKED_AT = 100  # frames in which teeth are searched: four seconds of a template say enough, and must be decoded
_GOOD_ENOUGH = 0.9  # of the best frame's score: an earlier frame is cheaper to decode


def best_teeth_frame(subject: Subject, present: Tensor) -> int:
    """The number of the frame that should show the upper teeth best: lips well parted, face turned to the camera."""
    head = subject.poses.to_head(subject.pixels)
    facing = subject.poses.rotation[:, 2, 2].clamp_min(0)
    score = lip_gaps(head).clamp_max(LONGEST) * facing.pow(4)
    score = score.masked_fill(~present, -1.0)[:_LOOKED_AT]
    if float(score.max()) < SHORTEST:
        return int(present.nonzero()[0, 0])
    return int((score >= score.max() * _GOOD_ENOUGH).nonzero()[0, 0])
