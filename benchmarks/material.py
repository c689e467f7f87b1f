"""What the benchmarks render: the sample portrait and speech, and a moving template made from the portrait."""

from __future__ import annotations

import math
import wave
from pathlib import Path

import cv2
import numpy as np

from app.media.audio_in import audio_length
from app.media.encode import VideoWriter
from app.media.image import load_image

SAMPLES = Path(__file__).parent.parent / "samples"
FPS = 25
TEMPLATE_SIZE = (1280, 720)
TEMPLATE_FRAMES = 150


def portrait() -> Path:
    """The sample portrait."""
    return next(path for path in sorted(SAMPLES.glob("portrait.*")))


def speech() -> Path:
    """The sample speech."""
    return next(path for path in sorted(SAMPLES.glob("speech.*")))


def speech_seconds() -> float:
    """Length of the sample speech."""
    return audio_length(speech(), 16_000) / 16_000


def long_speech(path: Path, times: int = 5) -> Path:
    """The sample speech, `times` over: about half a minute."""
    with wave.open(str(speech())) as source, wave.open(str(path), "wb") as out:
        out.setparams(source.getparams())
        out.writeframes(source.readframes(source.getnframes()) * times)
    return path


def template(path: Path) -> Path:
    """A 1280x720 template of 6 s at 25 frames/s: the portrait panning, zooming and turning a little."""
    width, height = TEMPLATE_SIZE
    picture = load_image(portrait(), None)
    side = picture.shape[0]
    with VideoWriter(path, width, height, FPS, None, crf=18) as writer:
        for number in range(TEMPLATE_FRAMES):
            turn = 2 * math.pi * number / TEMPLATE_FRAMES
            scale = height / side * (1.15 + 0.05 * math.sin(turn))
            matrix = cv2.getRotationMatrix2D((side / 2, side / 2), 2.0 * math.sin(2 * turn), scale)
            matrix[:, 2] += (width / 2 - side / 2 + 40 * math.sin(turn), height / 2 - side / 2 + 10 * math.cos(turn))
            frame = cv2.warpAffine(
                picture, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
            )
            writer.write(np.ascontiguousarray(frame)[None])
        writer.close()
    return path
