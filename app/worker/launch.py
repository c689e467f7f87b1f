"""How a slot's process begins: what it is told, and the door through which it enters.

The service imports this module, the child enters through it. The child's own modules are named as text, so that
the service never imports what the child needs: torch, codecs, renderers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Connection

from app.worker.shared import ProgressBlock

CHILD = "app.worker.child"


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """All that a slot's process needs to know; pickled once at its start."""

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


def enter(
    spec: ChildSpec, block: ProgressBlock, commands: Connection, events: Connection, output: Connection, parent: int
) -> None:
    """The target of a slot's process. `parent` is the service's pid."""
    import_module(CHILD).main(spec, block, commands, events, output, parent)
