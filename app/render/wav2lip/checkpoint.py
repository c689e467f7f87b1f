"""Reading a checkpoint: any file that holds the generator's weights, and a clear error for every other file."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app.render.wav2lip.network import Generator
from app.render.wav2lip.profile import profile_path, read_profile
from app.retry.taxonomy import CodedError, FailureCode

_NESTED = ("state_dict", "model_state_dict", "generator", "model")
"""Keys under which training scripts keep the weights; the published checkpoints use the first."""
_PREFIX = "module."
"""What `DataParallel` puts in front of every name."""
_COUNTER = "num_batches_tracked"
"""A counter of training steps: means nothing at inference, and older checkpoints lack it."""
_NAMED = 6
"""Names shown of each kind of difference."""


class CheckpointError(CodedError, ValueError):
    """The checkpoint cannot be used; the message says what is wrong with the file."""

    def __init__(self, message: str, hint: str = "", **detail: Any) -> None:
        hint = hint or "Set `wav2lip_checkpoint` to a Wav2Lip generator (`wav2lip.pth`, `wav2lip_gan.pth`)."
        super().__init__(FailureCode.INTERNAL, message, hint, reason="bad_checkpoint", **detail)


def load_generator(path: str | Path, device: str | torch.device, dtype: torch.dtype | None = None) -> Generator:
    """Load the generator of checkpoint `path` onto `device`, ready for inference.

    The file is read with `weights_only`: no code in it runs. The weights may stand under `state_dict` or bare, with or
    without `module.` in front of their names. A file `<path>.json` beside it describes another generator than the
    published one (`GeneratorProfile`).

    `dtype` is the precision inside; by default float16 on CUDA, bfloat16 on a CPU that computes in it, else float32.
    Inputs of any floating type are taken, the output is float32.

    Raises:
        CheckpointError: no such file, not a checkpoint, or one of another network; names what is missing and extra.
    """
    path, device = Path(path), torch.device(device)
    weights = _read(path)
    generator = Generator(read_profile(path))
    _require_same(path, generator.state_dict(), weights)
    # Counters that the file lacks stay at 0; everything else was just compared by name and shape.
    generator.load_state_dict(weights, strict=False)
    generator.freeze(device, native_dtype(device.type) if dtype is None else dtype)
    return generator


@cache
def native_dtype(device_type: str) -> torch.dtype:
    """The precision in which a device of this type (`cuda`, `cpu`) is fastest without visible loss."""
    if device_type == "cuda":
        return torch.float16
    return torch.bfloat16 if device_type == "cpu" and _cpu_has_bfloat16() else torch.float32


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 itself; where torch only emulates it, float32 is faster."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    words = set(flags.split())
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint at {path}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        # Whatever bytes pretend to be a pickle or a zip, torch's readers stumble in all of these ways.
        first = (str(error).strip().splitlines() or ["it gave no reason"])[0]
        message = f"{path.name} is not a torch checkpoint that can be read without running code from it: {first}"
        raise CheckpointError(message) from error
    weights = content
    for key in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            weights = content[key]
            break
    if not isinstance(weights, Mapping) or not any(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(f"{path.name} holds no weights: expected a state_dict, found {type(content).__name__}.")
    return {str(name).removeprefix(_PREFIX): value for name, value in weights.items() if isinstance(value, Tensor)}


def _require_same(path: Path, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError unless names and shapes agree."""
    missing = [name for name in expected if name not in found and not name.endswith(_COUNTER)]
    extra = [name for name in found if name not in expected]
    reshaped = [
        f"{name} is {list(found[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if not missing and not extra and not reshaped:
        return
    kinds = (("missing", missing), ("extra", extra), ("of another shape", reshaped))
    parts = [f"{len(names)} weights are {kind} ({_listed(names)})" for kind, names in kinds if names]
    message = f"{path.name} is the checkpoint of another network: {'; '.join(parts)}."
    hint = ""
    if not (beside := profile_path(path)).is_file():
        hint = (
            "The generator is wanted, not the discriminator or the sync expert. A generator of another size needs "
            f"{beside.name} beside it (docs/wav2lip.md)."
        )
    raise CheckpointError(message, hint, missing=missing[:50], extra=extra[:50], reshaped=reshaped[:50])


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
