"""Recorded speech whose phones are known, timed by pocketsphinx (BSD licence).

Telephone prompts come with Debian: their phones were timed once by `align_prompts.py` and lie in `data/`.
"""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from phones import ARPABET, VOICED_STOPS, VOICELESS_STOPS
from voices import PAUSE, Phone, Spoken, read_wave

LIBRIVOX = Path("/usr/share/pocketsphinx/test/data/librivox")
"""Five sentences read from "Sense and Sensibility" (LibriVox, public domain), in Debian's
pocketsphinx-testdata."""

PROMPTS = {
    "en": Path("/usr/share/asterisk/sounds/en_US_f_Allison"),
    "ru": Path("/usr/share/asterisk/sounds/ru_RU_f_IvrvoiceRU"),
}
"""Where Debian's asterisk-core-sounds-en-g722 (read by Allison Smith, CC-BY-SA-3.0) and -ru-g722 (ivrvoice.ru,
CC-BY-3.0) put their files."""

DATA = Path(__file__).parent / "data"

_LONGEST_STOP_S = 0.2
_STOPS = VOICED_STOPS | VOICELESS_STOPS

FRAME_S = 0.01
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
    timed = _timed(audio, words)
    phones = [Phone(ARPABET.get(name.lower(), PAUSE), start, end) for name, start, end in timed]
    return Spoken(audio, _without_silence(phones))


def aligned_sounds(audio: npt.NDArray[np.int16], words: list[list[tuple[str, str]]]) -> Spoken:
    """The recording with its sounds, given word by word as (IPA, the ARPAbet that stands for it). Raises
    NotAlignedError."""
    names = []
    for word in words:
        spelt = " ".join(name.upper() for _, name in word)
        names.append("said-" + spelt.replace(" ", "-").lower())
        if _decoder().lookup_word(names[-1]) is None:
            _decoder().add_word(names[-1], spelt, True)
    timed = _timed(audio, names)
    sounds = [sound for word in words for sound, _ in word]
    if sum(name.lower() in ARPABET for name, _, _ in timed) != len(sounds):
        raise NotAlignedError(" ".join(sounds))
    left = iter(sounds)
    phones = [Phone(next(left) if name.lower() in ARPABET else PAUSE, start, end) for name, start, end in timed]
    return Spoken(audio, _without_silence(phones))


def _timed(audio: npt.NDArray[np.int16], words: list[str]) -> list[tuple[str, float, float]]:
    """pocketsphinx's names of the sounds and silences in the recording, with their starts and ends in seconds."""
    decoder = _decoder()
    try:
        decoder.set_align_text(" ".join(words))
        _hear(decoder, audio)
        decoder.set_alignment()
        _hear(decoder, audio)
        entries = [phone for word in decoder.get_alignment() for phone in word]
    except (RuntimeError, TypeError) as problem:
        raise NotAlignedError(" ".join(words)) from problem
    return [(one.name, one.start * FRAME_S, (one.start + one.duration) * FRAME_S) for one in entries]


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


def prompts(language: str) -> list[tuple[str, Spoken]]:
    """The telephone prompts in that language, named and with their phones. Raises FileNotFoundError without the
    Debian package."""
    spoken = []
    for line in (DATA / f"prompts_{language}.txt").read_text().splitlines():
        name, times = line.split("\t")
        ends = [(symbol.replace("_", PAUSE), int(end) * FRAME_S) for symbol, end in map(_divided, times.split())]
        starts = [0.0, *(end for _, end in ends[:-1])]
        phones = [Phone(symbol, start, end) for (symbol, end), start in zip(ends, starts, strict=True)]
        spoken.append((name, Spoken(read_g722(PROMPTS[language] / f"{name}.g722"), _without_silence(phones))))
    return spoken


def _without_silence(phones: list[Phone]) -> list[Phone]:
    """The phones with overlong stops cut: the aligner counts a silence before one as part of it."""
    cut: list[Phone] = []
    for phone in phones:
        if phone.symbol in _STOPS and phone.end - phone.start > _LONGEST_STOP_S:
            begins = phone.end - _LONGEST_STOP_S
            cut.append(Phone(PAUSE, phone.start, begins))
            phone = replace(phone, start=begins)
        cut.append(phone)
    return cut


def read_g722(path: Path) -> npt.NDArray[np.int16]:
    """Samples at 16 kHz of a bare G.722 file."""
    import av

    with av.open(str(path), format="g722") as source:
        return np.concatenate([frame.to_ndarray().ravel() for frame in source.decode(audio=0)])


def _divided(entry: str) -> tuple[str, str]:
    symbol, end = entry.rsplit(":", 1)
    return symbol, end


def _hear(decoder: Any, audio: npt.NDArray[np.int16]) -> None:
    decoder.start_utt()
    decoder.process_raw(audio.tobytes(), full_utt=True)
    decoder.end_utt()
