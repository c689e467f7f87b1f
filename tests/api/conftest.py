"""Servers for the tests of the API: one loop, one sandbox and one set of media files for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from PIL import Image

from app.media.sandbox import Sandbox
from app.store.sql import open_store
from tests.api.kit import Api, ApiFactory, LoopThread, Media
from tests.media import makers


@pytest.fixture(scope="session", autouse=True)
def quiet_log() -> Iterator[None]:
    """The servers run in a thread, where pytest does not see what they print."""
    before = structlog.get_config()
    structlog.configure([], logger_factory=structlog.ReturnLoggerFactory(), cache_logger_on_first_use=False)
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def sandbox(loop_thread: LoopThread) -> Iterator[Sandbox]:
    async def started() -> Sandbox:
        sandbox = Sandbox()
        await sandbox.start()
        return sandbox

    sandbox = loop_thread.run(started())
    yield sandbox
    loop_thread.finish()
    loop_thread.run(sandbox.close())


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Media:
    folder = tmp_path_factory.mktemp("media")
    portrait = folder / "face.png"
    Image.linear_gradient("L").convert("RGB").save(portrait)
    rubbish, empty = folder / "rubbish.png", folder / "empty.wav"
    rubbish.write_bytes(b"this is no picture at all\n" * 50)
    empty.write_bytes(b"")
    return Media(
        portrait=portrait,
        speech=makers.write_wav(folder / "speech.wav", makers.tone(0.3)),
        video=makers.write_video(folder / "template.mp4", 8, audio="aac"),
        silent_video=makers.write_video(folder / "silent.mp4", 8),
        no_samples=makers.write_wav(folder / "no-samples.wav", makers.tone(0)),
        rubbish=rubbish,
        empty=empty,
        bomb=makers.png_header_only(folder / "bomb.png", 60_000, 60_000),
    )


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "empty.db"
    open_store(path).close()
    return path


@pytest.fixture
def start_api(
    loop_thread: LoopThread, sandbox: Sandbox, template: Path, media: Media, tmp_path: Path
) -> Iterator[ApiFactory]:
    factory = ApiFactory(loop_thread, sandbox, template, tmp_path, media)
    yield factory
    factory.close()


@pytest.fixture
def api(start_api: ApiFactory) -> Api:
    return start_api()


@pytest.fixture(scope="module")
def shared(
    loop_thread: LoopThread, sandbox: Sandbox, template: Path, media: Media, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    """One server for a module's tests that neither start tasks nor count them."""
    factory = ApiFactory(loop_thread, sandbox, template, tmp_path_factory.mktemp("shared"), media)
    yield factory()
    factory.close()
