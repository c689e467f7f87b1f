"""One face saying one thing with the generator's mouth."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.render.batching import Batch
from app.render.film.footage import Footage
from app.render.film.tracking import Track
from app.render.wav2lip.dubbing import Dubber
from app.render.wav2lip.network import Generator
from app.render.wav2lip.options import Wav2LipOptions
from app.render.wav2lip.placing import face_boxes
from app.render.wav2lip.voice import Voice


class Wav2LipPerformance:
    """A `Performance`: the face tracked as `track` over `footage` says `voice`. It gives no articulation."""

    articulation = None

    def __init__(
        self,
        generator: Generator,
        options: Wav2LipOptions,
        footage: Footage,
        voice: Voice,
        track: Track,
        device: torch.device,
    ) -> None:
        self._voice, self._rate, self._track, self._generator = voice, footage.rate, track, generator
        boxes = face_boxes(track.pixels, track.present, options.chin)
        self._dubber = Dubber(generator, boxes, device, footage.frame(0) if footage.still else None)
        self.faceless = self.covered = 0

    @property
    def facts(self) -> Mapping[str, Any]:
        """What moves, and the generator's precision."""
        return {"moves": ["lower_face"], "precision": str(self._generator.dtype).removeprefix("torch.")}

    def play(self, frames: Tensor, numbers: npt.NDArray[np.int64], first: int, batch: Batch) -> None:
        """As `Performance.play`."""
        mel = self._voice.windows(first, len(frames), self._rate)
        at = torch.from_numpy(numbers)
        shown, hidden = self._track.present[at], self._track.covered[at]
        which = (shown & ~hidden).nonzero()[:, 0]
        self.faceless += int((~shown).sum())
        self.covered += int(hidden.sum())
        batch.over(len(which), partial(self._dub, frames, which, at, mel))

    def _dub(self, frames: Tensor, which: Tensor, numbers: Tensor, mel: Tensor, part: slice) -> None:
        rows = which[part]
        self._dubber.dub_into(frames, rows, numbers[rows], mel[rows])
