"""The models of the gate on one device: face and speech. Imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from app.face.analyser import FaceAnalyser
from app.quality.lips import LipReader
from app.speech.articulation import SpeechAnalyser

_SIDE = 256
_BATCH = 8


class Models:
    """Loaded once per process."""

    def __init__(self, device: str) -> None:
        self._place = torch.device(device)
        self.face = FaceAnalyser(self._place)
        self.speech = SpeechAnalyser(self._place)

    def reader(self, *, region: Sequence[float] | None, near: Sequence[float] | None) -> LipReader:
        """A reader for one video; see `LipReader`."""
        return LipReader(self.face, region=region, near=near)

    def warm_up(self) -> None:
        """Use each network once: torch prepares what it needs at the first call."""
        frames = torch.zeros(_BATCH, _SIDE, _SIDE, 3, dtype=torch.uint8)
        self.face.detect(frames[:1])
        self.face.landmarks(frames, torch.tensor([[_SIDE / 2, _SIDE / 2, _SIDE, 0.0]]).expand(_BATCH, 4), eyes=False)
        for _ in self.speech.analyse([np.zeros(16_000, np.float32)]):
            pass

    @contextmanager
    def one_thread(self) -> Iterator[None]:
        """Have torch compute on the caller's thread alone, where it computes on the CPU.

        Its layers here are small. Others would mostly wait for their next part, and torch's wait actively: on two busy
        cores that took eight times the processor time of the work itself.
        """
        threads = torch.get_num_threads()
        if self._place.type != "cpu" or threads == 1:
            yield
            return
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
