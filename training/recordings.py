"""Recorded speech whose text is known, its phones timed by pocketsphinx (BSD licence).

The aligner is independent of everything the network learns from, so it can judge the network.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from phones import ARPABET
from voices import PAUSE, Phone, Spoken, read_wave

LIBRIVOX = Path("/usr/share/pocketsphinx/test/data/librivox")
"""Five sentences read from "Sense and Sensibility" (LibriVox, public domain), in Debian's
pocketsphinx-testdata."""

_FRAME_S = 0.01
"""pocketsphinx's clock."""


class NotAlignedError(Exception):
    """The text could not be laid over the recording, or has a word that the dictionary lacks."""


@cache
def _decoder() -> Any:
    from pocketsphinx import Decoder

    return Decoder(lm=None, loglevel="FATAL")


def aligned(audio: npt.NDArray[np.int16], text: str) -> Spoken:
    """The recording (16 kHz) with its phones (ARPAbet). Raises NotAlignedError."""
    decoder = _decoder()
    words = re.sub(r"[^a-z' ]", " ", text.lower()).split()
    if any(decoder.lookup_word(word) is None for word in words):
        raise NotAlignedError(text)
    try:
        decoder.set_align_text(" ".join(words))
        _hear(decoder, audio)
        decoder.set_alignment()
        _hear(decoder, audio)
        entries = [phone for word in decoder.get_alignment() for phone in word]
    except (RuntimeError, TypeError) as problem:
        raise NotAlignedError(text) from problem
    phones = [
        Phone(
            ARPABET.get(entry.name.lower(), PAUSE),
            entry.start * _FRAME_S,
            (entry.start + entry.duration) * _FRAME_S,
        )
        for entry in entries
    ]
    return Spoken(audio, phones)


def librivox() -> list[tuple[str, Spoken]]:
    """The LibriVox sentences, named and aligned. Raises FileNotFoundError without pocketsphinx-testdata."""
    sentences = []
    for line in (LIBRIVOX / "transcription").read_text().splitlines():
        found = re.fullmatch(r"<s> (.*) </s> \((.*)\)", line.strip())
        if found is None:
            continue
        audio, _ = read_wave(LIBRIVOX / f"{found[2]}.wav")
        sentences.append((found[2], aligned(audio, found[1])))
    return sentences


def _hear(decoder: Any, audio: npt.NDArray[np.int16]) -> None:
    decoder.start_utt()
    decoder.process_raw(audio.tobytes(), full_utt=True)
    decoder.end_utt()
