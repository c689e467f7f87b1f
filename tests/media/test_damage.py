"""Whatever bytes a file holds: an answer or a CodedError, never another exception."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.media.audio_in import audio_length
from app.media.image import load_image
from app.media.info import MediaLimits
from app.media.probe import probe
from app.media.video_in import VideoSource
from app.retry.taxonomy import CodedError
from tests.media.makers import tone, write_audio, write_video, write_wav

LIMITS = MediaLimits(max_seconds=600)
ROUNDS = 25
SUFFIXES = [".mp4", ".mkv", ".webm", ".m4a", ".mp3", ".flac", ".ogg", ".wav", ".jpg", ".png", ".webp"]


def play(path: Path) -> None:
    with VideoSource(path) as source:
        for _ in source.batches(8, min(40, source.frame_count * 2)):
            pass


def make(path: Path) -> Path:
    if path.suffix in (".jpg", ".png", ".webp"):
        noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        return path
    if path.suffix == ".wav":
        return write_wav(path, tone(0.3))
    if path.suffix in (".m4a", ".mp3", ".flac", ".ogg"):
        codec = {".m4a": "aac", ".mp3": "libmp3lame", ".flac": "flac", ".ogg": "libopus"}[path.suffix]
        return write_audio(path, codec, 0.5)
    webm = path.suffix == ".webm"
    return write_video(path, 20, codec="libvpx-vp9" if webm else "libx264", audio="libopus" if webm else "aac")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damage_at_random_places_is_answered_or_coded(tmp_path: Path, suffix: str) -> None:
    whole = make(tmp_path / f"whole{suffix}").read_bytes()
    dice = random.Random(suffix)
    path = tmp_path / f"damaged{suffix}"
    for _ in range(ROUNDS):
        raw = bytearray(whole)
        for _ in range(dice.choice((1, 3, 10, 50))):
            reach = len(raw) if dice.random() < 0.5 else min(len(raw), 1500)
            raw[dice.randrange(reach)] = dice.choice((0, 255, dice.randrange(256)))
        if dice.random() < 0.2:
            del raw[dice.randrange(len(raw)) :]
        path.write_bytes(raw)
        readers = [lambda: probe(path, LIMITS), lambda: audio_length(path), lambda: play(path)]
        for read in readers if suffix not in (".jpg", ".png", ".webp") else [readers[0], lambda: load_image(path, 64)]:
            try:
                read()
            except CodedError:
                continue
