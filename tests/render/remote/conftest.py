from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from app.render.contract import Cancelled, Phase
from tests.media.makers import tone, write_video, write_wav
from tests.render.remote.rough_peer import Play, RoughPeer


class Listener:
    """The progress port of a test: what was reported and called; cancels when told to."""

    def __init__(self) -> None:
        self.reports: list[tuple[Phase, int, int]] = []
        self.calls: list[str] = []
        self.cancel_when: Callable[[], bool] = lambda: False

    def report(self, phase: Phase, done: int, total: int) -> None:
        self.reports.append((phase, done, total))
        self.check()

    def check(self) -> None:
        if self.cancel_when():
            raise Cancelled

    def called(self, call: str, seconds: float) -> None:
        assert seconds >= 0
        self.calls.append(call)

    def count(self, call: str) -> int:
        return self.calls.count(call)


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def rough() -> Iterator[Callable[..., RoughPeer]]:
    made: list[RoughPeer] = []

    def start(*script: Play) -> RoughPeer:
        made.append(RoughPeer(*script))
        return made[-1]

    yield start
    for peer in made:
        peer.close()


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1.2 s of sound."""
    return write_wav(tmp_path_factory.mktemp("speech") / "speech.wav", tone(1.2))


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames at 25 per second: as long as the speech."""
    return write_video(tmp_path_factory.mktemp("video") / "template.mp4", frames=30, audio="aac")


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Odd in both directions."""
    path = tmp_path_factory.mktemp("picture") / "portrait.png"
    cv2.imwrite(str(path), np.full((65, 51, 3), 128, np.uint8))
    return path
