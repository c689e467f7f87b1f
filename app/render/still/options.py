"""Options and capabilities of the last resort. Imports no framework: the API validates requests with this."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from app.render.contract import Capabilities
from app.render.output_options import QUALITIES, check_box


class StillOptions(BaseModel):
    """What a caller can set in `options` for renderer `still`: those of `warp` that have a meaning without a mouth."""

    model_config = ConfigDict(extra="forbid", strict=True)

    fps: Annotated[float, Field(ge=10, le=60)] | None = None
    """Frames per second of the result; null takes the template's own rate, and 25 for a portrait."""
    crop: Literal["none", "face"] | Annotated[list[float], Field(min_length=4, max_length=4)] = "none"
    """A box [left, top, right, bottom] in shares 0..1 of width and height, or all of the picture. Nobody looks for a
    face here: `face` shows all of it, too."""
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
    def box(self) -> list[float] | None:
        """The box to show, None for all of the picture."""
        return None if isinstance(self.crop, str) else self.crop

    @property
    def encoding(self) -> tuple[int, str]:
        """x264's constant rate factor and preset."""
        crf, preset = QUALITIES[self.quality]
        return crf if self.crf is None else self.crf, preset


CAPABILITIES = Capabilities(sources=frozenset({"image", "video"}), options=StillOptions, light=True, lip_sync=False)
