"""Renderer `wav2lip`: a neural mouth from a checkpoint that the operator brings, laid into a photo or a video."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from app.render.contract import RenderJob
from app.render.film.footage import Footage
from app.render.film.renderer import FilmRenderer
from app.render.film.tracking import Track
from app.render.wav2lip.checkpoint import CheckpointError, load_generator
from app.render.wav2lip.network import Generator
from app.render.wav2lip.options import CHECKPOINT, Wav2LipOptions, why_absent
from app.render.wav2lip.performance import Wav2LipPerformance
from app.render.wav2lip.voice import Voice, listen


class Wav2LipRenderer(FilmRenderer[Wav2LipOptions, Voice]):
    """Settings beside those of every `FilmRenderer`: `checkpoint` (required)."""

    name: ClassVar[str] = "wav2lip"
    batch_frames: ClassVar[Mapping[str, int]] = {"cpu": 16, "cuda": 64}

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(settings)
        self._generator: Generator | None = None

    def load(self, device: str) -> None:
        """Load the checkpoint and the face models onto `device`. Raises `CheckpointError`."""
        if reason := why_absent(self.settings):
            raise CheckpointError(f"The renderer `wav2lip` is not available: {reason}.")
        super().load(device)
        self._generator = load_generator(self.settings[CHECKPOINT], self.device)

    def understand(self, options: Mapping[str, Any]) -> Wav2LipOptions:
        """A task's options."""
        return Wav2LipOptions.model_validate(dict(options))

    def listen(self, audio: Path, heard: Callable[[int], None]) -> Voice:
        """The mel spectrogram of the speech."""
        assert self._generator is not None
        return listen(audio, self._generator.profile, heard)

    def prepare(
        self,
        job: RenderJob,  # noqa: ARG002 - nothing here is left to chance, which would start from it
        options: Wav2LipOptions,
        footage: Footage,
        voice: Voice,
        track: Track,
    ) -> Wav2LipPerformance:
        """The face as the generator makes it."""
        assert self._generator is not None
        return Wav2LipPerformance(self._generator, options, footage, voice, track, self.device)
