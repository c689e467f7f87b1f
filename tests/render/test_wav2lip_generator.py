"""Checkpoints and the network: any public form is read, the answer is the published network's, a wrong file is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from app.render.wav2lip import load_generator
from app.render.wav2lip.checkpoint import CheckpointError, native_dtype
from app.render.wav2lip.fused import FusedBlock, can_fuse
from app.render.wav2lip.profile import profile_path
from app.retry.taxonomy import CodedError
from tests.render.checkpoints import SMALL, published_forward, published_weights, save_small

pytestmark = pytest.mark.filterwarnings("error::torch.jit.TracerWarning")


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return published_weights()


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(7)
    mel = torch.rand(3, 1, 80, 16, generator=random) * 8 - 4
    reference = torch.rand(3, 3, 96, 96, generator=random)
    masked = reference.clone()
    masked[:, :, 48:] = 0
    return mel, torch.cat([masked, reference], dim=1)


@pytest.fixture(scope="module")
def published(weights: dict[str, Tensor], inputs: tuple[Tensor, Tensor]) -> Tensor:
    return published_forward(weights, *inputs)


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


FORMS = {
    "bare": lambda weights: weights,
    "under state_dict": lambda weights: {"state_dict": weights, "optimizer": None, "global_step": 7, "global_epoch": 1},
    "from DataParallel": lambda weights: {"state_dict": {f"module.{name}": value for name, value in weights.items()}},
    "without counters": lambda weights: {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("form", FORMS)
def test_the_answer_is_the_published_networks_in_every_form_of_checkpoint(
    form: str, weights: dict[str, Tensor], inputs: tuple[Tensor, Tensor], published: Tensor, tmp_path: Path
) -> None:
    path = saved(tmp_path / "any.pth", FORMS[form](weights))
    with torch.inference_mode():
        answer = load_generator(path, "cpu", torch.float32)(*inputs)
    assert answer.shape == (3, 3, 96, 96)
    assert published.std() > 0.02, "the random network says something"
    assert (answer - published).abs().max() < 1e-5


def test_the_devices_own_precision_changes_little(
    weights: dict[str, Tensor], inputs: tuple[Tensor, Tensor], published: Tensor, tmp_path: Path
) -> None:
    generator = load_generator(saved(tmp_path / "any.pth", weights), "cpu")
    with torch.inference_mode():
        answer = generator(*inputs)
    assert generator.dtype is native_dtype("cpu")
    assert answer.dtype is torch.float32
    assert (answer - published).abs().mean() < 0.005
    assert (answer - published).abs().max() < 0.05


def test_blocks_of_one_call_answer_as_step_by_step(
    weights: dict[str, Tensor],
    inputs: tuple[Tensor, Tensor],
    published: Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = saved(tmp_path / "any.pth", weights)
    monkeypatch.setattr("app.render.wav2lip.network.can_fuse", lambda device: False)
    apart = load_generator(path, "cpu", torch.float32)
    assert not any(isinstance(module, FusedBlock) for module in apart.modules())
    with torch.inference_mode():
        answer = apart(*inputs)
    assert (answer - published).abs().max() < 1e-5, "other machines than x86 get the published answer, too"
    monkeypatch.undo()
    together = load_generator(path, "cpu", torch.float32)
    assert any(isinstance(module, FusedBlock) for module in together.modules()) is can_fuse(torch.device("cpu"))
    with torch.inference_mode():
        assert (together(*inputs) - answer).abs().max() < 1e-5


def test_features_of_one_face_serve_many_frames(
    weights: dict[str, Tensor], inputs: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    mel, face = inputs
    generator = load_generator(saved(tmp_path / "any.pth", weights), "cpu", torch.float32)
    with torch.inference_mode():
        shared = generator.speak(mel, generator.encode_face(face[:1]))
        apart = generator(mel, face[:1].expand(3, -1, -1, -1))
    assert (shared - apart).abs().max() < 1e-5


def test_another_generator_is_described_by_a_file_beside_it(tmp_path: Path) -> None:
    generator = load_generator(save_small(tmp_path / "small.pth"), "cpu")
    with torch.inference_mode():
        answer = generator(torch.zeros(2, 1, 80, 8), torch.rand(2, 6, 64, 64))
    assert answer.shape == (2, 3, 64, 64)
    assert answer.min() < 0 < answer.max(), "its range is -1..1"
    assert answer.abs().max() <= 1


def test_weights_of_another_network_are_told_by_name(weights: dict[str, Tensor], tmp_path: Path) -> None:
    wrong = dict(weights)
    del wrong["audio_encoder.12.conv_block.0.bias"]
    wrong["binary_pred.0.weight"] = torch.zeros(1)
    wrong["output_block.1.weight"] = torch.zeros(3, 64, 1, 1)
    with pytest.raises(CheckpointError) as caught:
        load_generator(saved(tmp_path / "other.pth", {"state_dict": wrong}), "cpu")
    message = str(caught.value)
    assert "other.pth" in message
    assert "1 weights are missing (audio_encoder.12.conv_block.0.bias)" in message
    assert "1 weights are extra (binary_pred.0.weight)" in message
    assert "output_block.1.weight is [3, 64, 1, 1] instead of [3, 32, 1, 1]" in message
    assert caught.value.failure.detail["missing"] == ["audio_encoder.12.conv_block.0.bias"]


class Runs:
    """A pickle that would leave a trace if it were run."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (str(self._trace),)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    path = saved(tmp_path / "hostile.pth", {"state_dict": Runs(tmp_path / "trace")})
    with pytest.raises(CheckpointError, match=r"hostile\.pth is not a torch checkpoint"):
        load_generator(path, "cpu")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a torch checkpoint"),
        (b"<!DOCTYPE html><title>404</title>" * 50, "is not a torch checkpoint"),
        (b"PK\x03\x04" + bytes(500), "is not a torch checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is not a torch checkpoint"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_told(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "page.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_generator(path, "cpu")
    assert "wav2lip_checkpoint" in caught.value.failure.hint


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], torch.zeros(3), {"state_dict": {}}])
def test_a_checkpoint_without_weights_is_told(content: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_generator(saved(tmp_path / "empty.pth", content), "cpu")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no checkpoint at"):
        load_generator(tmp_path / "nowhere.pth", "cpu")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"crop": 63}, "cannot be halved"),
        ({"decoder": [[16], [16], [8]]}, "they mirror each other"),
        ({"mel": {"bands": 4}}, r"mel\.bands"),
        ({"depth": 3}, "depth"),
        ({"high": -2.0}, "high must be above low"),
    ],
)
def test_a_profile_that_cannot_be_is_told(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "small.pth", {"x": torch.zeros(1)})
    profile_path(path).write_text(json.dumps(SMALL | changes))
    with pytest.raises(CodedError, match=words):
        load_generator(path, "cpu")


def test_options_are_known_without_torch() -> None:
    code = (
        "import sys; from app.render import registry; registry.validate_options('wav2lip', {}); "
        "registry.why_absent('wav2lip', {}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
