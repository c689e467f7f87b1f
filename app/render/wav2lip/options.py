"""Options, capabilities and needs of renderer `wav2lip`. Imports no torch: the API validates requests with this."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from app.render.contract import Capabilities

CHECKPOINT = "checkpoint"
"""The renderer's setting that names the weights' file; `wav2lip_checkpoint` of the service."""


class Wav2LipOptions(BaseModel):
    """What a caller can set in `options` for renderer `wav2lip`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    fps: Annotated[float, Field(ge=10, le=60)] | None = None
    """Frames per second of the result; null takes the template's own rate, and 25 for a portrait."""
    chin: Annotated[float, Field(ge=0.0, le=0.5)] = 0.06
    """Room below the chin in the generator's square, as a share of the face's height."""
    crf: Annotated[int, Field(ge=10, le=35)] = 20
    """x264's constant rate factor: lower is better and larger."""
    crop: ClassVar[str] = "none"
    max_side: ClassVar[int | None] = None

    @property
    def encoding(self) -> tuple[int, str]:
        """x264's constant rate factor and preset."""
        return self.crf, "veryfast"


class Wav2LipSettings(BaseModel):
    """What an operator can set in a tier of renderer `wav2lip`."""

    model_config = ConfigDict(extra="forbid")

    checkpoint: str | None = None
    """File of the weights; left out, that of the setting `wav2lip_checkpoint`."""


CAPABILITIES = Capabilities(sources=frozenset({"image", "video"}), options=Wav2LipOptions, settings=Wav2LipSettings)


def why_absent(settings: Mapping[str, Any]) -> str:
    """Why the renderer cannot be offered with these settings; empty if it can. Looks at the file, not into it."""
    path = settings.get(CHECKPOINT, "")
    if not path:
        return "no checkpoint is configured (setting `wav2lip_checkpoint`, or `checkpoint` of its tier)"
    if not Path(path).is_file():
        return f"its checkpoint {path} is not there"
    return ""
