"""What the picture of a finished video does over time: is it black, does it stand still, is the surroundings' picture
that of the source."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from app.face import topology
from app.media.frame_grid import as_rate
from app.media.image import load_image, shrink
from app.media.pictures import is_picture
from app.media.video_in import VideoSource
from app.media.watch import Seen, luma
from app.render.contract import RenderJob, RenderResult

_DARKEST = 24
"""Luma below which a pixel is black: 16 is black, and a codec adds a little."""
_LIT_SHARE = 0.002
"""A frame with fewer lit pixels is black."""
_CHANGE = 6
"""Levels by which a pixel of a living picture changes, beyond what a codec does to a still one."""
_CHANGED_PIXELS = 2
_SOURCE_SIDE = 1920
"""Portraits are rendered no larger (`app.render.film.footage`)."""
COMPARED = (0, 8, 16)
"""Frames held against the source: near the beginning, since a template is decoded up to them."""


@dataclass
class PictureWatch:
    """Fed with every frame, in order."""

    frames: int = 0
    black: int = 0
    still: list[bool] = field(default_factory=list)
    """Of each frame, whether it shows what the one before showed."""
    kept: dict[int, npt.NDArray[np.uint8]] = field(default_factory=dict)
    """The grey pictures of the frames `COMPARED`."""
    step: int = 1
    _last: npt.NDArray[np.uint8] | None = None

    def look(self, seen: Seen) -> None:
        """Take the next frame."""
        grey = seen.grey
        self.frames += 1
        self.step = seen.step
        self.black += int(np.count_nonzero(grey > _DARKEST) < _LIT_SHARE * grey.size)
        if self._last is None:
            self.still.append(False)
        else:
            # The absolute difference of bytes, without widening them.
            change = np.maximum(grey, self._last) - np.minimum(grey, self._last)
            self.still.append(int(np.count_nonzero(change > _CHANGE)) < _CHANGED_PIXELS)
        if seen.number in COMPARED:
            self.kept[seen.number] = grey.copy()
        self._last = grey


def longest_run(flags: npt.NDArray[np.bool_]) -> int:
    """The most true values in a row."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return int((edges[1::2] - edges[::2]).max()) if len(edges) else 0


def surroundings_psnr(
    watched: PictureWatch, job: RenderJob, result: RenderResult, mesh: npt.NDArray[np.float32], moves: frozenset[str]
) -> float | None:
    """How like its source the picture outside the lower face is, in dB of luma; None where they cannot be compared.

    mesh: [478, 2] in the first frame. `moves` names what else was meant to change: `eyes`, `head`.
    """
    if "head" in moves:
        return None
    originals = _originals(job, result, sorted(watched.kept), watched.step)
    if not originals:
        return None
    keep = ~_changing(mesh, next(iter(originals.values())).shape, watched.step, moves)
    errors = [np.square(watched.kept[number] - original)[keep].mean() for number, original in originals.items()]
    return float(10 * np.log10(219.0**2 / max(float(np.mean(errors)), 1e-3)))


def _originals(
    job: RenderJob, result: RenderResult, numbers: list[int], step: int
) -> dict[int, npt.NDArray[np.float32]]:
    """The luma, as `luma` has it, of the frames of the source that these frames were made from, where they have the
    result's size."""
    size = (result.height, result.width)
    with job.source.open("rb") as file:
        portrait = is_picture(file.read(16))
    if portrait:
        picture = shrink(load_image(job.source), _SOURCE_SIDE)[: result.height, : result.width]
        return dict.fromkeys(numbers, luma(picture, step)) if picture.shape[:2] == size else {}
    with VideoSource(job.source, as_rate(result.fps)) as source:
        if (source.height, source.width) != size:
            return {}
        order = source.indices(max(numbers, default=-1) + 1)
        return {number: luma(source.frame(int(order[number])), step) for number in numbers}


def _changing(
    mesh: npt.NDArray[np.float32], shape: tuple[int, ...], step: int, moves: frozenset[str]
) -> npt.NDArray[np.bool_]:
    """Where the picture may change, [h, w]: the lower face with room for a moving template, and the eyes if they do."""
    oval = mesh[list(topology.FACE_OVAL)]
    size = oval.max(axis=0) - oval.min(axis=0)
    left, right = oval[:, 0].min() - 0.25 * size[0], oval[:, 0].max() + 0.25 * size[0]
    nose = mesh[list(topology.NOSE_BOTTOM), 1].min() - 0.1 * size[1]
    mask = np.zeros(shape, np.bool_)
    _fill(mask, left, nose, right, oval[:, 1].max() + 0.45 * size[1], step)
    if "eyes" in moves:
        eyes = mesh[[*topology.RIGHT_EYE_LOWER, *topology.LEFT_EYE_LOWER, *topology.RIGHT_BROW_UPPER], 1]
        _fill(mask, left, eyes.min() - 0.1 * size[1], right, eyes.max() + 0.1 * size[1], step)
    return mask


def _fill(mask: npt.NDArray[np.bool_], left: float, top: float, right: float, bottom: float, step: int) -> None:
    rows = slice(max(0, int(top / step)), max(0, int(bottom / step) + 1))
    columns = slice(max(0, int(left / step)), max(0, int(right / step) + 1))
    mask[rows, columns] = True
