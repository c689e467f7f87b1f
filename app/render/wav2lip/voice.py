"""The speech as the generator needs it: the mel columns that each video frame hears, and how long all of it lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from app.media.audio_in import audio_blocks
from app.render.wav2lip.mel import mel_pieces
from app.render.wav2lip.profile import SAMPLE_RATE, GeneratorProfile


@dataclass(frozen=True)
class Voice:
    """`mel` [bands, columns] (26 kB a second) and `samples` at 16 kHz."""

    mel: Tensor
    samples: int
    profile: GeneratorProfile

    def frame_count(self, rate: Fraction) -> int:
        """Frames of a video of the voice's length, at least one."""
        return max(1, round(Fraction(self.samples, SAMPLE_RATE) * rate))

    def windows(self, first: int, count: int, rate: Fraction) -> Tensor:
        """What frames `first` to `first + count - 1` hear, [count, 1, bands, columns]. Beyond the speech: silence."""
        profile = self.profile
        times = torch.arange(first, first + count, dtype=torch.float64) / float(rate) - profile.lead_s
        begin = (times * profile.mel.rate + 1e-6).floor().long()
        columns = begin[:, None] + torch.arange(profile.columns)
        inside = (columns >= 0) & (columns < self.mel.shape[1])
        heard = self.mel[:, columns.clamp(0, self.mel.shape[1] - 1)].movedim(0, 1)
        return heard.where(inside[:, None], -profile.mel.bound).unsqueeze(1)


def listen(path: Path, profile: GeneratorProfile, heard: Callable[[int], None]) -> Voice:
    """The voice of the audio in `path`, analysed as it is decoded; `heard(columns)` is called along the way.

    Raises CodedError where the audio cannot be decoded.
    """
    samples = 0

    def blocks() -> Iterator[Tensor]:
        nonlocal samples
        for block in audio_blocks(path, SAMPLE_RATE):
            samples += len(block)
            yield torch.from_numpy(block)

    pieces: list[Tensor] = []
    columns = 0
    for piece in mel_pieces(blocks(), profile.mel):
        pieces.append(piece)
        columns += piece.shape[1]
        heard(columns)
    return Voice(torch.cat(pieces, dim=1), samples, profile)
