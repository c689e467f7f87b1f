"""The training corpus: minutes of speech by many voices, with the articulation that it should yield."""

import random
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import voices
from coarticulation import curves, letter_rows, sealed_spans
from kokoro import HELD_OUT_SPEAKER, SPEAKERS, kokoro, phonemes
from recordings import NotAlignedError, aligned, librivox, prompts
from texts import utterance, words_of
from voices import PAUSE, RATE, Phone, Spoken

_ESPEAK_MINUTES = 3.0  # for each language
_ESPEAK_LANGUAGES = words_of("en-us en-us en-gb-x-rp cmn cmn es de fr it ru hi ja ko tr pl ar nl sw fi el")
"""English and Mandarin twice."""

_ESPEAK_VARIANTS = words_of(
    "m1 m2 m3 m4 m5 m6 m7 m8 f1 f3 f4 f5 Alex Andy Annie Denis Gene Jacky Lee Michael Mike adam anika antonio "
    "aunty belinda benjamin boris caleb david ed edward grandpa ian john linda marcelo max miguel norbert paul "
    "pedro quincy rob robert shelby steph2 travis klatt2 klatt4 zac"
)

HELD_OUT_BESIDE = ("en-us", "cmn", "es", "hi", "de", "fr", "it", "ru", "ja", "ar")
HELD_OUT_LANGUAGES = ("pt", "sv")
HELD_OUT_VARIANTS = ("f2", "steph", "grandma", "Andrea", "klatt3", "victor", "michel", "Gene2")
"""None of these is heard in training; nor are flite's awb and Kokoro's jm_kumo. Besides the held-out languages, in
which nobody speaks in training, those variants are tried in some that it knows."""

_FLITE_MINUTES = {"rms": 18.0, "slt": 18.0, "kal16": 8.0}
_FESTIVAL_MINUTES = {
    "ked_diphone": ("en", 6.0),
    "lp_diphone": ("it", 5.0),
    "pc_diphone": ("it", 5.0),
    "czech_dita": ("cs", 4.0),
    "czech_krb": ("cs", 4.0),
    "czech_machac": ("cs", 4.0),
    "czech_ph": ("cs", 4.0),
    "suo_fi_lj_diphone": ("fi", 4.0),
    "hy_fi_mv_diphone": ("fi", 4.0),
    "msu_ru_nsh_clunits": ("ru", 10.0),
}
_PIPER_MINUTES = 40.0
_NASALS_MINUTES = {"rms": 5.0, "slt": 5.0, "joe": 8.0}
_KOKORO_MINUTES = {"cmn": 3.0, "en": 3.0}
_HELD_OUT_MINUTES = 1.5  # for each held-out voice
_HELD_OUT_KOKORO_MINUTES = 0.7

_LOUDNESS = 0.08
"""Root mean square that every utterance is brought to; the augmentation varies it."""


@dataclass(frozen=True)
class Take:
    """Utterances by one voice or family of voices, one after another with pauses."""

    name: str
    audio: npt.NDArray[np.int16]
    curve: npt.NDArray[np.float32]
    letters: npt.NDArray[np.uint8]
    seals: list[tuple[float, float]]


def _take(name: str, spoken: Spoken) -> Take:
    return Take(name, spoken.audio, curves(spoken), letter_rows(spoken), sealed_spans(spoken))


