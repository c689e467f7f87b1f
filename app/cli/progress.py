"""Showing how far a piece of work is: a bar on a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

LINE_EVERY_S = 5.0
"""Without a terminal: a line at every tenth of the work, at every new phase, and at least this often while it moves."""

UNITS = {"upload": "bytes", "download": "bytes", "fetch": "bytes"}
"""What the numbers of a phase count; all other phases count frames."""


class ProgressView(Protocol):
    """Somewhere to show progress."""

    def update(self, phase: str, done: int, total: int) -> None:
        """Show that `done` of `total` units of `phase` are finished; `total` 0 means unknown."""


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"


def _amount(phase: str, done: int, total: int) -> str:
    if UNITS.get(phase) == "bytes":
        return f"{_size(done)} of {_size(total)}" if total else _size(done)
    return f"{done}/{total} frames" if total else ""


class _Lines:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown: tuple[str, int] | None = None
        self._at = 0.0

    def update(self, phase: str, done: int, total: int) -> None:
        tenth = 10 * min(done, total) // total if total else 0
        now = time.monotonic()
        moved = self._shown != (phase, tenth) or (total and now - self._at >= LINE_EVERY_S)
        if not moved:
            return
        self._shown, self._at = (phase, tenth), now
        percent = f" ({100 * min(done, total) // total}%)" if total else ""
        amount = _amount(phase, done, total)
        self._stream.write(f"{phase}{' ' if amount else ''}{amount}{percent}\n")
        self._stream.flush()


@contextmanager
def progress_view(stream: TextIO) -> Iterator[ProgressView]:
    """A view on `stream`: a bar where it is a terminal, else lines. The bar is gone when the block ends."""
    if not stream.isatty():
        yield _Lines(stream)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    with Progress(
        TextColumn("[bold]{task.description:>9}"),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(file=stream),
        transient=True,
    ) as bar:
        yield _Bar(bar, bar.add_task("", total=None, amount=""))


class _Bar:
    def __init__(self, bar: object, task: int) -> None:
        from rich.progress import Progress, TaskID

        assert isinstance(bar, Progress)
        self._bar = bar
        self._task = TaskID(task)
        self._phase = ""

    def update(self, phase: str, done: int, total: int) -> None:
        if phase != self._phase:
            self._phase = phase
            self._bar.reset(self._task, description=phase, total=total or None, amount="")
        self._bar.update(self._task, completed=done, total=total or None, amount=_amount(phase, done, total))
