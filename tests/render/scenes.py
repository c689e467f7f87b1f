"""What the renderer's tests play: voices whose articulation is known, pictures, templates, and a look at the result."""

from __future__ import annotations

import wave
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from app.face.analyser import FaceAnalyser
from app.media.encode import VideoWriter
from app.media.video_in import VideoSource
from app.render.contract import Cancelled, Phase
from app.speech.channels import CLOSURE, JAW, LABIODENTAL, REST, SPEECH

SAMPLES = Path(__file__).parents[2] / "samples"
RATE = 16_000


def write_silence(path: Path, seconds: float) -> Path:
    """A silent wav file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.zeros(round(seconds * RATE), np.int16).tobytes())
    return path


def save_picture(path: Path, picture: Tensor) -> None:
    Image.fromarray(picture.numpy()).save(path)


def write_template(path: Path, picture: Tensor, frames: int, fps: float = 25.0, step: int = 1) -> Path:
    """The picture panned by `step` pixels a frame."""
    side = picture.shape[0] - frames * abs(step)
    side -= side % 2
    with VideoWriter(path, side, side, fps, None, crf=12) as writer:
        for number in range(frames):
            first = number * step
            writer.write(picture[None, :side, first : first + side].numpy())
    return path


@dataclass
class ScriptedSpeech:
    """A speech model that hears what it is told: (seconds, {column: value}) one after the other."""

    script: list[tuple[float, dict[int, float]]]

    def analyse(self, blocks: Iterable[npt.NDArray[np.float32]]) -> Iterator[npt.NDArray[np.float32]]:
        rows = -(-sum(len(block) for block in blocks) // 160)
        curve = np.repeat(REST[None], rows, 0)
        at = 0
        for seconds, values in self.script:
            end = at + round(seconds * 100)
            for column, value in values.items():
                curve[at:end, column] = value
            at = end
        yield curve


class RecordingWriter(VideoWriter):
    """Keeps what it was given, in `taken` of the class: the codec's own noise is none of the renderer's."""

    taken: ClassVar[list[npt.NDArray[np.uint8]]] = []

    def write(self, frames: npt.NDArray[np.uint8], *, copy: bool = True) -> None:
        self.taken.append(frames.copy())
        super().write(frames, copy=copy)

    @classmethod
    def take(cls) -> npt.NDArray[np.uint8]:
        """All frames [T, H, W, 3] since the last call."""
        frames = np.concatenate(cls.taken)
        cls.taken.clear()
        return frames


OPEN = {JAW: 0.8, SPEECH: 1.0}
SHUT = {JAW: 0.5, CLOSURE: 1.0, SPEECH: 1.0}
BITE = {JAW: 0.3, LABIODENTAL: 1.0, SPEECH: 1.0}
SILENT: dict[int, float] = {}


@dataclass
class Reports:
    """Progress that remembers, and cancels at the given report of RENDER."""

    cancel_at: int = 0
    seen: list[tuple[Phase, int, int]] = field(default_factory=list)

    def report(self, phase: Phase, done: int, total: int) -> None:
        self.seen.append((phase, done, total))
        if self.cancel_at and sum(p is Phase.RENDER for p, _, _ in self.seen) >= self.cancel_at:
            raise Cancelled

    def check(self) -> None:
        """Nobody cancels between reports."""


def read_video(path: Path) -> Tensor:
    """All frames [T, H, W, 3]."""
    with VideoSource(path) as video:
        batches = list(video.batches(32, video.frame_count))
    return torch.from_numpy(np.concatenate(batches))


def lip_gaps(frames: Tensor) -> npt.NDArray[np.float64]:
    """How far the mesh sees the lips apart in each frame, in distances of the outer eye corners."""
    analyser = FaceAnalyser(torch.device("cpu"))
    gaps = []
    for frame in frames:
        track = analyser.portrait(frame)
        assert track.present.all(), "the face got lost"
        mesh = track.landmarks[0]
        gaps.append(np.linalg.norm(mesh[14] - mesh[13]) / np.linalg.norm(mesh[33] - mesh[263]))
    return np.array(gaps)
