"""The built-in renderer: makes a photo or a template video speak by warping its own lower face."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from app.render.contract import RenderJob
from app.render.film.footage import Footage
from app.render.film.renderer import FilmRenderer
from app.render.film.tracking import Track
from app.render.warp.options import WarpOptions
from app.render.warp.performance import WarpPerformance
from app.render.warp.voice import SpeechModel, Voice, listen
from app.speech.articulation import SpeechAnalyser


class WarpRenderer(FilmRenderer[WarpOptions, Voice]):
    """Needs no weights but those that come with Greenroom."""

    name: ClassVar[str] = "warp"
    batch_frames: ClassVar[Mapping[str, int]] = {"cpu": 16, "cuda": 16}

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(settings)
        self.speech: SpeechModel | None = None

    def load(self, device: str) -> None:
        """Load face and speech models onto `device`."""
        super().load(device)
        self.speech = SpeechAnalyser(self.device)

    def understand(self, options: Mapping[str, Any]) -> WarpOptions:
        """A task's options."""
        return WarpOptions.model_validate(dict(options))

    def listen(self, audio: Path, heard: Callable[[int], None]) -> Voice:
        """The articulation of the speech."""
        assert self.speech is not None
        return listen(audio, self.speech, heard)

    def prepare(
        self, job: RenderJob, options: WarpOptions, footage: Footage, voice: Voice, track: Track
    ) -> WarpPerformance:
        """The face as it is warped."""
        return WarpPerformance(job, options, footage, voice, track, self.device)
