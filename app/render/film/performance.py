"""What a renderer that draws a face brings to the film: what its options mean, what it hears, and what it draws."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from app.render.batching import Batch


class FilmOptions(Protocol):
    """What the film needs to know of a task's options."""

    @property
    def fps(self) -> float | None:
        """Frames a second; None takes the template's own rate, and 25 for a portrait."""

    @property
    def crop(self) -> str | list[float]:
        """What part of the picture is shown: `none` (all), `face`, or a box [left, top, right, bottom] in shares."""

    @property
    def max_side(self) -> int | None:
        """The longer side of the result in pixels at most; None: that of a template, 1920 of a portrait."""

    @property
    def encoding(self) -> tuple[int, str]:
        """x264's constant rate factor and preset."""


class Voice(Protocol):
    """The analysed speech, in whatever form the renderer hears it."""

    def frame_count(self, rate: Fraction) -> int:
        """Frames of a video of the voice's length, at least one."""


class Performance(Protocol):
    """One face saying one thing."""

    faceless: int
    """Frames played so far that show no face, and went through untouched."""
    covered: int
    """Frames in which something is in front of the mouth, and which went through untouched."""

    def play(self, frames: Tensor, numbers: npt.NDArray[np.int64], first: int, batch: Batch) -> None:
        """Draw the faces of `frames` [B, H, W, 3] uint8, which are frames `first`.. of the video and `numbers` [B] of
        the source, in as many parts as `batch` needs."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What else is worth telling of it once all is played (`RenderResult.facts`)."""

    @property
    def articulation(self) -> npt.NDArray[np.float32] | None:
        """As `RenderResult.articulation`."""
