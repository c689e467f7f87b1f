"""Finished videos broken on purpose, each in one way that renderers really have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.media.audio_in import audio_blocks
from app.media.encode import VideoWriter
from app.media.video_in import VideoSource
from app.render.contract import RenderResult
from evaluation.waves import RATE, write_wave

Frames = npt.NDArray[np.uint8]
Wave = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Made:
    """A good video taken apart: all `frames` [T, H, W, 3], the `sound` at 16 kHz, `fps`; and another speech as long."""

    frames: Frames
    sound: Wave
    fps: Fraction
    other_frames: Frames
    other_sound: Wave


Fault = Callable[[Made], Made]


def _late_sound(frames: int) -> Fault:
    return lambda made: replace(made, sound=_shifted(made.sound, round(frames * RATE / made.fps)))


def _late_picture(frames: int) -> Fault:
    def fault(made: Made) -> Made:
        order = np.clip(np.arange(len(made.frames)) - frames, 0, len(made.frames) - 1)
        return replace(made, frames=made.frames[order])

    return fault


def _shifted(sound: Wave, samples: int) -> Wave:
    out = np.zeros_like(sound)
    if samples >= 0:
        out[samples:] = sound[: len(sound) - samples]
    else:
        out[:samples] = sound[-samples:]
    return out


def _frozen(share: float) -> Fault:
    """The last `share` of the video shows the frame before it."""

    def fault(made: Made) -> Made:
        last = round(len(made.frames) * (1 - share))
        return replace(made, frames=made.frames[np.minimum(np.arange(len(made.frames)), last)])

    return fault


def _black(share: float) -> Fault:
    def fault(made: Made) -> Made:
        frames = made.frames.copy()
        frames[round(len(frames) * (1 - share)) :] = 0
        return replace(made, frames=frames)

    return fault


FAULTS: dict[str, Fault] = {
    **{f"sound {n:+d} frames": _late_sound(n) for n in (2, 5, 10, -2, -5, -10)},
    **{f"picture {n:+d} frames": _late_picture(n) for n in (2, 5, 10, -2, -5, -10)},
    "frozen": _frozen(1.0),
    "frozen half": _frozen(0.5),
    "black": _black(1.0),
    "black third": _black(0.33),
    "muted": lambda made: replace(made, sound=np.zeros_like(made.sound)),
    "other speech": lambda made: replace(made, sound=made.other_sound),
    "other lips": lambda made: replace(made, frames=made.other_frames),
    "still image": lambda made: replace(made, frames=np.broadcast_to(made.frames[:1], made.frames.shape)),
}
"""`picture` faults leave the sound as it was: they must be seen by the lips alone, as must `other lips`."""


def read_frames(path: Path) -> Frames:
    """All frames of a video [T, H, W, 3]."""
    with VideoSource(path) as video:
        return np.concatenate(list(video.batches(32, video.frame_count)))


def read_sound(path: Path) -> Wave:
    """The sound of a file, mono at 16 kHz."""
    return np.concatenate(list(audio_blocks(path, RATE)))


def write(made: Made, folder: Path, like: RenderResult) -> RenderResult:
    """The video as a file in `folder`, with the result that a renderer would tell of it."""
    sound = write_wave(folder / "sound.wav", made.sound)
    path = folder / "broken.mp4"
    height, width = made.frames.shape[1:3]
    with VideoWriter(path, width, height, made.fps, sound) as writer:
        for first in range(0, len(made.frames), 32):
            writer.write(made.frames[first : first + 32])
    return replace(like, path=path, frames=len(made.frames))