def training_takes(folder: Path, seed: int, share: float = 1.0) -> list[Take]:
    """Everything to learn from; made once and kept in the folder. share: of the minutes, for a quick try."""
    takes = []
    for index, language in enumerate(_ESPEAK_LANGUAGES):
        speak = _espeak_speaker(language, _ESPEAK_VARIANTS)
        name = f"espeak-{language}-{index}"
        takes.append(_kept(folder, name, speak, _ESPEAK_MINUTES * share, seed))
    for voice, minutes in _FLITE_MINUTES.items():
        takes.append(_kept(folder, f"flite-{voice}", _flite_speaker(voice), minutes * share, seed))
    for voice, (language, minutes) in _FESTIVAL_MINUTES.items():
        speak = _festival_speaker(voice, language)
        takes.append(_kept(folder, f"festival-{voice}", speak, minutes * share, seed))
    takes.append(_kept(folder, "piper-joe", _piper_speaker(), _PIPER_MINUTES * share, seed))
    for voice, minutes in _NASALS_MINUTES.items():
        speak = _piper_speaker("en-nasals") if voice == "joe" else _flite_speaker(voice, "en-nasals")
        takes.append(_kept(folder, f"nasals-{voice}", speak, minutes * share, seed))
    for language, minutes in _KOKORO_MINUTES.items():
        speak = _kokoro_speaker(language, SPEAKERS)
        takes.append(_kept(folder, f"kokoro-{language}", speak, minutes * share, seed))
    takes.append(_take("recorded-ru", _in_a_row((spoken for _, spoken in prompts("ru")), random.Random(seed))))
    return takes


def tuning_takes(folder: Path, seed: int, share: float = 1.0) -> list[Take]:
    """New speech by voices of training, to set a threshold on."""
    speakers = {
        **{f"espeak-{language}": _espeak_speaker(language, _ESPEAK_VARIANTS) for language in ("en-us", "cmn", "de")},
        "flite-rms": _flite_speaker("rms"),
        "flite-slt": _flite_speaker("slt"),
        "piper-joe": _piper_speaker(),
    }
    minutes = _HELD_OUT_MINUTES * share
    return [_kept(folder, f"tuning-{name}", speak, minutes, seed) for name, speak in speakers.items()]


def held_out_takes(folder: Path, seed: int, share: float = 1.0) -> list[Take]:
    """Voices, and languages, that training never hears."""
    languages = [*HELD_OUT_BESIDE, *HELD_OUT_LANGUAGES]
    speakers = {f"espeak-{language}": _espeak_speaker(language, HELD_OUT_VARIANTS) for language in languages}
    speakers["flite-awb"] = _flite_speaker("awb")
    minutes = _HELD_OUT_MINUTES * share
    takes = [_kept(folder, f"held-out-{name}", speak, minutes, seed) for name, speak in speakers.items()]
    for language in ("cmn", "en"):
        speak = _kokoro_speaker(language, (HELD_OUT_SPEAKER,))
        takes.append(_kept(folder, f"held-out-kokoro-{language}", speak, _HELD_OUT_KOKORO_MINUTES * share, seed))
    return takes


def recorded_takes() -> list[Take]:
    """Real recordings, timed by pocketsphinx; never trained on, and nothing was chosen on them."""
    readings = [_take(f"librivox-{name[-4:]}", spoken) for name, spoken in librivox()]
    return [*readings, _prompts_take("recorded-en", chosen_on=False)]


def chosen_on_takes() -> list[Take]:
    """The half of the recorded prompts on which what follows training was chosen; never trained on."""
    return [_prompts_take("recorded-en-chosen-on", chosen_on=True)]


def _prompts_take(name: str, chosen_on: bool) -> Take:
    spoken = (spoken for title, spoken in prompts("en") if (zlib.crc32(title.encode()) % 2 == 0) is chosen_on)
    return _take(name, _in_a_row(spoken, random.Random(1)))


def _kokoro_speaker(language: str, speakers: tuple[str, ...]) -> Callable[[random.Random], Spoken]:
    """English is timed like a recording; Mandarin, for want of an aligner, by Kokoro's own plan."""

    def speak(rng: random.Random) -> Spoken:
        while True:
            text = "".join(letter for letter in utterance(language, rng) if not letter.isdigit())
            spoken = kokoro(phonemes(text, language), speakers, rng.uniform(0.9, 1.4), rng)
            if language != "en":
                return spoken
            try:
                return aligned(spoken.audio, text)
            except NotAlignedError:
                continue

    return speak


