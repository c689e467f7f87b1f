"""Makes clean synthesised speech sound like recordings: rooms, microphones, codecs, noise, music, levels."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

RATE = 16_000


@dataclass(frozen=True)
class Alone:
    """Examples without any speech, in all of which the mouth must be at rest: their share, how many of them are
    recorded music and nothing else rather than silence, noise, hum, breath or music, and how far below full scale
    their peaks may be."""

    share: float
    music_share: float
    least_db: float


SOME = Alone(0.1, 0.0, 30.0)
MOSTLY_MUSIC = Alone(0.5, 0.7, 60.0)

_LEAST_SPEECH_DB = 30.0
"""How far below full scale the peak of speech may be."""

_BACKGROUNDS = {"none": 0.25, "noise": 0.35, "hum": 0.15, "breath": 0.1, "music": 0.15}
"""Share of examples by what is heard beside the speech; a quarter of those with something also have noise."""

_RECORDED_SHARE = 0.8
"""Share of the music that is recorded, where there is any."""

_TEMPO = (0.85, 1.25)
"""Range by which speech is played slower or faster, voice and tract with it: from larger heads to children's."""


class Augmenter:
    """Draws from one random generator; used by one thread."""

    def __init__(self, seed: int, recorded_music: Tensor | None = None, alone: Alone = SOME) -> None:
        """recorded_music: [samples] of unit level, heard in most of the examples with music; without it, all of them
        have made-up music."""
        self._rng = torch.Generator().manual_seed(seed)
        self._music = _music(60 * RATE, self._rng)
        self._recorded_music = recorded_music
        self._alone = alone

    def tempo(self) -> float:
        """A factor of speed, of which the example's source has to be so much longer."""
        return self._uniform(*_TEMPO)

    def empties(self, count: int) -> Tensor:
        """Which examples of a batch get no speech: bool [count]."""
        return torch.rand(count, generator=self._rng) < self._alone.share

    def __call__(self, speech: Tensor, empty: Tensor) -> Tensor:
        """[batch, samples] of speech -> the same speech as if recorded, at the same instants."""
        length = speech.shape[-1]
        padded = _fft_length(length + RATE // 2)
        spectrum = torch.fft.rfft(speech, n=padded)
        for index in range(len(speech)):
            if self._chance(0.25):
                spectrum[index] *= torch.fft.rfft(self._room(), n=padded)
        speech = torch.fft.irfft(spectrum, n=padded)[:, :length]
        active = speech.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=1e-3)
        noise = torch.stack([self._background(length, bool(alone)) for alone in empty])
        mixed = torch.where(empty[:, None], noise * active, speech + noise * active)
        least = [self._alone.least_db if alone else _LEAST_SPEECH_DB for alone in empty]
        return torch.stack([self._recorded(one, least_db) for one, least_db in zip(mixed, least, strict=True)])

    def _background(self, length: int, alone: bool) -> Tensor:
        """Noise, hum, breath, music or nothing, relative to speech of unit level."""
        if alone and self._recorded_music is not None and self._chance(self._alone.music_share):
            return self._stretch_of(self._recorded_music, length)
        at = self._uniform(0, 1)
        kinds = list(_BACKGROUNDS)
        kind = kinds[int(np.searchsorted(np.cumsum(list(_BACKGROUNDS.values())), at).clip(max=len(kinds) - 1))]
        background = torch.zeros(length)
        if kind == "none":
            return background
        if kind == "noise" or self._chance(0.25):
            background += self._noise(length) * 10 ** (-self._uniform(5, 45) / 20)
        if kind == "hum":
            background += self._hum(length) * 10 ** (-self._uniform(0, 40) / 20)
        if kind == "breath":
            background += self._breath(length) * 10 ** (-self._uniform(3, 35) / 20)
        if kind == "music":
            recorded = self._recorded_music is not None and self._chance(_RECORDED_SHARE)
            bed = self._recorded_music if recorded else self._music
            background += self._stretch_of(bed, length) * 10 ** (-self._uniform(5, 35) / 20)
        return background

    def _stretch_of(self, bed: Tensor, length: int) -> Tensor:
        begin = int(self._uniform(0, len(bed) - length))
        return bed[begin : begin + length]

    def _hum(self, length: int) -> Tensor:
        """A steady buzz of unit level: of mains at 50 or 60 Hz, a fan or a transformer."""
        pitch = self._uniform(40, 250)
        if self._chance(0.7):
            pitch = (50.0 if self._chance(0.5) else 60.0) * self._uniform(0.99, 1.01)
        times = torch.arange(length) / RATE
        fall = self._uniform(0.3, 2)
        buzz = torch.zeros(length)
        for harmonic in range(1, int(self._uniform(1, 20)) + 1):
            level = torch.rand((), generator=self._rng) * harmonic**-fall
            phase = self._uniform(0, 2 * math.pi)
            buzz += level * torch.sin(2 * math.pi * harmonic * pitch * times + phase)
        if self._chance(0.3):
            buzz *= 1 + self._uniform(0, 0.5) * torch.sin(2 * math.pi * self._uniform(0.2, 8) * times)
        return buzz / buzz.square().mean().sqrt().clamp(min=1e-9)

    def _breath(self, length: int) -> Tensor:
        """Someone breathing: noise with two or three resonances, swelling for 0.3 to 1.5 s; about unit level."""
        padded = _fft_length(length)
        spectrum = torch.fft.rfft(torch.randn(padded, generator=self._rng))
        hertz = torch.linspace(0, RATE / 2, len(spectrum))
        gain = 0.02 + torch.zeros(len(spectrum))
        for centre in (self._uniform(300, 900), self._uniform(1000, 2200), self._uniform(2200, 5000)):
            gain += self._uniform(0.1, 1) * torch.exp(-0.5 * ((hertz - centre) / self._uniform(100, 800)) ** 2)
        noise = torch.fft.irfft(spectrum * gain, n=padded)[:length]
        swell = torch.zeros(length)
        at = int(self._uniform(0, 2) * RATE)
        while at < length:
            lasting = min(int(self._uniform(0.3, 1.5) * RATE), length - at)
            swell[at : at + lasting] = torch.hann_window(lasting)
            at += lasting + int(self._uniform(0.1, 2.5) * RATE)
        noise *= swell
        return noise / noise.square().mean().sqrt().clamp(min=1e-6)

    def _noise(self, length: int) -> Tensor:
        """Noise of unit level whose spectrum falls by 0 to 9 dB an octave, sometimes with swells."""
        padded = _fft_length(length)
        spectrum = torch.fft.rfft(torch.randn(padded, generator=self._rng))
        bins = torch.arange(len(spectrum)).clamp(min=8 * length // RATE)
        noise = torch.fft.irfft(spectrum * bins.float() ** -self._uniform(0, 1.5), n=padded)[:length]
        if self._chance(0.4):
            knots = torch.rand(1, 1, max(2, length // (RATE // 4)), generator=self._rng) * 1.5 + 0.1
            noise = noise * torch.nn.functional.interpolate(knots, length, mode="linear")[0, 0]
        return noise / noise.square().mean().sqrt().clamp(min=1e-9)

    def _room(self) -> Tensor:
        """An impulse response whose direct sound comes at once: a reverberation of 0.1 to 0.6 s."""
        seconds = self._uniform(0.1, 0.6)
        times = torch.arange(int(min(seconds, 0.5) * RATE)) / RATE
        tail = torch.randn(len(times), generator=self._rng) * 10 ** (-3 * times / seconds)
        tail *= 10 ** (-self._uniform(0, 15) / 20) / tail.square().sum().sqrt()
        tail[0] = 1.0
        return tail

    def _recorded(self, sound: Tensor, least_db: float) -> Tensor:
        """Through a microphone, a codec and a level control, its peak at most least_db below full scale."""
        length = len(sound)
        padded = _fft_length(length)
        spectrum = torch.fft.rfft(sound, n=padded)
        hertz = torch.linspace(0, RATE / 2, len(spectrum))
        knots = torch.randn(1, 1, 10, generator=self._rng) * self._uniform(0, 4)
        gain_db = torch.nn.functional.interpolate(knots, len(spectrum), mode="linear")[0, 0]
        gain_db = gain_db + self._uniform(-4, 4) * torch.log2(hertz.clamp(min=50) / 1000)
        if self._chance(0.25):
            gain_db -= 24 * torch.log2(hertz.clamp(min=1) / self._uniform(3200, 7500)).clamp(min=0, max=3)
        if self._chance(0.3):
            gain_db -= 18 * torch.log2(self._uniform(60, 280) / hertz.clamp(min=1)).clamp(min=0, max=4)
        sound = torch.fft.irfft(spectrum * 10 ** (gain_db / 20), n=padded)[:length]
        peak = sound.abs().max().clamp(min=1e-4)
        sound = sound / peak * 10 ** (-self._uniform(0, least_db) / 20)
        if self._chance(0.1):
            sound = torch.tanh(sound * self._uniform(1, 4))
        if self._chance(0.1):
            companded = torch.sign(sound) * torch.log1p(255 * sound.abs()) / math.log(256)  # mu-law, ITU-T G.711
            companded = torch.round(companded * 127) / 127
            sound = torch.sign(companded) * (256 ** companded.abs() - 1) / 255
        return torch.round(sound * 32767) / 32768

    def _uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self._rng))

    def _chance(self, share: float) -> bool:
        return self._uniform(0, 1) < share


def _fft_length(samples: int) -> int:
    """The next length of which Fourier transforms are quick."""
    unit = 2 ** (samples.bit_length() - 4)
    return -(-samples // unit) * unit


def _music(length: int, rng: torch.Generator) -> Tensor:
    """A made-up bed of unit level: chords of decaying harmonic notes over a pulse of noise."""
    bed = torch.zeros(length)
    at = 0
    while at < length:
        duration = int((0.2 + 0.8 * float(torch.rand((), generator=rng))) * RATE)
        times = torch.arange(min(duration * 2, length - at)) / RATE
        root = 55.0 * 2 ** (float(torch.randint(0, 36, (), generator=rng)) / 12)
        for semitones in (0, 4, 7, 12):
            pitch = root * 2 ** (semitones / 12)
            for harmonic in range(1, 9):
                if harmonic * pitch < RATE / 2:
                    fade = torch.exp(-times * (1.0 + harmonic))
                    bed[at : at + len(times)] += torch.sin(2 * math.pi * harmonic * pitch * times) * fade / harmonic
        hit = torch.randn(len(times), generator=rng) * torch.exp(-times * 40)
        bed[at : at + len(times)] += hit * float(torch.rand((), generator=rng))
        at += duration
    return bed / bed.square().mean().sqrt()
