"""Finding faces in frames of any size."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from app.face.blazeface import COORDINATES, FullRangeNet, ShortRangeNet
from app.face.layers import read_weights
from app.face.tiles import Tile, around, letterbox, tile_levels

SHORT_RANGE_THRESHOLD = 0.5  # the published graph's
FULL_RANGE_THRESHOLD = 0.5  # the published graph's 0.6 loses one in eight faces at the limit of the reach below
OVERLAP_OF_ONE_FACE = 0.3  # boxes that overlap more show one face (the published graphs')
PICTURES_AT_ONCE = 8  # bounds memory
SMALL_SHARE = 1 / 6  # of the picture's side: below it boxes are a fifth off, and the face is looked at again
CLOSER = 3.5  # a second look's side over the face: a size at which the short-range network is surest
DETECTION = 5 + 12  # left, top, right, bottom, score, then x and y of six keypoints


class FaceDetector:
    """Finds faces: the whole frame with the short-range network, then with the full-range one, then in tiles."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._short, self._full = ShortRangeNet(), FullRangeNet()
        read_weights(self._short, "short_range")
        read_weights(self._full, "full_range")
        self._short.to(device)
        self._full.to(device)

    @torch.no_grad()
    def detect(self, frames: Tensor, *, tiled: bool = True) -> list[Tensor]:
        """Find the faces of every frame, from about 64 pixels to nearly the whole frame.

        Args:
            frames: ``[B, H, W, 3]`` uint8, RGB.
            tiled: where the whole frame shows no face, look at parts of it too, which takes 15 ms at 720p and 0.2 s
                at 4K. Without, faces below a twelfth of the longer side may be missed.

        Returns:
            For each frame ``[K, 17]`` float32 on the CPU, best score first: left, top, right, bottom in pixels (may
            reach over the frame's edge), score 0..1, then x and y of right eye, left eye (the person's), nose tip,
            mouth, right and left ear.
        """
        found = self._look_twice(self._short, frames, [_whole(frames)], SHORT_RANGE_THRESHOLD)
        for number, faces in enumerate(found):
            if len(faces):
                continue
            further = self._further(frames[number : number + 1], tiled)
            found[number] = next((seen for seen in further if len(seen)), faces)
        return found

    @torch.no_grad()
    def search(self, frame: Tensor, *, tiled: bool = True) -> Iterator[Tensor]:
        """Look at one frame ``[1, H, W, 3]`` ever closer: detections ``[K, 17]``, as from ``detect``, of every level.

        For callers that can tell a false detection and then want the next level's.
        """
        yield self._look_twice(self._short, frame, [_whole(frame)], SHORT_RANGE_THRESHOLD)[0]
        yield from self._further(frame, tiled)

    def _further(self, frame: Tensor, tiled: bool) -> Iterator[Tensor]:
        """The levels after the first: the whole frame with the full-range network, then tiles."""
        height, width = frame.shape[1:3]
        for tiles in [[_whole(frame)], *(tile_levels(width, height) if tiled else [])]:
            yield self._look_twice(self._full, frame, tiles, FULL_RANGE_THRESHOLD)[0]

    def _look_twice(
        self, network: ShortRangeNet | FullRangeNet, frames: Tensor, tiles: list[Tile], threshold: float
    ) -> list[Tensor]:
        """The faces of each frame seen in any of the tiles, small ones after a closer look."""
        span = max(max(tile.width, tile.height) for tile in tiles)
        return [
            self._look_closer(frames[number : number + 1], faces, SMALL_SHARE * span)
            for number, faces in enumerate(self._look(network, frames, tiles, threshold))
        ]

    def _look(
        self, network: ShortRangeNet | FullRangeNet, frames: Tensor, tiles: list[Tile], threshold: float
    ) -> list[Tensor]:
        """The faces of each frame seen in any of the tiles."""
        pictures, places = [], []
        for tile in tiles:
            part = frames[:, tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
            picture, scale, (x, y) = letterbox(part.to(self._device), network.size)
            pictures.append(picture)
            places.append((scale, tile.left - x * scale, tile.top - y * scale))
        batch = torch.cat(pictures)
        answers = [network(part) for part in torch.split(batch, PICTURES_AT_ONCE)]
        scores = torch.cat([a[0] for a in answers]).sigmoid().cpu()
        offsets = torch.cat([a[1] for a in answers]).cpu()
        anchors = network.anchors.cpu() * network.size
        found: list[Tensor] = []
        for number in range(len(frames)):
            candidates = []
            for index, (scale, left, top) in enumerate(places):
                row = index * len(frames) + number
                chosen = scores[row] >= threshold
                faces = _decode(offsets[row][chosen], scores[row][chosen], anchors[chosen])
                candidates.append(_place(faces, scale, left, top))
            found.append(merge_overlapping(torch.cat(candidates)))
        return found

    def _look_closer(self, frame: Tensor, faces: Tensor, below: float) -> Tensor:
        """Replace detections narrower than ``below`` pixels by what the short-range network sees around them."""
        height, width = frame.shape[1:3]
        result = faces.clone()
        for number, face in enumerate(faces):
            size = float((face[2:4] - face[:2]).max())
            if size >= below:
                continue
            tile = around(face[:4], CLOSER, width, height)
            closer = self._look(self._short, frame, [tile], SHORT_RANGE_THRESHOLD)[0]
            away = (closer[:, 0:2] + closer[:, 2:4] - face[0:2] - face[2:4]) / 2
            near = closer[torch.linalg.vector_norm(away, dim=1) < size]
            if len(near):
                result[number] = near[0]
        return merge_overlapping(result)


def _whole(frames: Tensor) -> Tile:
    return Tile(0, 0, frames.shape[2], frames.shape[1])


def _decode(offsets: Tensor, scores: Tensor, anchors: Tensor) -> Tensor:
    """Turn the network's ``[N, 16]`` offsets into ``[N, 17]`` detections in pixels of the picture."""
    points = offsets.reshape(-1, COORDINATES // 2, 2)
    centre = points[:, 0] + anchors
    half = points[:, 1] / 2
    keypoints = points[:, 2:] + anchors.unsqueeze(1)
    return torch.cat([centre - half, centre + half, scores.unsqueeze(1), keypoints.flatten(1)], dim=1)


def _place(faces: Tensor, scale: float, left: float, top: float) -> Tensor:
    """Take detections from pixels of a letterboxed picture to pixels of the frame.

    The networks measure from the picture's corner, frames from the centre of the first pixel: hence the half.
    """
    placed = faces * scale
    shift = faces.new_tensor([left - 0.5, top - 0.5])
    placed[:, :4] += shift.repeat(2)
    placed[:, 5:] += shift.repeat(COORDINATES // 2 - 2)
    placed[:, 4] = faces[:, 4]
    return placed


def merge_overlapping(faces: Tensor) -> Tensor:
    """Replace detections that overlap by their mean weighted with their scores (BlazeFace's blending, section 3.3).

    Args:
        faces: ``[N, 17]`` in any order.

    Returns:
        ``[K, 17]``, best score first; each with the best score of its group.
    """
    rest = faces[faces[:, 4].argsort(descending=True)]
    merged = []
    while len(rest):
        same = _overlap(rest[0, :4], rest[:, :4]) > OVERLAP_OF_ONE_FACE
        same[0] = True
        group = rest[same]
        weights = group[:, 4:5]
        face = (group * weights).sum(dim=0) / weights.sum()
        face[4] = group[0, 4]
        merged.append(face)
        rest = rest[~same]
    return torch.stack(merged) if merged else faces.new_zeros(0, DETECTION)


def _overlap(box: Tensor, boxes: Tensor) -> Tensor:
    """Intersection over union of one box ``[4]`` with ``[N, 4]``."""
    low, high = torch.maximum(box[:2], boxes[:, :2]), torch.minimum(box[2:], boxes[:, 2:])
    shared = (high - low).clamp_min(0).prod(dim=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(dim=1)
    area = (box[2:] - box[:2]).clamp_min(0).prod()
    return shared / (area + areas - shared).clamp_min(1e-6)
