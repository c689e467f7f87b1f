"""Following a task to its end."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.cli.client import ServiceClient
from app.cli.errors import CommandError, exit_code_for
from app.cli.progress import ProgressView

LOOK_EVERY_S = 0.5
"""How long one look waits for the end of the task: the bar moves this often, and the end is seen at once."""
SOONEST_S = 0.25
"""The least time between two looks, should the service answer without waiting."""


def follow(client: ServiceClient, task: dict[str, Any], view: ProgressView) -> dict[str, Any]:
    """Look at a task until it is terminal, showing its progress. Returns its last state."""
    show(task, view)
    while not task["is_terminal"]:
        asked = time.monotonic()
        task, again_s = client.task(task["id"], wait_s=LOOK_EVERY_S)
        show(task, view)
        if not task["is_terminal"]:
            # The long poll has waited already; where it could not, the service's own guess is kept to.
            pause = min(max(again_s, SOONEST_S), LOOK_EVERY_S) - (time.monotonic() - asked)
            time.sleep(max(pause, 0.0))
    return task


def show(task: Mapping[str, Any], view: ProgressView) -> None:
    """Put a task's state on the view: its place in the queue while it waits, else phase and frames."""
    if task["status"] == "RUNNING":
        progress = task.get("progress") or {}
        view.update(
            str(progress.get("phase") or "start"), int(progress.get("done") or 0), int(progress.get("total") or 0)
        )
        return
    ahead = task.get("queue_position")
    waiting = f"waiting ({ahead} ahead)" if ahead else "waiting"
    view.update(waiting if not task["is_terminal"] else str(task["status"]).lower(), 0, 0)


def raise_unless_succeeded(task: Mapping[str, Any]) -> None:
    """Raise a finished task's own error as `CommandError` unless it succeeded."""
    if task["status"] == "SUCCEEDED":
        return
    error = task.get("error") or {}
    code = str(error.get("code") or task["status"])
    message = str(error.get("message") or f"The task ended as {task['status']}.")
    raise CommandError(code, message, str(error.get("hint") or ""), exit_code=exit_code_for(code))


def service_url(named: str | None, data_dir: Path, host: str, port: int) -> str:
    """Which service to speak to: the named one, the one that runs on `data_dir`, or the configured address."""
    if named:
        return named if "://" in named else f"http://{named}"
    running = running_service(data_dir)
    if running is not None:
        return running
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, host)  # noqa: S104 (not bound here)
    return f"http://{reachable}:{port}"


def running_service(data_dir: Path, pid: int | None = None) -> str | None:
    """The address that a service on `data_dir` (with `pid`: that one) has written down; None while there is none.

    A file that a killed service left behind does not count: its process is gone. Nor does one of another machine that
    shares the folder.
    """
    try:
        noted = json.loads((data_dir / "service.json").read_text(encoding="utf-8"))
        url, serving = str(noted["url"]), int(noted["pid"])
        if noted["host"] != socket.gethostname():
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return url if pid in (None, serving) and _is_alive(serving) else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # another user's
    except OSError:
        return False
    return True
