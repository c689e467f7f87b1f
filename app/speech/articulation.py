"""From speech to what the mouth does: a stream of audio in, a stream of articulation curves out."""

from collections.abc import Iterable, Iterator

import torch

from app.speech.band_energy import BandEnergyArticulation
from app.speech.channels import CHANNELS, FloatArray
from app.speech.framing import Framing, windows
from app.speech.sampling import sample_at

__all__ = ["CHANNELS", "SpeechAnalyser", "sample_at"]

_WINDOW_ROWS = 400
"""Rows computed at a time: 4 s, so that the context computed twice costs little and memory stays small."""


class SpeechAnalyser:
    """Tells how jaw and lips move in speech of any language.

    One analyser may be used for many recordings, one at a time or interleaved: it keeps nothing of them.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._model = BandEnergyArticulation().eval().to(device)
        self._framing = Framing(_WINDOW_ROWS, self._model.before, self._model.after)

    def analyse(self, blocks: Iterable[FloatArray]) -> Iterator[FloatArray]:
        """Articulation of a recording, in pieces, as its audio arrives.

        blocks: mono audio at 16 kHz, float32 [n] in -1..1, of any lengths; samples that are not finite count
        as silence, louder ones are clipped. Yields float32 [m, 6] pieces, columns `CHANNELS`, together
        ceil(samples / 160) rows; row k describes the instant k * 10 ms. How the blocks are cut makes no
        difference; memory does not grow with the recording. Raises ValueError for a block of another shape.
        """
        for window, rows in windows(blocks, self._framing):
            with torch.inference_mode():
                curve = self._model(torch.from_numpy(window).to(self._device)[None])[0]
            yield curve[:rows].cpu().numpy()
