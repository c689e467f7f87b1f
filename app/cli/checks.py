"""What `greenroom doctor` looks at without heavy libraries. Each check tries the thing; none only lists it."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from app.config import Settings
    from app.config_sources import LoadedSettings

Verdict = Literal["ok", "warn", "fail"]

GIB = 1024**3
DISK_FAIL_BYTES = 1 * GIB
"""Less than one long video with its inputs."""
DISK_WARN_BYTES = 10 * GIB
SHM_WARN_BYTES = 128 * 1024**2
"""Above the 64 MB that containers have by default, which is too little for programs that pass frames through it."""
ISOLATED_WITHIN_S = 120.0
"""Importing torch and loading the renderer from a cold disk; a driver that hangs takes longer than any of that."""


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `hint` says what to do about a `warn` or a `fail`."""

    name: str
    verdict: Verdict
    finding: str
    hint: str = ""


def python_check() -> Check:
    """The interpreter and the platform."""
    return Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def cores_check(settings: Settings) -> Check:
    """Cores and memory that this process may use."""
    import psutil

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = psutil.virtual_memory()
    finding = f"{usable} cores, {memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB memory available"
    wanted = (settings.slots or 1) * (settings.threads_per_slot or 1)
    if settings.device == "cpu" and wanted > usable:
        hint = "Slots that share cores slow each other down: lower slots or threads_per_slot."
        return Check("host", "warn", f"{finding}; the settings ask for {wanted} render threads", hint)
    return Check("host", "ok", finding)


def configuration_check(loaded: LoadedSettings, foreign: tuple[str, ...]) -> Check:
    """Whether every `GREENROOM_*` variable means something."""
    changed = sum(origin != "default" for origin in loaded.origins.values())
    finding = f"{changed} of {len(loaded.origins)} settings are not at their default"
    if foreign:
        hint = f"Check the spelling; `greenroom config` lists all settings. Without effect: {', '.join(foreign)}."
        return Check("configuration", "warn", f"{finding}; {len(foreign)} variables name no setting", hint)
    return Check("configuration", "ok", finding)


def shared_memory_check() -> Check:
    """A slot's progress block is made and removed, and /dev/shm, which a renderer's libraries may use, is measured."""
    from app.worker.shared import ProgressBlock

    try:
        block = ProgressBlock()
        block.beat(os.getpid(), 0)
        block.close()
    except OSError as error:
        hint = (
            "Every slot needs one. It is anonymous memory and needs no /dev/shm: look at the limits on memory and open "
            "files, and at a seccomp profile that forbids memfd_create."
        )
        return Check("shared memory", "fail", f"no block can be made: {error}", hint)
    shm = Path("/dev/shm")  # noqa: S108 (measured, not written)
    if not shm.is_dir():
        return Check("shared memory", "ok", "works; this system has no /dev/shm, and Greenroom needs none")
    space = os.statvfs(shm)
    total, free = space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize
    finding = f"works; /dev/shm has {free / 1024**2:.0f} of {total / 1024**2:.0f} MiB free"
    if free < SHM_WARN_BYTES:
        hint = "Greenroom itself does not use it; a renderer's libraries may want more (Docker: --shm-size=256m)."
        return Check("shared memory", "warn", finding, hint)
    return Check("shared memory", "ok", finding)


def existing_parent(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def disk_check(data_dir: Path) -> Check:
    """A file is written, synced and removed where the data directory is or will be, and the free space is measured."""
    place = existing_parent(data_dir)
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".greenroom-doctor-") as file:
            file.write(b"greenroom" * 1024)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return Check("disk", "fail", f"{place} cannot be written: {error}", "Choose another --data-dir, or free space.")
    space = os.statvfs(place)
    free = space.f_bavail * space.f_frsize
    finding = f"{free / GIB:.1f} GiB free at {place}"
    if free < DISK_WARN_BYTES:
        verdict: Verdict = "fail" if free < DISK_FAIL_BYTES else "warn"
        return Check("disk", verdict, finding, "Inputs and finished videos live there: free space or move --data-dir.")
    return Check("disk", "ok", finding)


def isolated(name: str, settings: Settings, label: str = "", **more: str) -> Iterator[Check]:
    """Run a check of `app.cli.isolated` in a process of its own: a crash or a hang there is a finding, not our end.

    `label` names it where its process cannot; `more` is told to the check.
    """
    label = label or name
    asked = json.dumps({"tier_renderer": settings.tier_renderer, **settings.renderer_settings(), **more})
    command = [sys.executable, "-m", "app.cli.isolated", name, settings.device, asked]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ISOLATED_WITHIN_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        hint = "A driver or a disk does not answer; look into the system's log."
        yield Check(label, "fail", f"no answer within {ISOLATED_WITHIN_S:g} s", hint)
        return
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name"')]
    yield from (Check(**line) for line in lines)
    if done.returncode != 0:
        ended = f"signal {signal.Signals(-done.returncode).name}" if done.returncode < 0 else f"exit {done.returncode}"
        last = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
        yield Check(
            label, "fail", f"the check died with {ended}: {last}", "Install the environment anew: `make clean venv`."
        )


def as_json(check: Check) -> str:
    """One check as one line of JSON."""
    return json.dumps(asdict(check))
