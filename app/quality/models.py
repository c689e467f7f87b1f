"""The models of the gate on one device: face and speech. Imports torch."""

from __future__ import annotations

import numpy as np
import torch

from app.face.analyser import FaceAnalyser
from app.quality.lips import BATCH, LipReader
from app.speech.articulation import SpeechAnalyser

_SIDE = 256


class Models:
    """Loaded once per process."""

    batch = BATCH

    def __init__(self, device: str) -> None:
        place = torch.device(device)
        self.face = FaceAnalyser(place)
        self.speech = SpeechAnalyser(place)

    def reader(self, near: tuple[float, float] | None) -> LipReader:
        """A reader for one video; see `LipReader`."""
        return LipReader(self.face, near)

    def warm_up(self) -> None:
        """Use each network once: torch prepares what it needs at the first call."""
        frames = torch.zeros(BATCH, _SIDE, _SIDE, 3, dtype=torch.uint8)
        self.face.detect(frames[:1])
        self.face.landmarks(frames, torch.tensor([[_SIDE / 2, _SIDE / 2, _SIDE, 0.0]]).expand(BATCH, 4))
        for _ in self.speech.analyse([np.zeros(16_000, np.float32)]):
            pass
