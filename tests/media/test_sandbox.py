"""Untrusted media in limited processes: whatever a decoder does, the service gets an answer. Real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from app.media.info import MediaInfo, MediaLimits
from app.media.sandbox import Sandbox, probe_sync
from app.retry.taxonomy import CodedError, FailureCode
from tests.media.makers import tone, write_video, write_wav

ROOT = Path(__file__).parents[2]
LIMITS = MediaLimits()
HOSTILE = "tests.media.hostile_child"


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return write_wav(tmp_path / "good one.wav", tone(0.5))


@asynccontextmanager
async def opened(**settings: object) -> AsyncIterator[Sandbox]:
    sandbox = Sandbox(**settings)  # type: ignore[arg-type]
    try:
        yield sandbox
    finally:
        await sandbox.close()


async def failure(probing: Awaitable[MediaInfo]) -> CodedError:
    with pytest.raises(CodedError) as caught:
        await probing
    return caught.value


def with_sandbox(scenario: Callable[[Sandbox], Awaitable[None]], **settings: object) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), opened(**settings) as sandbox:
            await scenario(sandbox)

    asyncio.run(run())


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def ended(process: psutil.Process) -> bool:
    """Whether a process is gone; one that nobody has reaped yet is gone too."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def forked(sandbox: Sandbox) -> list[psutil.Process]:
    assert sandbox.pid is not None
    return psutil.Process(sandbox.pid).children()


def test_files_are_told_apart_and_refused_as_without_a_sandbox(tmp_path: Path, sound: Path) -> None:
    video = write_video(tmp_path / "Grüße 'x' 你好.mp4", 25, audio="aac")
    empty = tmp_path / "empty.mp4"
    empty.touch()

    async def scenario(sandbox: Sandbox) -> None:
        assert (await sandbox.probe(sound, LIMITS)).kind == "audio"
        info = await sandbox.probe(video, LIMITS)
        assert (info.kind, info.width, info.height, info.audio_codec) == ("video", 64, 48, "aac")
        refusal = await failure(sandbox.probe(empty, LIMITS))
        assert (refusal.code, refusal.failure.detail["reason"]) == (FailureCode.INPUT_INVALID, "empty_file")
        assert refusal.failure.hint
        small = MediaLimits(max_seconds=0.1)
        assert (await failure(sandbox.probe(sound, small))).code is FailureCode.INPUT_TOO_LARGE

    with_sandbox(scenario)


