"""The phoneme recogniser `hama` (PyPI, Apache-2.0), scored on the same seals, to compare with."""

from collections.abc import Iterator

import numpy as np
from coarticulation import LETTERS
from corpus import Take
from scores import NO_SEALS, FloatArray, SealScore, score_seals
from voices import PAUSE, RATE

from app.speech.channels import HOP

_LONGEST_ROWS = 600
_PAUSE_ROWS = 8


def hama_scores(takes: list[Take]) -> dict[str, SealScore]:
    """Its score on each take, all shifted by the one lag at which it finds most.

    hama tells when a phoneme is emitted, not how long it lasts: a moment stands for the seal.
    """
    from hama.asr import ASRModel

    model = ASRModel()
    emitted = {
        take.name: [
            start + span.start_ms / 1000
            for start, sound in _utterances(take)
            for span in model.phoneme_spans(model.transcribe_waveform(sound, RATE))
            if span.phoneme[0] in "pbm"
        ]
        for take in takes
    }

    def scores(lag: float) -> dict[str, SealScore]:
        return {
            take.name: score_seals([(at - lag, at - lag) for at in emitted[take.name]], take.seals) for take in takes
        }

    best = max(np.arange(0.0, 0.15, 0.01), key=lambda lag: sum(scores(lag).values(), start=NO_SEALS).found)
    return scores(best)


def _utterances(take: Take) -> Iterator[tuple[float, FloatArray]]:
    """Stretches of some seconds, cut in pauses, with their starts: hama loses its way in longer ones."""
    rows, start = len(take.letters), 0
    while start < rows:
        end = min(start + _LONGEST_ROWS, rows)
        while end < rows and take.letters[end] != LETTERS.index(PAUSE):
            end += 1
        end = min(end + _PAUSE_ROWS, rows)
        yield start * HOP / RATE, take.audio[start * HOP : end * HOP].astype(np.float32) / 32768
        start = end