def _espeak_speaker(language: str, variants: tuple[str, ...] | list[str]) -> Callable[[random.Random], Spoken]:
    def speak(rng: random.Random) -> Spoken:
        return voices.espeak(
            utterance(language, rng),
            language,
            rng.choice(variants),
            words_a_minute=rng.randint(120, 210),
            pitch=rng.randint(25, 75),
            span=rng.randint(20, 80),
        )

    return speak


def _flite_speaker(voice: str, language: str = "en") -> Callable[[random.Random], Spoken]:
    def speak(rng: random.Random) -> Spoken:
        pitch = rng.uniform(85, 140) if voice == "kal16" else None
        return voices.flite(utterance(language, rng), voice, rng.uniform(0.8, 1.35), pitch)

    return speak


def _festival_speaker(voice: str, language: str) -> Callable[[random.Random], Spoken]:
    def speak(rng: random.Random) -> Spoken:
        while True:
            text = "".join(letter for letter in utterance(language, rng) if not letter.isdigit())
            try:
                return voices.festival(text, voice)
            except ValueError:
                continue

    return speak


def _piper_speaker(language: str = "en") -> Callable[[random.Random], Spoken]:
    """Piper's own alignment is some 40 ms off on stops, so its speech is timed like a recording."""

    def speak(rng: random.Random) -> Spoken:
        while True:
            text = "".join(letter for letter in utterance(language, rng) if not letter.isdigit())
            spoken = voices.piper(text, rng.uniform(0.8, 1.4), rng.uniform(0.4, 0.9), rng.uniform(0.5, 1.0))
            try:
                return aligned(spoken.audio, text)
            except NotAlignedError:
                continue

    return speak


def _kept(folder: Path, name: str, speak: Callable[[random.Random], Spoken], minutes: float, seed: int) -> Take:
    """The take from the folder, or made and put there."""
    path = folder / f"{name}-{minutes:.1f}-{seed}.npz"
    if not path.exists():
        rng = random.Random(f"{name} {seed}")
        take = _take(name, _in_a_row(_spoken(speak, minutes, rng), rng))
        folder.mkdir(parents=True, exist_ok=True)
        seals = np.array(take.seals).reshape(-1, 2)
        np.savez(path, audio=take.audio, curve=take.curve, letters=take.letters, seals=seals)
    with np.load(path) as stored:
        spans = [(float(start), float(end)) for start, end in stored["seals"]]
        return Take(name, stored["audio"], stored["curve"], stored["letters"], spans)


def _spoken(speak: Callable[[random.Random], Spoken], minutes: float, rng: random.Random) -> Iterator[Spoken]:
    """Utterances until there are so many minutes of them."""
    length = 0
    while length < minutes * 60 * RATE:
        spoken = speak(rng)
        length += len(spoken.audio)
        yield spoken


def _in_a_row(utterances: Iterable[Spoken], rng: random.Random) -> Spoken:
    """Utterances one after another, each at the same loudness, pauses of 0.1 to 1.2 s between them."""
    audio: list[npt.NDArray[np.int16]] = []
    phones: list[Phone] = []
    length = 0
    for spoken in utterances:
        gap = int(rng.uniform(0.1, 1.2) * RATE)
        level = np.sqrt(np.mean((spoken.audio / 32768.0) ** 2)) + 1e-6
        louder = np.clip(spoken.audio * (_LOUDNESS / level), -32768, 32767).astype(np.int16)
        audio += [louder, np.zeros(gap, dtype=np.int16)]
        at = length / RATE
        phones += [replace(phone, start=phone.start + at, end=phone.end + at) for phone in spoken.phones]
        length += len(louder) + gap
        phones.append(Phone(PAUSE, at + len(louder) / RATE, length / RATE))
    return Spoken(np.concatenate(audio), phones)
