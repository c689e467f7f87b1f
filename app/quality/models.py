"""The models of the gate on one device: face and speech. Imports torch."""

from __future__ import annotations

import torch

from app.face.analyser import FaceAnalyser
from app.quality.lips import BATCH, LipReader
from app.speech.articulation import SpeechAnalyser


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
