"""How a child process begins: what it is told, and the command that starts it.

Its module is named as text, so that the service never imports what the child needs: torch, codecs, renderers.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import Any

CHILD = "app.worker.child"
"""Renders."""
JUDGE = "app.worker.judge_child"
"""Judges what others rendered."""


@dataclass(frozen=True, slots=True)
class Served:
    """One tier that a slot's process can serve: its renderer with its settings."""

    tier: str
    renderer: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """All that a slot's process needs to know; sent to it as JSON at its start."""

    slot: str
    serves: tuple[Served, ...]
    """The first is loaded and proven at the start, the others when a job first needs them. A judge has none."""
    device: str
    """`cpu` or `cuda:0` (the only device that this process sees)."""
    cuda_visible_devices: str | None
    threads: int
    stack_file: str
    """Where the process writes its stacks on SIGUSR1."""
    log_level: str = "info"


def command(module: str, block: int, commands: int, events: int) -> list[str]:
    """The command of a process of `module` that inherits these descriptors: progress block, command and event pipe.

    The first frame on the command pipe is its `ChildSpec`.
    """
    return [sys.executable, "-m", module, *map(str, (block, commands, events, os.getpid()))]
