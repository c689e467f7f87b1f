"""Face analysis of pictures and batches of frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from app.face import roi
from app.face.detector import FaceDetector
from app.face.layers import read_weights
from app.face.mesh import MeshNet
from app.face.track import POINTS, FaceTrack

PRESENCE_THRESHOLD = 0.5  # the published graph's: below it the crop shows no face
PASSES = 2  # the second look's region comes from the first one's points; a third moves them little further
CANDIDATES = 3  # detections tried at each level of the search


class FaceAnalyser:
    """Detector and mesh on one device; weights are loaded once, here. Safe to share between threads."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._detector = FaceDetector(device)
        self._mesh = MeshNet()
        read_weights(self._mesh, "mesh")
        self._mesh.to(device)

    def detect(self, frames: Tensor, *, tiled: bool = True) -> list[Tensor]:
        """Find faces; see ``FaceDetector.detect``."""
        return self._detector.detect(frames, tiled=tiled)

    @torch.no_grad()
    def landmarks(self, frames: Tensor | Sequence[Tensor], rois: Tensor, *, eyes: bool = True) -> tuple[Tensor, Tensor]:
        """Locate the mesh of one face in each frame.

        Args:
            frames: ``[B, H, W, 3]`` uint8, RGB, on any device; or B frames one by one.
            rois: ``[B, 4]`` float32 regions, see ``app.face.roi``.
            eyes: see ``MeshNet.forward``.

        Returns:
            On the CPU: points ``[B, 478, 3]`` float32 in pixels of the frame (depth in the same unit), and the
            probability ``[B]`` that the region shows a face.
        """
        rois = rois.to(self.device, torch.float32)
        near = frames.to(self.device) if isinstance(frames, Tensor) else [frame.to(self.device) for frame in frames]
        crops = roi.crop(near, rois, self._mesh.size)
        points, presence = self._mesh(crops, eyes=eyes)
        return roi.to_frame(points, rois, self._mesh.size).cpu(), presence.sigmoid().cpu()

    def portrait(self, image: Tensor) -> FaceTrack:
        """Locate the largest face of a picture, in two looks.

        Args:
            image: ``[H, W, 3]`` uint8, RGB.

        Returns:
            A track of one frame; its ``present`` is False where no face was found.
        """
        height, width = image.shape[:2]
        points = self.locate(image.unsqueeze(0))
        no = np.zeros(1, dtype=np.bool_)
        if points is None:
            nothing = np.zeros((1, POINTS, 3), dtype=np.float32)
            return FaceTrack(nothing, no, no, width, height)
        return FaceTrack(points.numpy(), ~no, no, width, height)

    def locate(
        self, frame: Tensor, *, near: Tensor | None = None, tiled: bool = True, eyes: bool = True
    ) -> Tensor | None:
        """Find one face in a frame and locate its mesh.

        Args:
            frame: ``[1, H, W, 3]`` uint8, RGB.
            near: ``[2]``, take the face nearest to this point of the frame; without it the largest.
            tiled: see ``FaceDetector.detect``.
            eyes: see ``MeshNet.forward``.

        Returns:
            Its points ``[1, 478, 3]``, as from ``landmarks``; None where the mesh confirms no detection.
        """
        for faces in self._detector.search(frame, tiled=tiled):
            order = _by_size(faces) if near is None else _by_distance(faces, near)
            for face in order[:CANDIDATES]:
                region = roi.from_detections(face.unsqueeze(0))
                for _ in range(PASSES):
                    points, presence = self.landmarks(frame, region, eyes=eyes)
                    region = roi.from_landmarks(points)
                if float(presence[0]) >= PRESENCE_THRESHOLD:
                    return points
        return None


def _by_size(faces: Tensor) -> Tensor:
    """Detections ``[K, 17]`` ordered by the area of their box, largest first."""
    areas = (faces[:, 2:4] - faces[:, 0:2]).prod(dim=1)
    return faces[areas.argsort(descending=True)]


def _by_distance(faces: Tensor, point: Tensor) -> Tensor:
    """Detections ``[K, 17]`` ordered by how far their centre is from a point ``[2]``, nearest first."""
    away = (faces[:, 0:2] + faces[:, 2:4]) / 2 - point
    return faces[torch.linalg.vector_norm(away, dim=1).argsort()]
