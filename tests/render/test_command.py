"""Real programs under renderer `command`: what they are given, how their end is understood, and that they end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

import app.render.command
from app.media.info import MediaLimits
from app.media.probe import probe
from app.media.video_in import VideoSource
from app.quality.checks import check_output
from app.render import registry
from app.render.command.program import Watch
from app.render.contract import Cancelled, Phase, RenderJob
from app.retry.taxonomy import CodedError, FailureCode
from tests.media.makers import read_number, tone, write_video, write_wav

BOUND_S = 30.0
GUARDIAN = Path(app.render.command.__file__).with_name("guardian.py")


class Listener:
    """Takes reports; raises `Cancelled` once `cancel` is set."""

    def __init__(self) -> None:
        self.reports: list[tuple[Phase, int, int]] = []
        self.cancel = threading.Event()

    def report(self, phase: Phase, done: int, total: int) -> None:
        self.reports.append((phase, done, total))
        self.check()

    def check(self) -> None:
        if self.cancel.is_set():
            raise Cancelled


class Stage:
    """A folder with a source, a second of speech, and a video that a program may hand out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = write_video(folder / "source.mp4", frames=10)
        self.audio = write_wav(folder / "audio.wav", tone(1.0))
        self.video = write_video(folder / "made.mp4", frames=25)
        self.listener = Listener()

    def job(self, **options: Any) -> RenderJob:
        out = self.folder / "attempt"
        out.mkdir()
        return RenderJob(self.source, self.audio, out, options)

    def settings(self, script: str, *arguments: str, **more: Any) -> dict[str, Any]:
        program = self.folder / "program.py"
        program.write_text(script)
        paths = arguments or ("{source}", "{audio}", "{output}", str(self.video))
        return {"argv": [sys.executable, "-S", str(program), *paths], **more}

    def run(
        self, script: str, *arguments: str, job: RenderJob | None = None, **more: Any
    ) -> tuple[Any, dict[str, Any]]:
        renderer = registry.create("command", self.settings(script, *arguments, **more))
        renderer.load("cpu")
        job = job or self.job()
        result = renderer.render(job, self.listener)
        return result, check_output(result, job)

    def failure(self, script: str, *arguments: str, **more: Any) -> CodedError:
        with pytest.raises(CodedError) as told:
            self.run(script, *arguments, **more)
        return told.value


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


COPY = "import shutil, sys\nshutil.copy(sys.argv[4], sys.argv[3])\n"


