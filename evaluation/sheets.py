"""Contact sheets: what figures do not say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.media.image import load_image
from app.render.film.footage import LONGEST_SIDE
from app.render.film.points import select
from app.render.warp.animation import Animator
from app.render.warp.compositor import Compositor
from app.render.warp.gestures import Gestures
from app.render.warp.subject import Subject, read_subject, teeth_plate
from evaluation.material import CPU, Studio, read_frames

Picture = npt.NDArray[np.uint8]

SOUNDS = {
    "photo": None,
    "rest": [0.0, 0.5, 0.0, 0.0, 0.0, 0.0],
    "p b m": [0.3, 0.5, 0.0, 1.0, 0.0, 1.0],
    "f v": [0.25, 0.5, 0.0, 0.0, 1.0, 1.0],
    "a little": [0.15, 0.5, 0.0, 0.0, 0.0, 1.0],
    "e": [0.4, 0.6, 0.0, 0.0, 0.0, 1.0],
    "i": [0.3, 0.9, 0.0, 0.0, 0.0, 1.0],
    "o u": [0.35, 0.3, 0.9, 0.0, 0.0, 1.0],
    "a": [0.95, 0.5, 0.0, 0.0, 0.0, 1.0],
    "s z": [0.06, 0.5, 0.0, 0.0, 0.0, 1.0],
}
"""Articulation by what it stands for: jaw, width, protrusion, closure, labiodental, speech."""

_HISSING = "s z"
_LIDS = (0.0, 0.3, 0.6, 0.85, 1.0, 0.5)
_GAZES = ((0, 0), (-3, 0), (3, 0), (-8, 0), (8, 0), (0, -4), (0, 5), (5, -3))
"""Degrees to the right and down."""

_MOMENTS = 9
_LABEL = 18  # pixels of height


def of_parts(studio: Studio, faces: dict[str, Path], voice: Path) -> dict[str, Picture]:
    """Mouths, eyes and a head that moves while `voice` speaks, by file name."""
    names = list(faces)
    return {
        "mouths.jpg": stacked([mouths(studio, faces[name]) for name in names], list(SOUNDS), 136),
        "blinks.jpg": stacked([blinks(studio, faces[name]) for name in names], [f"{lid:.0%}" for lid in _LIDS], 220),
        "gaze.jpg": stacked([gazes(studio, faces[name]) for name in names], [f"{a} {b}" for a, b in _GAZES], 170),
        "head_motion.jpg": stacked(
            [moved(studio, faces[name], motion, voice) for name in names[:1] for motion in (0.0, 0.6, 1.0)],
            [""] * 6,
            220,
        ),
    }


def mouths(studio: Studio, photo: Path) -> list[Picture]:
    """The mouth in each of `SOUNDS`."""
    picture, subject, compositor = staged(studio, photo)
    said = torch.tensor([sound or SOUNDS["rest"] for sound in SOUNDS.values()])
    frames = picture.repeat(len(said), 1, 1, 1)
    hiss = torch.tensor([float(name == _HISSING) for name in SOUNDS])
    face = Animator(subject.rest, 1.0).pose(said, hiss)
    compositor.render_into(frames, torch.arange(len(said)), _zeros(len(said)), face)
    frames[0] = picture
    return _cut(frames, subject, (-0.55, 0.55), (-0.35, 0.65))


def blinks(studio: Studio, photo: Path) -> list[Picture]:
    """The eyes as they shut and open again."""
    picture, subject, compositor = staged(studio, photo)
    count = len(_LIDS)
    frames = picture.repeat(count, 1, 1, 1)
    face = Animator(subject.rest, 1.0).pose(torch.tensor(SOUNDS["rest"]).expand(count, -1))
    acts = Gestures(torch.tensor(_LIDS), torch.zeros(count, 7), torch.zeros(count, 2))
    compositor.render_into(frames, torch.arange(count), _zeros(count), face, acts)
    return _cut(frames, subject, (-0.75, 0.75), (-1.15, -0.45))


def gazes(studio: Studio, photo: Path) -> list[Picture]:
    """The eyes as they look about."""
    picture, subject, compositor = staged(studio, photo)
    count = len(_GAZES)
    frames = picture.repeat(count, 1, 1, 1)
    face = Animator(subject.rest, 1.0).pose(torch.tensor(SOUNDS["rest"]).expand(count, -1))
    acts = Gestures(torch.zeros(count), torch.zeros(count, 7), torch.deg2rad(torch.tensor(_GAZES, dtype=torch.float32)))
    compositor.render_into(frames, torch.arange(count), _zeros(count), face, acts)
    return _cut(frames, subject, (-0.64, 0.64), (-1.0, -0.55))


def moments(frames: Tensor) -> list[Picture]:
    """Some of a video's frames [T, H, W, 3]."""
    return [frames[number].numpy() for number in np.linspace(5, len(frames) - 20, _MOMENTS).astype(int)]


def moved(studio: Studio, photo: Path, motion: float, voice: Path) -> list[Picture]:
    """Moments of a silent head that moves."""
    name = f"motion-{motion}"
    path = studio.film(name, photo, voice, head_motion=motion, seed=3, crop="face").path
    frames = read_frames(path)
    return [frames[number].numpy() for number in np.linspace(0, len(frames) - 1, 6).astype(int)]


def staged(studio: Studio, photo: Path) -> tuple[Tensor, Subject, Compositor]:
    """A photo [H, W, 3] ready to be moved."""
    picture = torch.from_numpy(load_image(photo, LONGEST_SIDE))
    subject = read_subject(select(torch.from_numpy(studio.analyser.portrait(picture).landmarks)), torch.tensor([True]))
    return picture, subject, Compositor(subject, teeth_plate(subject, picture, 0), CPU, picture)


def stacked(rows: Sequence[Sequence[Picture]], labels: Sequence[str], width: int) -> Picture:
    """Rows of pictures under a row of labels; every picture `width` wide."""
    height, wide = rows[0][0].shape[:2]
    size = width, round(width * height / wide)
    lines = [np.concatenate([cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in row], 1) for row in rows]
    if any(labels):
        head = np.full((_LABEL, lines[0].shape[1], 3), 255, np.uint8)
        for place, label in enumerate(labels):
            cv2.putText(head, label, (place * width + 4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
        lines.insert(0, head)
    return np.concatenate(lines)


def save(path: Path, sheet: Picture) -> None:
    """As a JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(".jpg", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 82])
    assert done
    path.write_bytes(data.tobytes())


def _cut(frames: Tensor, subject: Subject, across: tuple[float, float], down: tuple[float, float]) -> list[Picture]:
    """A box around the mouth's middle, in units."""
    (x, y), scale = subject.poses.origin[0, :2].tolist(), float(subject.poses.scale[0])
    rows = slice(max(0, int(y + down[0] * scale)), int(y + down[1] * scale))
    columns = slice(max(0, int(x + across[0] * scale)), int(x + across[1] * scale))
    size = 400, round(400 * (down[1] - down[0]) / (across[1] - across[0]))
    return [cv2.resize(frame[rows, columns].numpy(), size, interpolation=cv2.INTER_CUBIC) for frame in frames]


def _zeros(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.long)
