"""How far the lips of a finished video are apart, by the face mesh, in frames that are shown one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.face import roi, topology
from app.face.analyser import PRESENCE_THRESHOLD, FaceAnalyser
from app.face.track import POINTS

_BATCH, _BATCH_PIXELS = 24, 24_000_000
"""Frames looked at together, and how many pixels they may have in all: they lie in memory in colour (72 MB)."""

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
    """Follows one face through frames that may lie far apart.

    It begins at `region` [4], as in `app.face.roi`, where that is known; else with the face that is nearest to `near`
    [2], or the largest. Only where the mesh finds no face there, the detector is asked.
    """

    def __init__(self, analyser: FaceAnalyser, *, region: Sequence[float] | None, near: Sequence[float] | None) -> None:
        self._analyser = analyser
        self._region = None if region is None else torch.tensor([region], dtype=torch.float32)
        self._near = None if near is None else torch.tensor(near, dtype=torch.float32)
        if self._region is not None:
            self._near = self._region[0, :2]
        self._waiting: list[Tensor] = []
        self._openings: list[float] = []
        self._present: list[bool] = []
        self._mesh: npt.NDArray[np.float32] | None = None

    def look(self, frame: npt.NDArray[np.uint8]) -> None:
        """Take the next frame [H, W, 3] RGB. It may be looked at later, together with others."""
        self._waiting.append(torch.from_numpy(frame))
        if len(self._waiting) * frame.shape[0] * frame.shape[1] >= _BATCH_PIXELS or len(self._waiting) == _BATCH:
            self._look_at_all()

    def reading(self) -> LipReading:
        """What was seen in all frames so far."""
        self._look_at_all()
        return LipReading(np.array(self._openings), np.array(self._present, np.bool_), self._mesh)

    @torch.inference_mode()
    def _look_at_all(self) -> None:
        pictures, self._waiting = self._waiting, []
        while pictures and self._region is None:
            # Nothing is known yet: one frame after the other by the detector, until it finds the face.
            found = self._find(pictures.pop(0))
            self._note(torch.zeros(1, POINTS, 3) if found is None else found, torch.tensor([found is not None]))
        if pictures and self._region is not None:
            self._follow(pictures, self._region.expand(len(pictures), 4))

    def _follow(self, pictures: list[Tensor], regions: Tensor) -> None:
        """Look into these regions; again where the face is not in the middle; with the detector where none is."""
        points, presence = self._analyser.landmarks(pictures, regions, eyes=False)
        own = roi.from_landmarks(points)
        away = torch.linalg.vector_norm(own[:, :2] - regions[:, :2], dim=1) / regions[:, 2]
        moved = ((away > _MOVED) & (presence >= PRESENCE_THRESHOLD)).nonzero()[:, 0]
        if len(moved):
            again = [pictures[number] for number in moved.tolist()]
            points[moved], presence[moved] = self._analyser.landmarks(again, own[moved], eyes=False)
        for number in (presence < PRESENCE_THRESHOLD).nonzero()[:, 0].tolist():
            found = self._find(pictures[number])
            if found is not None:
                points[number], presence[number] = found[0], 1.0
        self._note(points, presence >= PRESENCE_THRESHOLD)

    def _find(self, picture: Tensor) -> Tensor | None:
        return self._analyser.locate(picture[None], near=self._near, tiled=False, eyes=False)

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
