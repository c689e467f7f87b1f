"""Which drop-in addresses there are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class DropIn:
    """What the operator opened. With nothing set there is none of these addresses."""

    duix_dir: Path | None = None
    """The folder here that callers of `/easy/submit` know as `/code/data`."""
    save_roots: tuple[Path, ...] = ()
    """Folders that a `save_path` of `/human/generate` may lie below."""
    code_ttl_s: float = 7 * 86_400.0
    """How long the `code` of a submission is known at least."""
