"""How renderers share the cores with the encoder and account for their time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def room_for_encoder(device: torch.device) -> Iterator[None]:
    """Leave a core to the encoder's thread: torch's threads wait actively and would slow it down, and themselves.

    On two cores this makes a portrait render with `warp` 1.8 times faster.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield
        return
    torch.set_num_threads(threads - 1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class timed:  # noqa: N801 - reads as a statement
    """Adds the time of its block to a stage."""

    def __init__(self, stages: dict[str, float], name: str) -> None:
        self._stages, self._name = stages, name

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._stages[self._name] = self._stages.get(self._name, 0.0) + time.perf_counter() - self._started
