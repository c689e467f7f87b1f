"""Options and capabilities of the built-in renderer. Imports no torch: the API validates requests with this."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from app.render.contract import Capabilities
from app.render.output_options import QUALITIES, check_box

NATURAL_BLINKS = 17.0
"""Blinks a minute of adults at rest (Bentivoglio et al., Movement Disorders 1997)."""


class WarpOptions(BaseModel):
    """What a caller can set in `options` for renderer `warp`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    fps: Annotated[float, Field(ge=10, le=60)] | None = None
    """Frames per second of the result; null takes the template's own rate, and 25 for a portrait."""
    strength: Annotated[float, Field(ge=0.0, le=1.5)] = 1.0
    """How far the mouth opens: 1 is natural, 0 keeps it shut."""
    blinks: bool | Annotated[float, Field(ge=0, le=40)] = True
    """Of a portrait: true for a natural rate, false for none, or how many a minute on average."""
    head_motion: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Of a portrait: how much head and brows move, 0 not at all, 1 lively."""
    gaze: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Of a portrait: how often the eyes look away from the viewer, 1 as in conversation; 0 leaves them fixed."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """What chance in blinks and movements starts from; null takes it from the content of the inputs."""
    crop: Literal["none", "face"] | Annotated[list[float], Field(min_length=4, max_length=4)] = "none"
    """What part of the picture is shown: all of it, head and shoulders, or a box [left, top, right, bottom] in shares
    0..1 of width and height."""
    max_side: Annotated[int, Field(ge=64, le=4096)] | None = None
    """The longer side of the result in pixels at most, it is never scaled up; null: 1920 for a portrait, a template's
    own size."""
    quality: Literal["draft", "standard", "high"] = "standard"
    """How the result is encoded: draft is small, high is larger and slower."""
    crf: Annotated[int, Field(ge=10, le=35)] | None = None
    """x264's constant rate factor in place of the one of `quality`: lower is better and larger."""

    @field_validator("crop")
    @classmethod
    def _box_in_picture(cls, crop: str | list[float]) -> str | list[float]:
        return crop if isinstance(crop, str) else check_box(crop)

    @property
    def blinks_per_minute(self) -> float:
        """The rate that `blinks` means."""
        if isinstance(self.blinks, bool):
            return NATURAL_BLINKS if self.blinks else 0.0
        return self.blinks

    @property
    def encoding(self) -> tuple[int, str]:
        """x264's constant rate factor and preset."""
        crf, preset = QUALITIES[self.quality]
        return crf if self.crf is None else self.crf, preset


CAPABILITIES = Capabilities(sources=frozenset({"image", "video"}), options=WarpOptions)
