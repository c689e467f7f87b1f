"""Renderer `wav2lip`: the published generator architecture with a checkpoint that the operator brings.

The public functions are loaded when they are first used, so that the service can read options and capabilities
without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.render.wav2lip.checkpoint import load_generator
    from app.render.wav2lip.mel import mel_spectrogram

__all__ = ["load_generator", "mel_spectrogram"]

_HOMES = {"load_generator": "app.render.wav2lip.checkpoint", "mel_spectrogram": "app.render.wav2lip.mel"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
