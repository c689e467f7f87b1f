"""The refined face mesh network: 478 points from one aligned crop of a face.

Architecture, weights and the meaning of its custom operations: MediaPipe ``face_landmark_with_attention.tflite``
("Attention Mesh", arXiv:2006.10962). A trunk gives 468 points; around lips and eyes a window of an early feature map is
cut out, turned level, and three small heads place those points again and add the irises.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from app.face.layers import BlazeBlock, SameConv2d

POINTS = 478
MESH_POINTS = 468
IRIS_POINTS = 5

WINDOW = 16  # cells of the feature window a head sees
WINDOW_MARGIN = 1.5  # the window's side over the bounding box of the points it holds
FEATURE_STRIDE = 4  # pixels of the crop to one cell of the early feature map
EARLY_AT_ONCE = 2  # crops on a CPU: of more, the early maps leave its caches, and memory is fetched anew for each
EYE_CONTOUR_POINTS = 16  # the first points of an eye's list are its lids; their mean depth is the iris's


class MeshNet(nn.Module):
    """Attention Mesh: ``[B, 3, 192, 192]`` in 0..1 to 478 points in pixels of the crop and a presence logit."""

    size = 192

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Sequential(SameConv2d(3, 16, 3, stride=2), nn.PReLU(16), *_stage(16, 2, 32))
        self.trunk = nn.Sequential(
            *_stage(32, 2, 64), *_stage(64, 2, 128), *_stage(128, 2, 128), *_stage(128, 2, 128), *_stage(128, 2, None),
            nn.Conv2d(128, 32, 1), nn.PReLU(32), BlazeBlock(32, 32, prelu=True),
        )  # fmt: skip
        self.points = nn.Conv2d(32, 3 * MESH_POINTS, 3)
        self.presence = nn.Conv2d(32, 1, 3)
        self.lips = _Head(points=80, level_from=61, level_to=291)
        self.left_eye = _Head(points=71, level_from=33, level_to=133, iris=True)
        self.right_eye = _Head(points=71, level_from=362, level_to=263, iris=True)

    def forward(self, crop: Tensor, *, eyes: bool = True) -> tuple[Tensor, Tensor]:
        """Locate the points.

        Args:
            crop: ``[B, 3, 192, 192]`` float32, RGB in 0..1, the face upright.
            eyes: place the points of the eyes again, and the irises. Without, which takes a quarter less, they are
                where the trunk puts them, and all points of an iris in the middle of its eye.

        Returns:
            Points ``[B, 478, 3]`` in pixels of the crop (depth in the same unit, smaller is nearer),
            and the logit ``[B]`` that a face is there.
        """
        early = self._early(crop)
        late = self.trunk(early)
        mesh = self.points(late).reshape(-1, MESH_POINTS, 3)
        refined = torch.cat([mesh, mesh.new_zeros(len(mesh), POINTS - MESH_POINTS, 3)], dim=1)
        lips, _ = self.lips(early, mesh)
        refined[:, self.lips.indices, :2] = lips
        iris_start = MESH_POINTS
        for eye in (self.left_eye, self.right_eye):
            irises = slice(iris_start, iris_start + IRIS_POINTS)
            if eyes:
                lids, iris = eye(early, mesh)
                refined[:, eye.indices, :2] = lids
                refined[:, irises, :2] = iris
            else:
                contour = mesh[:, eye.indices[:EYE_CONTOUR_POINTS], :2]
                refined[:, irises, :2] = contour.mean(dim=1, keepdim=True)
            refined[:, irises, 2] = mesh[:, eye.indices[:EYE_CONTOUR_POINTS], 2].mean(dim=1, keepdim=True)
            iris_start += IRIS_POINTS
        return refined, self.presence(late).reshape(-1)

    def _early(self, crop: Tensor) -> Tensor:
        """The early feature map ``[B, 32, 48, 48]``."""
        if crop.device.type != "cpu" or len(crop) <= EARLY_AT_ONCE:
            early: Tensor = self.early(crop)
            return early
        return torch.cat([self.early(part) for part in torch.split(crop, EARLY_AT_ONCE)])


def _stage(width: int, blocks: int, next_width: int | None) -> list[nn.Module]:
    """``blocks`` blocks of one width, then one that halves the picture (``None``: none)."""
    stage: list[nn.Module] = [BlazeBlock(width, width, prelu=True) for _ in range(blocks)]
    return stage if next_width is None else [*stage, BlazeBlock(width, next_width, 2, prelu=True)]


class _Head(nn.Module):
    """Places the points of one region again, from a window of the early features turned level with the region."""

    indices: Tensor

    def __init__(self, points: int, level_from: int, level_to: int, *, iris: bool = False) -> None:
        super().__init__()
        self._level = (level_from, level_to)
        self.register_buffer("indices", torch.zeros(points, dtype=torch.int64))
        self.stem = nn.Sequential(*_stage(32, 2, 64), *_stage(64, 2, 128))
        self.contour = _placement(points)
        self.iris = _placement(IRIS_POINTS) if iris else None

    def forward(self, early: Tensor, mesh: Tensor) -> tuple[Tensor, Tensor | None]:
        turn, centre, scale = self._window(mesh[..., :2] / FEATURE_STRIDE)
        features = self.stem(_cut(early, turn, centre, scale))
        contour = self._to_crop(self.contour(features), turn, centre, scale)
        return contour, None if self.iris is None else self._to_crop(self.iris(features), turn, centre, scale)

    def _window(self, mesh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The level window around this head's points: rotation ``[B, 2, 2]``, centre and scale ``[B, 2]``, in cells."""
        start, end = self._level
        along = mesh[:, end] - mesh[:, start]
        cosine, sine = (along / along.norm(dim=1, keepdim=True).clamp_min(1e-6)).unbind(1)
        turn = torch.stack([cosine, -sine, sine, cosine], dim=1).reshape(-1, 2, 2)  # level to crop
        level = mesh[:, self.indices] @ turn
        low, high = level.amin(dim=1), level.amax(dim=1)
        centre = (turn @ ((low + high) / 2).unsqueeze(2)).squeeze(2)
        return turn, centre, WINDOW_MARGIN * (high - low) / WINDOW

    def _to_crop(self, raw: Tensor, turn: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
        """Take a head's output (window coordinates times 4) to pixels of the crop: ``[B, N, 2]``."""
        offset = raw.reshape(len(raw), -1, 2) - WINDOW * FEATURE_STRIDE / 2
        return (offset * scale.unsqueeze(1)) @ turn.mT + centre.unsqueeze(1) * FEATURE_STRIDE


def _placement(points: int) -> nn.Sequential:
    """Features ``[B, 128, 4, 4]`` to point coordinates ``[B, 2 * points, 1, 1]``."""
    return nn.Sequential(
        *_stage(128, 2, 128), *_stage(128, 2, None),
        nn.Conv2d(128, 32, 1), nn.PReLU(32), BlazeBlock(32, 32, prelu=True), nn.Conv2d(32, 2 * points, 2),
    )  # fmt: skip


def _cut(features: Tensor, turn: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
    """Sample a window of ``features`` bilinearly, cell centres on cell centres; outside the map it is zero."""
    cells = torch.arange(WINDOW, device=features.device, dtype=features.dtype) + 0.5 - WINDOW / 2
    y, x = torch.meshgrid(cells, cells, indexing="ij")
    window = torch.stack([x, y], dim=-1).reshape(1, -1, 2) * scale.unsqueeze(1)
    place = window @ turn.mT + centre.unsqueeze(1) - 0.5
    size = place.new_tensor([features.shape[3] - 1, features.shape[2] - 1])
    inside = ((place >= 0) & (place <= size)).all(dim=-1).reshape(-1, 1, WINDOW, WINDOW)
    grid = (place / size * 2 - 1).reshape(-1, WINDOW, WINDOW, 2)
    return functional.grid_sample(features, grid, mode="bilinear", padding_mode="zeros", align_corners=True) * inside
