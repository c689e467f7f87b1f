"""Options and capabilities of the built-in renderer. Imports no torch: the API validates requests with this."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from app.render.contract import Capabilities


class WarpOptions(BaseModel):
    """What a caller can set in `options` for renderer `warp`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    fps: Annotated[float, Field(ge=10, le=60)] | None = None
    """Frames per second of the result; null takes the template's own rate, and 25 for a portrait."""
    strength: Annotated[float, Field(ge=0.0, le=1.5)] = 1.0
    """How far the mouth opens: 1 is natural, 0 keeps it shut."""
    crf: Annotated[int, Field(ge=10, le=35)] = 20
    """x264's constant rate factor: lower is better and larger."""


CAPABILITIES = Capabilities(sources=frozenset({"image", "video"}), options=WarpOptions)
