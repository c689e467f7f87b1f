"""Pictures to analyse, all made from one public-domain portrait (see ``data/README.md``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

DATA = Path(__file__).parent / "data"
FACE_CENTRE = (225.0, 130.0)  # in the portrait
BUST = slice(90, 360)  # the portrait's columns that are pasted, so that two fit side by side
FACE_WIDTH = 95.0  # of the detector's box in the portrait

Picture = npt.NDArray[np.uint8]
Transform = npt.NDArray[np.float64]


def portrait() -> Picture:
    """The portrait, ``[512, 512, 3]`` RGB; its face is about 95 pixels wide."""
    read = cv2.imread(str(DATA / "astronaut.jpg"))
    assert read is not None
    return np.asarray(cv2.cvtColor(read, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def views() -> Iterator[tuple[str, Picture]]:
    """The pictures that ``data/reference.npz`` has MediaPipe's answers for."""
    plain = portrait()
    height, width = plain.shape[:2]
    for name, degrees in (("plain", 0), ("left", 20), ("right", -25)):
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
        yield name, np.asarray(cv2.warpAffine(plain, turn, (width, height)), dtype=np.uint8)
    half = cv2.resize(plain, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    yield "half", np.asarray(half, dtype=np.uint8)


def placement(x: float, y: float, face_width: float, degrees: float = 0.0) -> Transform:
    """The ``[2, 3]`` transform that puts the portrait's face at ``(x, y)``, this wide and turned clockwise."""
    angle, scale = np.radians(degrees), face_width / FACE_WIDTH
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.hstack([turn, (np.array([x, y]) - turn @ FACE_CENTRE)[:, None]])


def scene(width: int, height: int, *faces: Transform) -> Picture:
    """A grey frame ``[height, width, 3]`` with the portrait pasted once for each placement."""
    frame = np.full((height, width, 3), 96, dtype=np.uint8)
    source = portrait()
    bust = np.zeros(source.shape[:2], dtype=np.uint8)
    bust[:, BUST] = 255
    for transform in faces:
        shrink = float(np.hypot(transform[0, 0], transform[1, 0]))
        blurred = cv2.GaussianBlur(source, (0, 0), 0.5 / shrink) if shrink < 1 else source  # against aliasing
        layer = cv2.warpAffine(blurred, transform, (width, height), flags=cv2.INTER_LINEAR)
        mask = cv2.warpAffine(bust, transform, (width, height))
        frame[mask > 127] = layer[mask > 127]
    return frame


def moved(points: npt.NDArray[np.float32], transform: Transform) -> npt.NDArray[np.float32]:
    """Points ``[N, 2+]`` of the portrait where ``transform`` takes them, ``[N, 2]``."""
    return (points[:, :2] @ transform[:, :2].T + transform[:, 2]).astype(np.float32)
