"""The generator of the Wav2Lip family in torch, built from its profile.

Architecture and the names of its weights: Prajwal et al., "A Lip Sync Expert Is All You Need for Speech to Lip
Generation In The Wild", ACM MM 2020 (arXiv:2008.10010), and the weights published with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from app.render.wav2lip.fused import FusedBlock, can_fuse
from app.render.wav2lip.profile import GeneratorProfile


class Block(nn.Module):
    """Convolution (or its transpose), batch normalisation, residual where asked for, ReLU.

    `fold` puts all but the ReLU into the convolution; after it there is nothing left to train.
    """

    def __init__(self, convolution: nn.Conv2d | nn.ConvTranspose2d, *, residual: bool = False) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels))
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """`[B, in, H, W]` to `[B, out, H', W']`."""
        out: Tensor = self.conv_block(x)
        if self.residual:
            out = out.add_(x)
        return functional.relu_(out)

    def fold(self) -> None:
        """Merge normalisation and residual into weight and bias: what is added unchanged is a middle weight of 1."""
        convolution, norm = self.conv_block
        assert isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d)
        assert isinstance(norm, nn.BatchNorm2d)
        transposed = isinstance(convolution, nn.ConvTranspose2d)
        fused = nn.utils.fuse_conv_bn_eval(convolution.eval(), norm.eval(), transpose=transposed)
        if self.residual:
            middle = fused.kernel_size[0] // 2
            fused.weight.data[:, :, middle, middle] += torch.eye(fused.out_channels)
            self.residual = False
        self.conv_block = nn.Sequential(fused)

    def fused(self) -> FusedBlock:
        """The same block, folded before, as one call (`app.render.wav2lip.fused`)."""
        (convolution,) = self.conv_block
        assert isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d)
        return FusedBlock(convolution)


def _conv(
    before: int, after: int, kernel: int | tuple[int, int], stride: int | tuple[int, int] = 1, padding: int = 0
) -> Block:
    return Block(nn.Conv2d(before, after, kernel, stride, padding))


def _residual(width: int) -> Block:
    return Block(nn.Conv2d(width, width, 3, 1, 1), residual=True)


class Generator(nn.Module):
    """Speech and a face with its lower half hidden in; the face that says it out."""

    def __init__(self, profile: GeneratorProfile) -> None:
        super().__init__()
        self.profile = profile
        self.face_encoder_blocks = nn.ModuleList(_face_stages(profile))
        self.audio_encoder = nn.Sequential(*_speech_blocks(profile))
        self.face_decoder_blocks = nn.ModuleList(_decoder_stages(profile))
        last = profile.decoder[-1][-1] + profile.face[0][-1]
        self.output_block = nn.Sequential(
            _conv(last, profile.output, 3, padding=1), nn.Conv2d(profile.output, 3, 1), nn.Sigmoid()
        )
        self.device = torch.device("cpu")
        self.dtype = torch.float32

    def forward(self, mel: Tensor, face: Tensor) -> Tensor:
        """Make the faces of B frames.

        Args:
            mel: `[B, 1, bands, columns]`, the speech around each frame (`mel_spectrogram`).
            face: `[B, 6, crop, crop]`, three channels with the lower half blank, then three of the reference.

        Returns:
            `[B, 3, crop, crop]` float32, in the colours and range of the profile.
        """
        return self.speak(mel, self.encode_face(face))

    def encode_face(self, face: Tensor) -> list[Tensor]:
        """The features of faces `[B, 6, crop, crop]`, from the full crop to one pixel; they do not depend on speech."""
        x = self._own(face)
        features = []
        for stage in self.face_encoder_blocks:
            x = stage(x)
            features.append(x)
        return features

    def speak(self, mel: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Faces `[B, 3, crop, crop]` float32 for speech `[B, 1, bands, columns]`; features of one face serve all B."""
        x = self.audio_encoder(self._own(mel))
        for stage, seen in zip(self.face_decoder_blocks, reversed(features), strict=True):
            x = stage(x)
            x = torch.cat([x, seen.expand(len(x), -1, -1, -1)], dim=1)
        out: Tensor = self.output_block(x).float()
        low, high = self.profile.low, self.profile.high
        return out if (low, high) == (0.0, 1.0) else out * (high - low) + low

    def freeze(self, device: torch.device, dtype: torch.dtype) -> None:
        """Make it ready for inference on `device` in `dtype`: normalisations folded in, nothing to train."""
        for module in self.modules():
            if isinstance(module, Block):
                module.fold()
        self.requires_grad_(False)
        self.eval()
        self.to(device, dtype)
        for weight in self.parameters():
            if weight.ndim == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        if can_fuse(device):
            self._fuse()
        self.device, self.dtype = device, dtype

    def _fuse(self) -> None:
        for module in list(self.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, Block):
                    setattr(module, name, child.fused())

    def _own(self, x: Tensor) -> Tensor:
        return x.to(device=self.device, dtype=self.dtype, memory_format=torch.channels_last)


def _face_stages(profile: GeneratorProfile) -> list[nn.Sequential]:
    stages: list[nn.Sequential] = []
    before = 6
    for number, widths in enumerate(profile.face):
        first = widths[0]
        if number == 0:
            blocks = [_conv(before, first, 7, padding=3), *(_residual(width) for width in widths[1:])]
        elif number < len(profile.face) - 1:
            blocks = [_conv(before, first, 3, 2, 1), *(_residual(width) for width in widths[1:])]
        else:
            blocks = [_conv(before, first, profile.smallest), *(_conv(first, width, 1) for width in widths[1:])]
        stages.append(nn.Sequential(*blocks))
        before = widths[-1]
    return stages


def _speech_blocks(profile: GeneratorProfile) -> list[Block]:
    blocks: list[Block] = []
    before = 1
    for layer in profile.speech[:-1]:
        blocks.append(_conv(before, layer.width, 3, layer.stride, 1))
        blocks.extend(_residual(layer.width) for _ in range(layer.residual))
        before = layer.width
    last = profile.speech[-1].width
    return [*blocks, _conv(before, last, profile.speech_left), _conv(last, last, 1)]


def _decoder_stages(profile: GeneratorProfile) -> list[nn.Sequential]:
    stages: list[nn.Sequential] = []
    before = profile.speech[-1].width
    for number, (widths, seen) in enumerate(zip(profile.decoder, reversed(profile.face), strict=True)):
        first = widths[0]
        if number == 0:
            entry = _conv(before, first, 1)
        elif number == 1:
            entry = Block(nn.ConvTranspose2d(before, first, profile.smallest))
        else:
            entry = Block(nn.ConvTranspose2d(before, first, 3, 2, 1, output_padding=1))
        stages.append(nn.Sequential(entry, *(_residual(width) for width in widths[1:])))
        before = widths[-1] + seen[-1]
    return stages
