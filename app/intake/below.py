"""Paths that callers name, held below folders that the operator named: no link, dot or race leads out of them."""

from __future__ import annotations

import os
from collections.abc import Sequence

_PATH_ONLY = getattr(os, "O_PATH", os.O_RDONLY)


class Outside(Exception):
    """The path does not lie below any of the roots, whether there is something at it or not."""


def real_roots(roots: Sequence[os.PathLike[str]]) -> tuple[str, ...]:
    """The roots without links and dots."""
    return tuple(os.path.realpath(root) for root in roots)


def resolve_below(roots: Sequence[str], path: str) -> tuple[str, str]:
    """The innermost of the `real_roots` that holds `path`, and the path without links and dots.

    Raises `Outside`, and OSError or ValueError for what cannot be a path.
    """
    resolved = os.path.realpath(path)
    holding = [root for root in roots if resolved == root or resolved.startswith(root.rstrip("/") + "/")]
    if not holding:
        raise Outside
    return max(holding, key=len), resolved


def open_below(root: str, resolved: str, flags: int) -> int:
    """A descriptor of what lies at `resolved`, reached from the root component by component without following a link.

    Between resolving and opening somebody may put a link in the way; then opening fails instead of leading outside.
    Raises OSError.
    """
    *folders, name = os.path.relpath(resolved, root).split("/")
    held = [os.open(root, _PATH_ONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        for folder in folders:
            held.append(os.open(folder, _PATH_ONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=held[-1]))
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=held[-1])
    finally:
        for descriptor in held:
            os.close(descriptor)
