"""How far the lips of a finished video are apart, by the face mesh, in frames that are shown one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.face import roi, topology
from app.face.analyser import PRESENCE_THRESHOLD, FaceAnalyser

BATCH = 8
"""Frames looked at together; they lie in memory in colour."""

_UPPER, _LOWER = 13, 14  # the middle of the lips' inner contours
_EYES = (topology.RIGHT_EYE_CORNERS[0], topology.LEFT_EYE_CORNERS[0])
_MOVED = 0.12  # of the region's side: beyond it a face is looked at again in a region of its own


@dataclass(frozen=True)
class LipReading:
    """Of n frames: `openings` [n] in distances of the outer eye corners, `present` [n] whether the face was seen, and
    `mesh` [478, 2] in pixels of the first frame that shows it (None: none does)."""

    openings: npt.NDArray[np.float64]
    present: npt.NDArray[np.bool_]
    mesh: npt.NDArray[np.float32] | None


class LipReader:
    """Follows one face through frames that may lie far apart: the nearest to `near`, or the largest."""

    def __init__(self, analyser: FaceAnalyser, near: tuple[float, float] | None) -> None:
        self._analyser = analyser
        self._near = None if near is None else torch.tensor(near, dtype=torch.float32)
        self._region: Tensor | None = None
        self._openings: list[float] = []
        self._present: list[bool] = []
        self._mesh: npt.NDArray[np.float32] | None = None

    @torch.inference_mode()
    def look(self, frames: npt.NDArray[np.uint8]) -> None:
        """Take the next frames [B, H, W, 3] RGB."""
        pictures = torch.from_numpy(frames)
        if self._region is None:
            self._look_alone(pictures)
            return
        regions = self._region.expand(len(pictures), 4)
        points, presence = self._analyser.landmarks(pictures, regions)
        own = roi.from_landmarks(points)
        away = torch.linalg.vector_norm(own[:, :2] - regions[:, :2], dim=1) / regions[:, 2]
        again = ((away > _MOVED) | (presence < PRESENCE_THRESHOLD)).nonzero()[:, 0]
        for number in again.tolist():
            found = self._find(pictures[number : number + 1])
            presence[number] = 0.0 if found is None else 1.0
            if found is not None:
                points[number] = found[0]
        self._note(points, presence >= PRESENCE_THRESHOLD)

    def reading(self) -> LipReading:
        """What was seen so far."""
        return LipReading(np.array(self._openings), np.array(self._present, np.bool_), self._mesh)

    def _look_alone(self, pictures: Tensor) -> None:
        """Nothing is known yet: one frame by the detector, the others from there."""
        found = self._find(pictures[:1])
        nothing = torch.zeros(1, 478, 3) if found is None else found
        self._note(nothing, torch.tensor([found is not None]))
        if len(pictures) > 1:
            self.look(pictures[1:].numpy())

    def _find(self, picture: Tensor) -> Tensor | None:
        return self._analyser.locate(picture, near=self._near, tiled=False)

    def _note(self, points: Tensor, present: Tensor) -> None:
        gap = (points[:, _LOWER, :2] - points[:, _UPPER, :2]).norm(dim=1)
        eyes = (points[:, _EYES[0], :2] - points[:, _EYES[1], :2]).norm(dim=1)
        self._openings.extend((gap / eyes.clamp_min(1e-3)).tolist())
        self._present.extend(present.tolist())
        seen = points[present]
        if len(seen):
            self._region = roi.from_landmarks(seen[-1:])
            self._near = self._region[0, :2].clone()
            if self._mesh is None:
                self._mesh = seen[0, :, :2].numpy().copy()