def test_names_that_are_no_utf8(tmp_path: Path, sound: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\xff.wav"))
    odd.write_bytes(sound.read_bytes())
    with_sandbox(lambda sandbox: _expect_audio(sandbox, odd))


async def _expect_audio(sandbox: Sandbox, path: Path) -> None:
    assert (await sandbox.probe(path, LIMITS)).kind == "audio"


@pytest.mark.parametrize(
    ("cue", "reason", "detail"),
    [
        ("segfault", "decoder_crashed", {"signal": "SIGSEGV"}),
        ("abort", "decoder_crashed", {"signal": "SIGABRT"}),
        ("exit", "decoder_crashed", {"exit_code": 3}),
        ("hang", "decoder_timeout", {}),
        ("spin", "decoder_timeout", {}),
        ("eat", "decoder_out_of_memory", {}),
        ("files", "undecodable", {"error_type": "OSError"}),
    ],
)
def test_a_decoder_that_misbehaves_is_that_files_error(
    tmp_path: Path, sound: Path, cue: str, reason: str, detail: dict[str, object]
) -> None:
    evil = tmp_path / f"{cue}.wav"
    evil.write_bytes(sound.read_bytes())

    async def scenario(sandbox: Sandbox) -> None:
        await sandbox.start()
        helper = sandbox.pid
        error = await failure(sandbox.probe(evil, LIMITS))
        assert error.code is FailureCode.INPUT_INVALID
        assert error.failure.detail == {"reason": reason, **detail}
        assert evil.name in error.failure.message
        assert (await sandbox.probe(sound, LIMITS)).kind == "audio"
        assert sandbox.pid == helper, "the helper lives on"
        assert forked(sandbox) == []

    with_sandbox(scenario, child_module=HOSTILE, seconds=0.8, memory_bytes=256 * 1024**2)


def test_what_a_library_prints_does_not_disturb(tmp_path: Path, sound: Path) -> None:
    babble = tmp_path / "babble.wav"
    babble.write_bytes(sound.read_bytes())
    with_sandbox(lambda sandbox: _expect_audio(sandbox, babble), child_module=HOSTILE)


def test_a_decoder_can_write_no_file(tmp_path: Path, sound: Path) -> None:
    evil = tmp_path / "write.wav"
    evil.write_bytes(sound.read_bytes())

    async def scenario(sandbox: Sandbox) -> None:
        await failure(sandbox.probe(evil, LIMITS))

    with_sandbox(scenario, child_module=HOSTILE)
    written = tmp_path / "written"
    assert not written.exists() or written.stat().st_size == 0


def test_a_decoder_sees_no_secret_and_no_open_file(
    tmp_path: Path, sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREENROOM_API_KEY", "secret")
    evil = tmp_path / "surroundings.wav"
    evil.write_bytes(sound.read_bytes())

    async def scenario(sandbox: Sandbox) -> None:
        seen = (await failure(sandbox.probe(evil, LIMITS))).failure.message
        assert "GREENROOM_API_KEY" not in seen
        assert seen.count("/dev/null") == 3
        assert seen.count("pipe") == 1
        assert "socket" not in seen

    with_sandbox(scenario, child_module=HOSTILE)


def test_a_hang_does_not_hold_up_the_others(tmp_path: Path, sound: Path) -> None:
    hang = tmp_path / "hang.wav"
    hang.write_bytes(sound.read_bytes())

    async def scenario(sandbox: Sandbox) -> None:
        hung = asyncio.create_task(sandbox.probe(hang, LIMITS))
        await asyncio.gather(*(sandbox.probe(sound, LIMITS) for _ in range(20)))
        assert not hung.done()
        hung.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hung
        await until(lambda: forked(sandbox) == [])

    with_sandbox(scenario, child_module=HOSTILE, concurrency=2)


def test_no_more_at_once_than_allowed(tmp_path: Path, sound: Path) -> None:
    hang = tmp_path / "hang.wav"
    hang.write_bytes(sound.read_bytes())

    async def scenario(sandbox: Sandbox) -> None:
        await sandbox.start()
        probes = [asyncio.create_task(sandbox.probe(hang, LIMITS)) for _ in range(7)]
        await until(lambda: len(forked(sandbox)) == 3)
        most = 0
        while not all(task.done() for task in probes):
            most = max(most, len(forked(sandbox)))
            await asyncio.sleep(0.02)
        assert most <= 3
        assert {task.exception().failure.detail["reason"] for task in probes} == {"decoder_timeout"}

    with_sandbox(scenario, child_module=HOSTILE, concurrency=3, seconds=0.3)


def test_a_killed_helper_is_replaced(sound: Path) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        await sandbox.start()
        first = sandbox.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        assert (await sandbox.probe(sound, LIMITS)).kind == "audio"
        assert sandbox.pid != first

    with_sandbox(scenario)


def test_a_helper_killed_with_work_in_hand_is_replaced_and_the_work_repeated(tmp_path: Path, sound: Path) -> None:
    hang = tmp_path / "hang.wav"
    hang.write_bytes(sound.read_bytes())

    async def scenario(sandbox: Sandbox) -> None:
        await sandbox.start()
        pending = asyncio.create_task(sandbox.probe(hang, LIMITS))
        await until(lambda: len(forked(sandbox)) == 1)
        orphan = forked(sandbox)[0]
        assert sandbox.pid is not None
        os.kill(sandbox.pid, signal.SIGKILL)
        error = await failure(pending)
        assert error.failure.detail["reason"] == "decoder_timeout", "asked again, of a new helper"
        await until(lambda: ended(orphan))

    with_sandbox(scenario, child_module=HOSTILE, seconds=1.0)


def test_a_helper_that_dies_twice_is_at_fault(tmp_path: Path, sound: Path) -> None:
    hang = tmp_path / "hang.wav"
    hang.write_bytes(sound.read_bytes())

    async def scenario(sandbox: Sandbox) -> None:
        await sandbox.start()
        pending = asyncio.create_task(sandbox.probe(hang, LIMITS))
        victims: set[int] = set()
        for _ in range(2):
            await until(lambda: sandbox.pid is not None and sandbox.pid not in victims and len(forked(sandbox)) == 1)
            assert sandbox.pid is not None
            victims.add(sandbox.pid)
            os.kill(sandbox.pid, signal.SIGKILL)
        assert (await failure(pending)).code is FailureCode.MEDIA_HELPER_FAILED

    with_sandbox(scenario, child_module=HOSTILE)


def test_a_helper_that_stands_still_is_at_fault_and_replaced(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.media.sandbox._GRACE_SECONDS", 0.2)

    async def scenario(sandbox: Sandbox) -> None:
        await sandbox.start()
        assert sandbox.pid is not None
        os.kill(sandbox.pid, signal.SIGSTOP)
        error = await failure(sandbox.probe(sound, LIMITS))
        assert error.code is FailureCode.MEDIA_HELPER_FAILED
        assert error.failure.detail["reason"] == "hung"
        assert sound.name not in str(error)
        assert (await sandbox.probe(sound, LIMITS)).kind == "audio"

    with_sandbox(scenario, seconds=1.0)


def test_a_helper_that_cannot_start_says_so(sound: Path) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        assert (await failure(sandbox.probe(sound, LIMITS))).code is FailureCode.WORKER_START_FAILED

    with_sandbox(scenario, child_module="tests.media.no_such_module")


def test_close_ends_everything(tmp_path: Path, sound: Path) -> None:
    hang = tmp_path / "hang.wav"
    hang.write_bytes(sound.read_bytes())

    async def run() -> None:
        sandbox = Sandbox(child_module=HOSTILE)
        await sandbox.start()
        pending = asyncio.create_task(sandbox.probe(hang, LIMITS))
        await until(lambda: len(forked(sandbox)) == 1)
        everyone = [psutil.Process(sandbox.pid), *forked(sandbox)]
        await sandbox.close()
        await sandbox.close()
        await until(lambda: all(ended(process) for process in everyone))
        with pytest.raises(RuntimeError, match="closed"):
            await pending

    asyncio.run(run())


SERVICE = """
import asyncio, sys
from pathlib import Path
from app.media.info import MediaLimits
from app.media.sandbox import Sandbox
async def main():
    sandbox = Sandbox(child_module="tests.media.hostile_child")
    await sandbox.start()
    print(sandbox.pid, flush=True)
    await sandbox.probe(Path(sys.argv[1]), MediaLimits())
asyncio.run(main())
"""


def test_nothing_is_left_when_the_service_is_sigkilled(tmp_path: Path, sound: Path) -> None:
    hang = tmp_path / "hang.wav"
    hang.write_bytes(sound.read_bytes())
    service = subprocess.Popen([sys.executable, "-c", SERVICE, str(hang)], cwd=ROOT, stdout=subprocess.PIPE)
    assert service.stdout is not None
    helper = psutil.Process(int(service.stdout.readline()))
    deadline = time.monotonic() + 10
    while not (hung := helper.children()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert hung
    service.kill()
    service.wait()
    service.stdout.close()
    deadline = time.monotonic() + 5
    while not all(ended(process) for process in (helper, *hung)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_warm_probe_takes_milliseconds(sound: Path) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        await sandbox.start()
        times = []
        for _ in range(10):
            started = time.perf_counter()
            await sandbox.probe(sound, LIMITS)
            times.append(time.perf_counter() - started)
        assert min(times) < 0.05

    with_sandbox(scenario)


def test_the_helper_is_single_threaded(sound: Path) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        await sandbox.probe(sound, LIMITS)
        assert sandbox.pid is not None
        assert psutil.Process(sandbox.pid).num_threads() == 1

    with_sandbox(scenario)


def test_the_parent_side_loads_no_codec() -> None:
    script = (
        "import app.media.sandbox, app.media.roles, sys; print([m for m in ('av','PIL','numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "[]"


def test_probing_without_a_loop(tmp_path: Path, sound: Path) -> None:
    assert probe_sync(sound, LIMITS).audio_duration_s == pytest.approx(0.5)
    with pytest.raises(CodedError) as caught:
        probe_sync(tmp_path / "absent.wav", LIMITS)
    assert caught.value.code is FailureCode.INPUT_NOT_FOUND
