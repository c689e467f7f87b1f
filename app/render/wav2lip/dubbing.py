"""Batches of frames through the generator: cut, crop, infer, blend, paste."""

from __future__ import annotations

import torch
from torch import Tensor

from app.render.wav2lip.network import Generator
from app.render.wav2lip.placing import Boxes, Placement, answer_mask
from app.render.wav2lip.profile import GeneratorProfile

_CHUNK_PIXELS = 150_000
"""Pixels of patches blended at once: bounds memory, and what fits caches goes faster."""


class Dubber:
    """Gives the faces of one source new mouths. Deterministic."""

    def __init__(
        self,
        generator: Generator,
        boxes: Boxes,
        device: torch.device,
        still: Tensor | None = None,
    ) -> None:
        """`boxes` of all frames of the source; `still` [H, W, 3] uint8 where every frame shows the same picture."""
        self._generator = generator
        self._boxes = boxes
        self._device = device
        self._mask = answer_mask(generator.profile).to(device)
        self._still = None if still is None else _Still(still, boxes, generator, device)

    def dub_into(self, frames: Tensor, which: Tensor, numbers: Tensor, mel: Tensor) -> None:
        """Make the faces in `frames[which]` (frames [B, H, W, 3] uint8, which [N]) say `mel` [N, 1, bands, columns].

        numbers: [N] which frame of the source each of them is. Where it raises (a device's memory runs out, say), the
        frames are as they were.
        """
        if not len(which):
            return
        if self._still is None:
            self._dub_moving(frames, which, numbers, mel)
        else:
            self._dub_still(self._still, frames, which, mel)

    def _dub_moving(self, frames: Tensor, which: Tensor, numbers: Tensor, mel: Tensor) -> None:
        height, width = frames.shape[1:3]
        generator = self._generator
        placement = Placement(self._boxes.at(numbers), width, height, generator.profile, self._device, generator.dtype)
        crops = placement.crops(placement.whole.cut(frames, which).to(self._device))
        answer = self._answer(mel, generator.encode_face(generator_input(crops, generator.profile)))
        lower = placement.lower
        drawn: list[tuple[slice, Tensor]] = []
        for part in _chunks(len(which), lower.width * lower.height):
            patches = lower.part(part).cut(frames, which[part]).to(self._device)
            drawn.append((part, placement.blend(patches, answer[part], self._mask, part).cpu()))
        for part, mixed in drawn:
            lower.part(part).paste(frames, which[part], mixed)

    def _dub_still(self, still: _Still, frames: Tensor, which: Tensor, mel: Tensor) -> None:
        answer = self._answer(mel, still.features)
        lower = still.placement.lower
        rows = slice(int(lower.top[0]), int(lower.top[0]) + lower.height)
        columns = slice(int(lower.left[0]), int(lower.left[0]) + lower.width)
        for part in _chunks(len(which), lower.width * lower.height):
            # What is written here is never read again: a part that fails may leave its beginning behind.
            mixed = still.placement.blend(still.patch, answer[part], self._mask, part)
            frames[which[part], rows, columns] = mixed.cpu()

    def _answer(self, mel: Tensor, features: list[Tensor]) -> Tensor:
        """What the generator says, as RGB [N, 3, crop, crop] in 0..255."""
        profile = self._generator.profile
        shown = self._generator.speak(mel.to(self._device), features)
        shown = (shown - profile.low) * (255 / (profile.high - profile.low))
        return shown.flip(1) if profile.colours == "bgr" else shown


class _Still:
    """What is the same in every frame of a portrait: where the face lies, and its features."""

    def __init__(self, picture: Tensor, boxes: Boxes, generator: Generator, device: torch.device) -> None:
        height, width = picture.shape[:2]
        first = torch.zeros(1, dtype=torch.long)
        self.placement = Placement(boxes.at(first), width, height, generator.profile, device, generator.dtype)
        crop = self.placement.crops(self.placement.whole.cut(picture[None], first).to(device))
        self.features = generator.encode_face(generator_input(crop, generator.profile))
        self.patch = self.placement.lower.cut(picture[None], first).to(device)


def generator_input(crops: Tensor, profile: GeneratorProfile) -> Tensor:
    """What the generator looks at, [N, 6, crop, crop]: RGB crops [N, 3, crop, crop] in 0..255, masked and whole."""
    colours = crops.flip(1) if profile.colours == "bgr" else crops
    reference = colours / 255 * (profile.high - profile.low) + profile.low
    masked = reference.clone()
    masked[:, :, int(profile.crop * profile.masked_from) :] = profile.low
    return torch.cat([masked, reference], dim=1)


def _chunks(count: int, pixels: int) -> list[slice]:
    step = max(1, _CHUNK_PIXELS // pixels)
    return [slice(first, min(first + step, count)) for first in range(0, count, step)]
