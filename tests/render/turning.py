"""Templates in which a photographed head turns and the light changes: what happens in each frame is known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.face.analyser import FaceAnalyser
from app.face.topology import FACE_OVAL
from app.media.encode import VideoWriter

Picture = npt.NDArray[np.uint8]


class TurningHead:
    """A photo [H, W, 3] whose face is turned about the vertical axis by the mesh's depth; hair and wall yield."""

    def __init__(self, picture: Tensor) -> None:
        self._picture = picture.numpy()
        height, width = picture.shape[:2]
        mesh = FaceAnalyser(torch.device("cpu")).portrait(picture).landmarks[0][:468].astype(np.float64)
        oval = mesh[list(FACE_OVAL)]
        self._axis = oval[:, 0].mean()
        self._behind = oval[:, 2].max()
        x, y = np.linspace(0, width - 1, 6), np.linspace(0, height - 1, 6)
        border = [(a, b) for a in x for b in (0, height - 1)] + [(a, b) for a in (0, width - 1) for b in y[1:-1]]
        still = np.array([(a, b, np.nan) for a, b in border])
        self._points = np.concatenate([mesh, still])
        self._triangles = self._triangulated(width, height)

    def at(self, degrees: float) -> Picture:
        """The picture with the face turned to the right of the picture by so much, to the left if negative."""
        angle = np.radians(degrees)
        depth = self._points[:, 2] - self._behind
        free = np.isnan(depth)
        moved = self._points[:, :2].copy()
        turned = self._axis + (moved[:, 0] - self._axis) * np.cos(angle) - depth * np.sin(angle)
        moved[:, 0] = np.where(free, moved[:, 0], turned)
        nearness = np.where(free, 0.0, -depth * np.cos(angle) - (self._points[:, 0] - self._axis) * np.sin(angle))
        out = self._picture.copy()
        for triangle in sorted(self._triangles, key=lambda three: nearness[list(three)].mean()):
            corners = list(triangle)
            _paint(out, self._picture, self._points[corners, :2], moved[corners])
        return out

    def _triangulated(self, width: int, height: int) -> list[tuple[int, int, int]]:
        division = cv2.Subdiv2D((-1, -1, width + 2, height + 2))
        numbers: dict[tuple[float, float], int] = {}
        for number, (x, y) in enumerate(self._points[:, :2].astype(np.float32)):
            numbers[float(x), float(y)] = number
            division.insert((float(x), float(y)))
        found = []
        for a, b, c, d, e, f in division.getTriangleList().tolist():
            corners = tuple(numbers.get(place, -1) for place in ((a, b), (c, d), (e, f)))
            if min(corners) >= 0:
                found.append(corners)
        return found


def _paint(out: Picture, picture: Picture, source: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> None:
    """One triangle of the picture where it goes, unless it faces away."""
    (ax, ay), (bx, by) = target[1] - target[0], target[2] - target[0]
    (cx, cy), (dx, dy) = source[1] - source[0], source[2] - source[0]
    if (ax * by - ay * bx) * (cx * dy - cy * dx) <= 0:
        return
    height, width = out.shape[:2]
    left, top = np.maximum(np.floor(target.min(0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(target.max(0)).astype(int) + 2, (width, height))
    if right <= left or bottom <= top:
        return
    corner = np.array([left, top])
    matrix = cv2.getAffineTransform(source.astype(np.float32), (target - corner).astype(np.float32))
    size = (int(right - left), int(bottom - top))
    patch = cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = np.zeros(size[::-1], np.uint8)
    cv2.fillConvexPoly(inside, np.round(target - corner).astype(np.int32), 1)
    out[top:bottom, left:right][inside > 0] = patch[inside > 0]


def lit(picture: Picture, gain: float, slope: float) -> Picture:
    """The picture in light that is `gain` times as strong in the middle and `slope` stronger towards the right edge."""
    across = np.linspace(-1, 1, picture.shape[1])[None, :, None]
    return np.clip(picture * (gain * (1 + slope * across)), 0, 255).round().astype(np.uint8)


def write_frames(path: Path, frames: list[Picture], rate: float = 25.0) -> Path:
    """A template of these frames."""
    height, width = frames[0].shape[:2]
    with VideoWriter(path, width, height, rate, None, crf=10) as writer:
        writer.write(np.stack(frames))
    return path
