"""A recorded sentence whose lip closures are known, and one analyser for all tests."""

import json
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from app.speech.articulation import SpeechAnalyser
from app.speech.channels import FloatArray

_CLIP = Path(__file__).parent / "data" / "librivox_amiable"


@dataclass(frozen=True)
class Recording:
    """Samples at 16 kHz in -1..1, and when the lips are sealed, in seconds."""

    samples: FloatArray
    sealed: list[tuple[float, float]]


@pytest.fixture(scope="session")
def analyser() -> SpeechAnalyser:
    return SpeechAnalyser(torch.device("cpu"))


@pytest.fixture(scope="session")
def recording() -> Recording:
    with wave.open(str(_CLIP.with_suffix(".wav"))) as reader:
        samples = np.frombuffer(reader.readframes(reader.getnframes()), dtype=np.int16)
    notes = json.loads(_CLIP.with_suffix(".json").read_text())
    sealed = [(start, end) for start, end in notes["lips_sealed_s"]]
    return Recording(samples.astype(np.float32) / 32768, sealed)
