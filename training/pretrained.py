"""The weights of hama's phoneme recogniser (PyPI, Apache-2.0), from which the articulation network begins.

Its file holds, little-endian: the name "HAMAPK" and two bytes of version, the number of tensors (u32), and for each
the length of its name (u16), the name, its type (u8: 0 for float32, 1 for float16), its rank (u8), its shape (u32
each), where it begins in the data (u64) and its bytes (u64). The data come last.
"""

import struct
from importlib import resources
from io import BytesIO

import numpy as np
import torch
from torch import Tensor

from app.speech.network import ArticulationNetwork

_TYPES = (np.dtype("<f4"), np.dtype("<f2"))
_MATRICES, _MATRICES_OF_A_BLOCK = 829, 9  # numbers that its exporter gave to nameless matrices
_CONVOLUTIONS, _CONVOLUTIONS_OF_A_BLOCK = 804, 3


def begin_from_recogniser(network: ArticulationNetwork) -> None:
    """Give the network the recogniser's filters and encoder; its last layer stays as it is."""
    theirs = _tensors(resources.files("hama.assets").joinpath("asr_waveform.hama").read_bytes())
    ours = {
        "logmel.filters": theirs["mel_fb"],
        "stem.weight": theirs["onnx::Conv_801"],
        "stem.bias": theirs["onnx::Conv_802"],
    }
    for block in range(len(network.blocks)):
        ours |= {f"blocks.{block}.{name}": tensor for name, tensor in _block(theirs, block).items()}
    missing, unexpected = network.load_state_dict(ours, strict=False)
    assert not unexpected
    assert set(missing) == {"last.weight", "last.bias"}


def _block(theirs: dict[str, Tensor], block: int) -> dict[str, Tensor]:
    def named(name: str) -> Tensor:
        return theirs[f"acoustic_model.model.blocks.{block}.{name}"]

    def matrix(number: int) -> Tensor:
        return theirs[f"onnx::MatMul_{_MATRICES + number + _MATRICES_OF_A_BLOCK * block}"].T

    convolution = _CONVOLUTIONS + _CONVOLUTIONS_OF_A_BLOCK * block
    return {
        "forward_1.0.weight": named("ffn1.norm.weight"),
        "forward_1.0.bias": named("ffn1.norm.bias"),
        "forward_1.1.weight": matrix(0),
        "forward_1.1.bias": named("ffn1.fc1.bias"),
        "forward_1.3.weight": matrix(1),
        "forward_1.3.bias": named("ffn1.fc2.bias"),
        "attention.norm.weight": named("attn_norm.weight"),
        "attention.norm.bias": named("attn_norm.bias"),
        "attention.ask.weight": matrix(2),
        "attention.ask.bias": named("attn.in_proj_bias"),
        "attention.answer.weight": matrix(6),
        "attention.answer.bias": named("attn.out_proj.bias"),
        "convolution.norm.weight": named("conv.norm.weight"),
        "convolution.norm.bias": named("conv.norm.bias"),
        "convolution.gated.weight": named("conv.pointwise1.weight")[:, :, 0],
        "convolution.gated.bias": named("conv.pointwise1.bias"),
        "convolution.over_time.weight": theirs[f"onnx::Conv_{convolution}"],
        "convolution.over_time.bias": theirs[f"onnx::Conv_{convolution + 1}"],
        "convolution.mixed.weight": named("conv.pointwise2.weight")[:, :, 0],
        "convolution.mixed.bias": named("conv.pointwise2.bias"),
        "forward_2.0.weight": named("ffn2.norm.weight"),
        "forward_2.0.bias": named("ffn2.norm.bias"),
        "forward_2.1.weight": matrix(7),
        "forward_2.1.bias": named("ffn2.fc1.bias"),
        "forward_2.3.weight": matrix(8),
        "forward_2.3.bias": named("ffn2.fc2.bias"),
        "norm.weight": named("norm.weight"),
        "norm.bias": named("norm.bias"),
    }


def _tensors(package: bytes) -> dict[str, Tensor]:
    reader = BytesIO(package)
    if reader.read(8)[:6] != b"HAMAPK":
        raise ValueError("not a package of hama's weights")

    def read(layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, reader.read(struct.calcsize(layout)))

    entries = []
    for _ in range(read("<I")[0]):
        name = reader.read(read("<H")[0]).decode()
        kind, rank = read("<BB")
        shape = read(f"<{rank}I")
        begin, size = read("<QQ")
        entries.append((name, _TYPES[kind], shape, begin, size))
    data = len(package) - max(begin + size for *_, begin, size in entries)
    return {
        name: torch.from_numpy(
            np.frombuffer(package[data + begin : data + begin + size], kind).astype(np.float32).reshape(shape)
        )
        for name, kind, shape, begin, size in entries
    }
