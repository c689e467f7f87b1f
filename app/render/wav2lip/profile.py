"""What a face-crop generator is, as data: sizes, layers, and what its inputs and outputs mean. Imports no torch.

The published Wav2Lip generator is `WAV2LIP`. Others of the same family (larger crops, other widths) differ in numbers
only: a JSON file beside the checkpoint, with the checkpoint's name and the ending `.json`, says which.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.retry.taxonomy import CodedError, FailureCode

Width = Annotated[int, Field(ge=1, le=4096)]
Widths = Annotated[tuple[Width, ...], Field(min_length=1, max_length=12)]
Stride = tuple[Annotated[int, Field(ge=1, le=4)], Annotated[int, Field(ge=1, le=4)]]

SAMPLE_RATE = 16_000
"""Of the speech, samples/s."""


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MelScale(_Data):
    """How the speech becomes a mel spectrogram. Decibels are mapped linearly to -`bound`..`bound`."""

    bands: Annotated[int, Field(ge=8, le=256)] = 80
    window: Annotated[int, Field(ge=16, le=4096)] = 800
    """Samples of one spectrum, and of its Hann window."""
    hop: Annotated[int, Field(ge=8, le=4096)] = 200
    preemphasis: Annotated[float, Field(ge=0, lt=1)] = 0.97
    low_hz: Annotated[float, Field(ge=0)] = 55.0
    high_hz: Annotated[float, Field(gt=0, le=SAMPLE_RATE / 2)] = 7600.0
    reference_db: float = 20.0
    floor_db: Annotated[float, Field(lt=0)] = -100.0
    bound: Annotated[float, Field(gt=0)] = 4.0

    @property
    def rate(self) -> float:
        """Columns a second."""
        return SAMPLE_RATE / self.hop


class SpeechLayer(_Data):
    """One stage of the speech encoder: a convolution with `stride` (bands, time), then residual ones."""

    width: Width
    stride: Stride = (1, 1)
    residual: Annotated[int, Field(ge=0, le=8)] = 2


class GeneratorProfile(_Data):
    """A generator of the Wav2Lip family.

    The face encoder halves the crop from stage to stage, down to `crop / 2**(stages - 2)` pixels, which its last stage
    takes in one step; the decoder mirrors it.
    """

    crop: Annotated[int, Field(ge=32, le=1024)] = 96
    """Side of the square face crop, in pixels."""
    columns: Annotated[int, Field(ge=4, le=256)] = 16
    """Mel columns that one frame hears."""
    lead_s: Annotated[float, Field(ge=-1, le=1)] = 0.0
    """How long before its frame the first of these columns begins. The original's script takes 0."""
    mel: MelScale = MelScale()
    colours: Literal["bgr", "rgb"] = "bgr"
    low: float = 0.0
    high: float = 1.0
    """Values of black and white, at the input and at the output."""
    masked_from: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the crop's height below which the first three channels are blank: what the generator fills in."""
    speech: Annotated[tuple[SpeechLayer, ...], Field(min_length=2, max_length=8)]
    face: Annotated[tuple[Widths, ...], Field(min_length=3, max_length=12)]
    """Widths of the face encoder's convolutions, by stage, from the full crop to one pixel."""
    decoder: Annotated[tuple[Widths, ...], Field(min_length=3, max_length=12)]
    """Widths of the decoder's convolutions, by stage, from one pixel to the full crop."""
    output: Width = 32

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.decoder) != len(self.face):
            raise ValueError(
                f"decoder has {len(self.decoder)} stages and face {len(self.face)}; they mirror each other"
            )
        halvings = len(self.face) - 2
        if self.crop % 2**halvings or self.smallest < 2:
            raise ValueError(f"a crop of {self.crop} pixels cannot be halved {halvings} times to 2 pixels or more")
        if self.high <= self.low:
            raise ValueError("high must be above low")
        if min(self.speech_left) < 1:
            raise ValueError("the strides of speech leave nothing of the mel window")
        return self

    @property
    def smallest(self) -> int:
        """Side of the face's feature map before the encoder's last stage, in pixels."""
        return int(self.crop // 2 ** (len(self.face) - 2))

    @property
    def speech_left(self) -> tuple[int, int]:
        """Bands and columns that the strides of the speech encoder leave."""
        bands, columns = self.mel.bands, self.columns
        for layer in self.speech[:-1]:
            bands, columns = -(-bands // layer.stride[0]), -(-columns // layer.stride[1])
        return bands, columns


WAV2LIP = GeneratorProfile(
    speech=(
        SpeechLayer(width=32),
        SpeechLayer(width=64, stride=(3, 1)),
        SpeechLayer(width=128, stride=(3, 3)),
        SpeechLayer(width=256, stride=(3, 2), residual=1),
        SpeechLayer(width=512, residual=0),
    ),
    face=((16,), (32,) * 3, (64,) * 4, (128,) * 3, (256,) * 3, (512,) * 2, (512,) * 2),
    decoder=((512,), (512,) * 2, (512,) * 3, (384,) * 3, (256,) * 3, (128,) * 3, (64,) * 3),
)
"""The published architecture (Prajwal et al., ACM MM 2020, arXiv:2008.10010): 36.3 million weights."""


def profile_path(checkpoint: Path) -> Path:
    """Where the profile of another generator than `WAV2LIP` is looked for."""
    return checkpoint.with_name(f"{checkpoint.name}.json")


def read_profile(checkpoint: Path) -> GeneratorProfile:
    """The profile beside `checkpoint`, or the published one. Raises CodedError (INTERNAL, `bad_profile`)."""
    path = profile_path(checkpoint)
    if not path.is_file():
        return WAV2LIP
    try:
        return GeneratorProfile.model_validate(WAV2LIP.model_dump() | json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CodedError(
            FailureCode.INTERNAL,
            f"The profile {path.name} beside the checkpoint cannot be used: {_told(error)}",
            "docs/wav2lip.md lists its fields; without the file the published Wav2Lip generator is expected.",
            reason="bad_profile",
        ) from error


def _told(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'profile'}: {item['msg']}" for item in error.errors())
    return str(error)
