"""The parts of the service around its real worker: the fixtures of the workers' tests."""

from __future__ import annotations

from tests.worker.conftest import audio, bench, store, submit

__all__ = ["audio", "bench", "store", "submit"]
