"""A media helper whose decoder misbehaves on cue: the file's name says how. Run by `Sandbox(child_module=...)`."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

from app.media import sandbox_child
from app.media.info import MediaInfo, MediaLimits
from app.media.probe import probe


def hostile(path: Path, limits: MediaLimits) -> MediaInfo:
    """Crash, hang, spin, eat memory, exit, babble or write, as the name says; else probe as usual."""
    cue = path.stem
    if cue == "segfault":
        ctypes.string_at(0)
    elif cue == "abort":
        os.abort()
    elif cue == "hang":
        while True:
            signal.pause()
    elif cue == "spin":
        while True:
            pass
    elif cue == "eat":
        hoard = []
        while True:
            hoard.append(bytearray(16 * 1024**2))
    elif cue == "exit":
        os._exit(3)
    elif cue == "babble":
        print("not an answer", flush=True)
        os.write(1, b"neither\n")
    elif cue == "write":
        Path(path.parent / "written").write_bytes(b"x")
    elif cue == "files":
        held = [os.open("/dev/null", os.O_RDONLY) for _ in range(100)]
        time.sleep(len(held))
    elif cue == "surroundings":
        seen = [f"{name}=" for name in os.environ]
        for fd in list(Path("/proc/self/fd").iterdir()):
            with contextlib.suppress(FileNotFoundError):  # the listing's own
                seen.append(str(fd.readlink()))
        raise RuntimeError(" ".join(seen))
    return probe(path, limits)


if __name__ == "__main__":
    sandbox_child.main(hostile)