def until(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + BOUND_S
    while not (value := condition()):
        assert time.monotonic() < end, f"timed out waiting for {what}"
        time.sleep(0.01)
    return value


# -- what comes out


def test_a_picture_that_is_as_ours_is_copied_and_gets_the_speech(stage):
    result, checks = stage.run(COPY)
    assert (result.frames, result.facts["picture_copied"], result.facts["frames_held"]) == (25, True, 0)
    assert checks["audio_seconds"] == pytest.approx(1.0, abs=0.04)


@pytest.mark.parametrize(
    "how",
    [
        {"codec": "mpeg4"},
        {"pix_fmt": "yuv444p"},
        {"rotation": 90},
        {"frames": 60},
        {"frames": 13, "rate": 13},
        {"frames": 25, "times_ms": [0, *range(70, 1030, 40)]},
        {"audio": "aac", "audio_seconds": 9.0},
    ],
)
def test_whatever_a_program_writes_becomes_a_video_of_ours(stage, how):
    stage.video = write_video(stage.folder / "other.mp4", **how)
    _, checks = stage.run(COPY)
    assert checks["audio_seconds"] == pytest.approx(1.0, abs=0.08)


def test_a_video_that_ends_before_the_speech_is_invalid_or_held_as_far_as_is_allowed(stage):
    stage.video = write_video(stage.folder / "short.mp4", frames=20)
    with pytest.raises(CodedError) as told:
        stage.run(COPY)
    assert told.value.code is FailureCode.OUTPUT_INVALID
    assert told.value.failure.detail["check"] == "audio_duration"
    (stage.folder / "attempt").rename(stage.folder / "first")
    result, _ = stage.run(COPY, hold_s=0.2)
    assert (result.frames, result.facts["frames_held"]) == (25, 5)
    with VideoSource(result.path) as video:
        assert [read_number(video.frame(n)) for n in (18, 19, 20, 24)] == [18, 19, 19, 19]


def test_the_newest_video_in_the_folder_is_taken_where_none_has_the_name(stage):
    script = (
        "import shutil, sys, os\nos.makedirs(sys.argv[1] + '/v15')\nopen(sys.argv[1] + '/old.mp4', 'w').write('x')\n"
        "os.utime(sys.argv[1] + '/old.mp4', (1, 1))\nshutil.copy(sys.argv[2], sys.argv[1] + '/v15/today.mp4')\n"
    )
    result, _ = stage.run(script + "# {source} {audio}", "{output_dir}", str(stage.video), "{source}", "{audio}")
    assert result.frames == 25


# -- what a program is given


def test_arguments_files_environment_and_folder_are_as_configured(stage, monkeypatch):
    monkeypatch.setenv("GREENROOM_WEBHOOK_SECRETS", "secret")
    monkeypatch.setenv("GREENROOM_SLOT", "node/slot/1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TRACEPARENT", "that of the service")
    told = stage.folder / "told.json"
    script = (
        "import json, os, shutil, sys\n"
        "json.dump([sys.argv[1:], os.getcwd(), dict(os.environ), open('inputs/task.yaml').read()], "
        f"open({str(told)!r}, 'w'))\nshutil.copy({str(stage.video)!r}, sys.argv[1])\n"
    )
    stage.run(
        script,
        "{output}",
        "steps={options.steps}",
        "$(touch pwned) {{x} {values.model}",
        "{device}",
        job=replace(stage.job(steps=7), traceparent="00-1-2-01"),
        options={"steps": 20},
        values={"model": "{home}/m.pt"},
        home=str(stage.folder),
        cwd="{work}",
        env={"EXTRA": "{output_dir}"},
        files={"inputs/task.yaml": "video: {source}\naudio: {audio}\n"},
    )
    arguments, cwd, environment, text = json.loads(told.read_text())
    assert environment["TRACEPARENT"] == "00-1-2-01"
    work = stage.folder / "attempt" / "work"
    assert arguments == [
        str(work / "out" / "output.mp4"),
        "steps=7",
        f"$(touch pwned) {{x}} {stage.folder}/m.pt",
        "cpu",
    ]
    assert cwd == str(work)
    assert text == f'video: "{work}/source.mp4"\naudio: "{work}/audio.wav"\n'
    assert environment["EXTRA"] == str(work / "out")
    assert environment["GREENROOM_SLOT"] == "node/slot/1", "by which strays are found"
    assert not {"GREENROOM_WEBHOOK_SECRETS", "OMP_NUM_THREADS"} & set(environment)


@pytest.mark.parametrize(
    ("kind", "source_as", "expected"),
    [
        ("jpg", "file", ("image", "source.jpg")),
        ("webp", "file", ("image", "source.png")),
        ("webm", "file", ("video", "source.mkv")),
        ("jpg", "video", ("video", "source.mp4")),
        ("webm", "video", ("video", "source.mp4")),
    ],
)
def test_the_source_comes_in_a_form_that_programs_read(stage, kind, source_as, expected):
    path = stage.folder / f"given.{kind}"
    if kind == "webm":
        write_video(path, frames=12, codec="libvpx", rate=30)
    else:
        cv2.imwrite(str(path), np.full((96, 128, 3), 90, np.uint8))
    stage.source = path.rename(stage.folder / "blob")
    told = stage.folder / "source.copy"
    script = f"import shutil, sys\nshutil.copy(sys.argv[1], {str(told)!r})\nshutil.copy(sys.argv[3], sys.argv[2])\n"
    stage.run(script + "#", "{source}", "{output}", str(stage.video), "{source_name}", "{audio}", source_as=source_as)
    info = probe(told, MediaLimits())
    assert (info.kind, {p.name for p in (stage.folder / "attempt/work").glob("source.*")}) == (
        expected[0],
        {expected[1]},
    )
    if source_as == "video":
        assert info.fps == pytest.approx(25.0)
    sound = probe(stage.folder / "attempt/work/audio.wav", MediaLimits())
    assert (sound.sample_rate, sound.channels) == (16_000, 1)


# -- how its end is understood


def saying(text: str, code: int = 1) -> str:
    return f"import sys\nsys.stderr.write({text!r})\nsys.exit({code})\n"


TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n'


@pytest.mark.parametrize(
    ("script", "more", "code"),
    [
        (saying("ValueError: no"), {}, "INTERNAL"),
        (saying("", 3), {"exit_codes": {"3": "GPU_OOM"}}, "GPU_OOM"),
        (saying("", 0), {}, "OUTPUT_INVALID"),
        (saying("Oh: no GPU today\n", 0), {"patterns": [{"match": "no GPU", "code": "GPU_LOST"}]}, "GPU_LOST"),
        (saying(TRACEBACK + "_queue.Empty\n"), {}, "QUEUE_TIMEOUT"),
        (saying(TRACEBACK + "queue.Empty\n"), {}, "QUEUE_TIMEOUT"),
        (saying(TRACEBACK + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n"), {}, "GPU_OOM"),
        (saying("RuntimeError: CUDA error: an illegal memory access was encountered\n"), {}, "GPU_LOST"),
        (saying("RuntimeError: Found no NVIDIA driver on your system.\n"), {}, "GPU_UNAVAILABLE"),
        (saying(TRACEBACK + "MemoryError\n"), {}, "HOST_OOM"),
        (saying("OSError: [Errno 28] No space left on device\n"), {}, "DISK_FULL"),
        (saying("", 139), {}, "WORKER_CRASHED"),
        ("import os\nos.abort()\n", {}, "WORKER_CRASHED"),
        ("import sys\nopen(sys.argv[3], 'w').write('rubbish' * 99)\n", {}, "OUTPUT_INVALID"),
    ],
)  # fmt: skip
def test_each_end_has_its_code(stage, script, more, code):
    error = stage.failure(script, **more)
    assert error.code == code
    assert error.failure.message
    assert not list((stage.folder / "attempt").glob("*.mp4"))


def test_the_last_lines_are_kept_and_the_last_of_all_is_told(stage):
    error = stage.failure("for n in range(500): print('line', n)\nraise SystemExit('it was the moon')")
    assert "exit code 1: it was the moon" in error.failure.message
    lines = error.failure.detail["last_words"].splitlines()
    assert lines[-1] == "it was the moon"
    assert len(lines) == 40


def test_a_missing_program_is_told_at_load_and_before(tmp_path):
    settings = {"argv": ["no-such-program-here", "{source}", "{audio}", "{output}"]}
    assert registry.why_absent("command", settings) == "its program no-such-program-here is not on the PATH"
    with pytest.raises(CodedError) as told:
        registry.create("command", settings).load("cpu")
    assert told.value.code is FailureCode.WORKER_START_FAILED
    gone = {"argv": ["./run", "{source}", "{audio}", "{output}"], "home": str(tmp_path / "nowhere")}
    assert "is not there" in registry.why_absent("command", gone)


def test_a_program_that_goes_missing_later_is_told_too(stage):
    program = stage.folder / "tool"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    renderer = registry.create("command", {"argv": [str(program), "{source}", "{audio}", "{output}"]})
    renderer.load("cpu")
    program.unlink()
    with pytest.raises(CodedError) as told:
        renderer.render(stage.job(), stage.listener)
    assert told.value.code is FailureCode.WORKER_START_FAILED
    assert "cannot be started" in told.value.failure.message


# -- progress and floods


def test_progress_is_read_from_bars_that_rewrite_their_line(stage):
    script = (
        "import shutil, sys, time\n"
        "for n in range(1, 6):\n"
        "    sys.stderr.write(f'\\r\\x1b[32m{n * 20}%|##  | {n}/5 [00:01<00:02, 1.0it/s]'); time.sleep(0.25)\n" + COPY
    )
    stage.run(script, progress=r"(?P<done>\d+)/(?P<total>\d+) \[")
    told = [(done, total) for phase, done, total in stage.listener.reports if phase is Phase.RENDER]
    assert told
    assert set(told) <= {(n, 5) for n in range(1, 6)}
    assert told == sorted(told)


def test_a_flood_of_output_neither_fills_memory_nor_hides_the_end(stage):
    script = (
        "import os\nblock = b'x' * 999 + b'\\n'\n"
        "for _ in range(80): os.write(1, block * 1000)\n"
        "os.write(1, b'y' * 5_000_000)\nprint()\nraise SystemExit('the end')\n"
    )
    before = psutil.Process().memory_info().rss
    error = stage.failure(script)
    assert error.failure.message.endswith("the end")
    assert len(error.failure.detail["last_words"]) < 100_000
    assert psutil.Process().memory_info().rss - before < 64 * 1024**2


def test_silence_is_a_stall_and_output_without_progress_counts_as_silence(stage):
    script = "import time\nwhile True:\n    print('still loading', flush=True); time.sleep(0.05)\n"
    error = stage.failure(script, progress=r"(?P<done>\d+)/(?P<total>\d+)", silence_s=0.5)
    assert error.code is FailureCode.WORKER_STALLED
    assert "still loading" in error.failure.detail["last_words"]


# -- that it ends

FAMILY = """
import os, signal, subprocess, sys, time
if {deaf}: signal.signal(signal.SIGTERM, signal.SIG_IGN)
pids = [os.getpid()]
sleeper = 'import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)'
pids.append(subprocess.Popen([sys.executable, '-S', '-c', sleeper]).pid)
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(write, str(os.getpid()).encode())
        time.sleep(600)
    os._exit(0)
os.wait()
pids.append(int(os.read(read, 99)))
open({told!r} + '.part', 'w').write(' '.join(map(str, pids)))
os.rename({told!r} + '.part', {told!r})
{then}
"""


def family(stage: Stage, then: str, deaf: bool = False) -> tuple[str, Path]:
    told = stage.folder / "pids"
    return FAMILY.format(deaf=deaf, told=str(told), then=then), told


def all_gone(told: Path) -> bool:
    return not any(
        psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        for pid in map(int, told.read_text().split())
    )


@pytest.mark.parametrize("deaf", [False, True])
def test_a_cancel_ends_the_program_its_children_and_its_daemons(stage, deaf):
    script, told = family(stage, "time.sleep(600)", deaf)
    threading.Thread(target=lambda: (until(told.exists, "the family"), stage.listener.cancel.set())).start()
    with pytest.raises(Cancelled):
        stage.run(script)
    assert all_gone(told)


def test_what_a_program_leaves_behind_when_it_is_done_ends_with_it(stage):
    script, told = family(stage, COPY)
    result, _ = stage.run(script)
    assert result.frames == 25
    assert all_gone(told)


def test_a_stalled_program_ends_with_all_its_family(stage):
    script, told = family(stage, "time.sleep(600)", deaf=True)
    assert stage.failure(script, silence_s=2.0).code is FailureCode.WORKER_STALLED
    assert all_gone(told)


AT_ITS_END = """
import os, runpy, subprocess, sys

class Late(subprocess.Popen):
    "Back only when the program has ended, as on a busy machine."
    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

subprocess.Popen = Late
guardian, *sys.argv[1:] = sys.argv[1:]
runpy.run_path(guardian, run_name="__main__")
"""


def test_a_program_that_ends_before_its_guardian_looks_has_its_exit_code_told():
    wanted, other = socket.socketpair()
    with wanted, other:
        argv = [str(GUARDIAN), str(other.fileno()), "/bin/sh", "-c", "exit 7"]
        guardian = subprocess.Popen([sys.executable, "-S", "-c", AT_ITS_END, *argv], pass_fds=[other.fileno()])
        other.close()
        wanted.settimeout(BOUND_S)
        assert wanted.recv(100) == b"7"
        assert guardian.wait(BOUND_S) == 0


def test_the_sudden_death_of_the_slots_process_ends_the_program(stage):
    script, told = family(stage, "time.sleep(600)", deaf=True)
    settings = stage.settings(script)
    (stage.folder / "attempt").mkdir()
    holder = (
        "import json, sys\nfrom pathlib import Path\nfrom app.render import registry\n"
        "from app.render.contract import RenderJob\nfrom tests.render.test_command import Listener\n"
        f"renderer = registry.create('command', json.loads({json.dumps(settings)!r}))\nrenderer.load('cpu')\n"
        f"job = RenderJob(Path({str(stage.source)!r}), Path({str(stage.audio)!r}), "
        f"Path({str(stage.folder / 'attempt')!r}), {{}})\nrenderer.render(job, Listener())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", holder], cwd=Path(__file__).parents[2])
    try:
        until(told.exists, "the family")
        os.kill(process.pid, signal.SIGKILL)
        process.wait(BOUND_S)
        until(lambda: all_gone(told), "the family to be gone")
    finally:
        process.kill()


@pytest.mark.parametrize("said", ["inf", "nan", "9" * 1_000, "soon"])
def test_a_progress_that_is_no_number_is_a_sign_of_life_all_the_same(said: str) -> None:
    """Were the reading thread to end of it, the program would end at its next line."""
    watch = Watch(re.compile(r"(?P<percent>\S+)%"))
    watch.hear(f"{said}%")
    assert watch.moves == 1
