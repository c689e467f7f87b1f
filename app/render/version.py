"""What a renderer is at this moment, in one short text: results of another version must not stand for its own.

Nobody has to remember to raise a number: it is a digest of the code and the weights that come with the service. Weights
that an operator brings are told apart by name, size and time of change; what runs in another program cannot be seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

_APP = Path(__file__).parents[1]
_SHARED = ("face", "speech", "media", "render/film", "render/remote")
"""Folders of the service that its renderers are built on, beside the modules of `app/render` itself."""


def version_of(module: str, brought: Iterable[str] = ()) -> str:
    """The version of the renderer whose capabilities stand in `module`; `brought` are files of weights.

    32 hexadecimal digits. Reads some megabytes. A file that is not there counts as that.
    """
    digest = hashlib.sha256()
    for path in files_of(module):
        digest.update(f"{path.relative_to(path.parents[1])}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    for name in brought:
        digest.update(_identity(Path(name)).encode())
    return digest.hexdigest()[:32]


def files_of(module: str) -> Iterator[Path]:
    """The files that the renderer whose capabilities stand in `module` is made of, in a stable order."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return
    home = Path(spec.origin)
    if "." not in module:
        yield home
        return
    yield from _below(home.parent)
    if home.is_relative_to(_APP):
        yield from sorted((_APP / "render").glob("*.py"))
        for name in _SHARED:
            yield from _below(_APP / name)


def _below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__")


def _identity(path: Path) -> str:
    try:
        facts = path.stat()
    except OSError:
        return f"{path.name}\0"
    return f"{path.name}\0{facts.st_size}\0{facts.st_mtime_ns}\0"
