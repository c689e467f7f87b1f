"""Regions of interest: squares turned so that a face in them stands upright.

A region is a row ``(x, y, side, angle)``: centre and side in pixels of the frame, angle in radians, clockwise as seen.
Coordinates count pixels from the centre of the top left one, as OpenCV and MediaPipe do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

REGION_MARGIN = 1.5  # side over the longer side of the face's box: what the mesh network was trained on
LEFT_CORNER, RIGHT_CORNER = 33, 263  # outer eye corners in the mesh; the line through them is made level
_EDGE = 2  # pixels kept around the cut, so that interpolation at its border sees real neighbours


def from_detections(boxes: Tensor) -> Tensor:
    """Regions ``[K, 4]`` of detections ``[K, 9+]`` (left, top, right, bottom, score, right eye, left eye, ...)."""
    eyes = boxes[:, 7:9] - boxes[:, 5:7]
    return _regions(boxes[:, 0:2], boxes[:, 2:4], eyes)


def from_landmarks(landmarks: Tensor, corners: Sequence[int] = (LEFT_CORNER, RIGHT_CORNER)) -> Tensor:
    """Regions ``[B, 4]`` for the next look at faces whose points ``[B, 478, 3]`` are known.

    Of a selection of points that has the face's outline in it, ``corners`` are the places of the outer eye corners.
    """
    flat = landmarks[:, :, :2]
    return _regions(flat.amin(dim=1), flat.amax(dim=1), flat[:, corners[1]] - flat[:, corners[0]])


def _regions(low: Tensor, high: Tensor, eyes: Tensor) -> Tensor:
    centre = (low + high) / 2
    side = REGION_MARGIN * (high - low).amax(dim=1)
    angle = torch.atan2(eyes[:, 1], eyes[:, 0])
    return torch.cat([centre, side.unsqueeze(1), angle.unsqueeze(1)], dim=1)


def crop(frames: Tensor | Sequence[Tensor], regions: Tensor, size: int) -> Tensor:
    """Cut each frame's region out as an upright square.

    Regions much larger than ``size`` are first shrunk by averaging, so that no fine detail aliases. Outside the frame
    its border pixels repeat.

    Args:
        frames: ``[B, H, W, 3]`` uint8, or B frames one by one.
        regions: ``[B, 4]`` float32, on the frames' device.
        size: side of the result in pixels.

    Returns:
        ``[B, 3, size, size]`` float32 in 0..1.
    """
    # One frame after another: its part then stays in the processor's cache, and is no larger than its own face asks.
    crops = torch.empty((len(frames), 3, size, size), device=regions.device, memory_format=torch.channels_last)
    for number, (x, y, side, angle) in enumerate(regions.tolist()):
        crops[number] = _cut(frames[number], (x, y), side, angle, size)
    return crops.div_(255)


def _cut(frame: Tensor, centre: tuple[float, float], side: float, angle: float, size: int) -> Tensor:
    """One region of one frame ``[H, W, 3]`` uint8 as ``[3, size, size]`` float32 in 0..255."""
    height, width = frame.shape[:2]
    cosine, sine = math.cos(angle), math.sin(angle)
    reach = side / 2 * (abs(cosine) + abs(sine)) + _EDGE
    left, right = _span(centre[0] - reach, centre[0] + reach, width)
    top, bottom = _span(centre[1] - reach, centre[1] + reach, height)
    picture = frame[top:bottom, left:right].permute(2, 0, 1).unsqueeze(0).float()
    shrink = min(max(1, int(side / size)), right - left, bottom - top)
    if shrink > 1:
        picture = functional.avg_pool2d(picture, shrink, ceil_mode=True, count_include_pad=False)

    def normalised(position: float, start: int, pixels: int) -> tuple[float, float]:
        """Half the region's side and a position, where the shrunk cut reaches from -1 to 1."""
        unit = shrink * max(pixels - 1, 1) / 2
        return side / 2 / unit, (position - start - (shrink - 1) / 2) / unit - 1

    # Samples lie on the upper left corners of the crop's pixels, as in MediaPipe: half a step before their centres.
    x, y = (c - side / 2 / size * f for c, f in zip(centre, (cosine - sine, sine + cosine), strict=True))
    half_x, x = normalised(x, left, picture.shape[3])
    half_y, y = normalised(y, top, picture.shape[2])
    matrix = [[half_x * cosine, -half_x * sine, x], [half_y * sine, half_y * cosine, y]]
    theta = torch.tensor([matrix], device=frame.device)
    grid = functional.affine_grid(theta, [1, 3, size, size], align_corners=False)
    return functional.grid_sample(picture, grid, padding_mode="border", align_corners=True)[0]


def to_frame(points: Tensor, regions: Tensor, size: int) -> Tensor:
    """Take points ``[B, N, 3]`` in pixels of a crop of side ``size`` to pixels of the frame, depth scaled alike."""
    scale = (regions[:, 2] / size).reshape(-1, 1, 1)
    flat = (points[..., :2] - size / 2) * scale
    flat = flat @ _turn(regions[:, 3]).mT + regions[:, None, :2]
    return torch.cat([flat, points[..., 2:] * scale], dim=2)


def _turn(angle: Tensor) -> Tensor:
    """Rotation matrices ``[B, 2, 2]``."""
    cosine, sine = torch.cos(angle), torch.sin(angle)
    return torch.stack([cosine, -sine, sine, cosine], dim=1).reshape(-1, 2, 2)


def _span(low: float, high: float, length: int) -> tuple[int, int]:
    """The part of ``low..high`` inside ``0..length``, at least one pixel long."""
    start = min(max(math.floor(low), 0), length - 1)
    return start, max(min(math.ceil(high) + 1, length), start + 1)
