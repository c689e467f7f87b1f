"""How a slot's process begins: what it is told, and the command that starts it.

The child's module is named as text, so that the service never imports what the child needs: torch, codecs, renderers.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field

CHILD = "app.worker.child"


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """All that a slot's process needs to know; sent to it as JSON at its start."""

    slot: str
    renderer: str
    device: str
    """`cpu` or `cuda:0` (the only device that this process sees)."""
    cuda_visible_devices: str | None
    threads: int
    stack_file: str
    """Where the process writes its stacks on SIGUSR1."""
    log_level: str = "info"
    settings: dict[str, str] = field(default_factory=dict)
    """The renderer's own settings, e.g. its cache directory."""


def command(block: int, commands: int, events: int) -> list[str]:
    """The command of a slot's process that inherits these descriptors: progress block, command and event pipe.

    The first frame on the command pipe is its `ChildSpec`.
    """
    return [sys.executable, "-m", CHILD, *map(str, (block, commands, events, os.getpid()))]
