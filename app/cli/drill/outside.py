"""Drills that strike the service itself: its processes and its database. Only on a stage of the drill's own."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psutil

from app.cli.drill import verify
from app.cli.drill.scene import PLAIN, Drill, Scene, Seen
from app.cli.drill.stage import freeze, is_ready, thaw, until
from app.cli.drill.terms import Terms
from app.cli.service_process import ServiceProcess

_SLOW: dict[str, Any] = {"frame_s": 0.5}
"""Options of a rehearsal that is certain to run when its service is struck: ten frames, five seconds."""
_SCHEDULED_S = 1.0
"""A task is to start so long after it is handed in: while the service is down."""
_LOCKED_S = 10.0
_ACCEPTED = "until a new task was accepted"
_INTERRUPTED = ["INTERRUPTED", "SUCCEEDED"]


def kill_the_service(scene: Scene) -> Seen:
    """SIGKILL of the service with all its processes while tasks run, wait and are scheduled; and a new start."""
    caller, stage = scene.caller, scene.stage
    struck = caller.hand_in(_SLOW)
    others = scene.hand_in_beside()
    soon = datetime.now(UTC) + timedelta(seconds=_SCHEDULED_S)
    scheduled = caller.hand_in(PLAIN, not_before=soon.isoformat())
    if caller.until_rendering(struck, scene.terms.patience_s()) is None:
        return _never_rendered(scene, struck)
    killed = verify.now()
    [service] = stage.services
    service.kill()
    stage.start()
    seen = Seen()
    if forgotten := [task_id for task_id in caller.accepted if not caller.knows(task_id)]:
        words = [f"the restarted service does not know {task_id}, which it had accepted" for task_id in forgotten]
        return Seen(f"{len(forgotten)} of {len(caller.accepted)} tasks are gone", wrong=words)
    again = [task_id for task_id in list(caller.accepted) if caller.hand_in_again(task_id) != task_id]
    seen.wrong += [f"sent again under its key, {task_id} became another task" for task_id in again]
    ended = {task_id: caller.until_ended(task_id, scene.terms.patience_s()) for task_id in (struck, *others, scheduled)}
    seen.wrong += _wrong_interruptions(scene, ended, [struck])
    task = ended[struck]
    good = sum(one["status"] == "SUCCEEDED" for one in ended.values())
    seen.what = f"{verify.told(task)}; {good} of {len(ended)} tasks SUCCEEDED, ready again after {stage.ready_s:.1f} s"
    _note_takeover(seen, task, killed, scene.terms.restarted_s())
    return seen


def kill_one_of_two(scene: Scene) -> Seen:
    """SIGKILL of one of two services on the same data, the one that renders."""
    return _strike_one_of_two(scene, frozen=False)


def freeze_one_of_two(scene: Scene) -> Seen:
    """SIGSTOP of one of two services for longer than its lease; it wakes up when the other one is done."""
    return _strike_one_of_two(scene, frozen=True)


def _strike_one_of_two(scene: Scene, *, frozen: bool) -> Seen:
    caller, stage, terms = scene.caller, scene.stage, scene.terms
    second = stage.start_second()
    struck = caller.hand_in(_SLOW)
    others = scene.hand_in_beside()
    if caller.until_rendering(struck, terms.patience_s()) is None:
        return _never_rendered(scene, struck)
    holder = next((service for service in stage.services if _holds(service, struck)), None)
    if holder is None:
        return Seen("nothing was struck", wrong=[f"no service has it in a slot: {verify.told(caller.task(struck))}"])
    other = second if holder is not second else next(s for s in stage.services if s is not second)
    family = holder.family()
    at = verify.now()
    if frozen:
        freeze(family)
    else:
        holder.kill()
    try:
        with caller.at(other.url) as elsewhere:
            patience = terms.takeover_s() + terms.patience_s()
            ended = {task_id: elsewhere.until_ended(task_id, patience) for task_id in (struck, *others)}
    finally:
        thaw(family)
    seen = Seen()
    if frozen and not until(lambda: is_ready(holder.url) and not _holds(holder, struck), terms.patience_s()):
        seen.wrong.append("the service that was frozen is not ready again")
    if not frozen and holder is not second:
        stage.start()
    if second.runs and (code := second.stop()) != 0:
        seen.wrong.append(f"a service exited with {code}")
    seen.wrong += [f"{one} has changed since it ended" for one in ended if caller.task(one) != ended[one]]
    seen.wrong += _wrong_interruptions(scene, ended, [struck])
    good = sum(one["status"] == "SUCCEEDED" for one in ended.values())
    seen.what = f"{verify.told(ended[struck])}; {good} of {len(ended)} tasks SUCCEEDED"
    _note_takeover(seen, ended[struck], at, terms.takeover_s())
    return seen


def lock_the_database(scene: Scene) -> Seen:
    """Another program holds the database's lock; what was running goes on, what cannot be stored is refused."""
    caller, terms = scene.caller, scene.terms
    running = [caller.hand_in(_SLOW), *scene.hand_in_beside()]
    if caller.until_rendering(running[0], terms.patience_s()) is None:
        return _never_rendered(scene, running[0])
    hold_s = min(_LOCKED_S, terms.settings.lease_s / 2)
    body = caller.request_of(running[0])
    seen, refused = Seen(), []
    with closing(sqlite3.connect(scene.stage.data_dir / "greenroom.db", isolation_level=None, timeout=30)) as locker:
        locker.execute("BEGIN EXCLUSIVE")
        until_s = time.monotonic() + hold_s
        while time.monotonic() < until_s:
            refused.append(_post(caller.url, body, seen))
            if (answer := httpx.get(f"{caller.url}/health/live", timeout=5.0)).status_code != httpx.codes.OK:
                seen.wrong.append(f"/health/live answered {answer.status_code} while the database was locked")
        locker.execute("ROLLBACK")
        unlocked = verify.now()
    new = caller.hand_in(PLAIN)
    seen.recovered(verify.now() - unlocked, terms.takeover_s(), _ACCEPTED)
    ended = {task_id: caller.until_ended(task_id, terms.patience_s()) for task_id in (*running, new)}
    seen.wrong += _wrong_interruptions(scene, ended, [])
    good = sum(one["status"] == "SUCCEEDED" for one in ended.values())
    seen.what = f"refused while it was locked: {sum(refused)}; {good} of {len(ended)} tasks SUCCEEDED"
    return seen


def _post(url: str, body: dict[str, Any], seen: Seen) -> bool:
    """Submit once, without the client's patience; whether it was refused, and rightly."""
    try:
        answer = httpx.post(f"{url}/generate", json=body, timeout=60.0)
    except httpx.TransportError as error:
        seen.wrong.append(f"a submission got no answer while the database was locked: {error!r}")
        return False
    if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
        seen.wrong.append(f"a submission was answered {answer.status_code} while the database was locked, not 503")
    elif "retry-after" not in answer.headers or not answer.json().get("hint"):
        seen.wrong.append("the refusal does not say when to try again, and what to do")
    return True


def kill_the_media_helper(scene: Scene) -> Seen:
    """SIGKILL of the process that opens media for the service."""
    caller, terms = scene.caller, scene.terms
    [service] = scene.stage.services
    helpers = [process for process in service.family() if _runs_module(process, "app.media.sandbox_child")]
    if not helpers:
        return Seen("nothing was struck", wrong=["the service has no process that opens media"])
    at = verify.now()
    helpers[0].kill()
    task_ids = [caller.hand_in(PLAIN, **caller.upload()), *scene.hand_in_beside()]
    ended = {task_id: caller.until_ended(task_id, terms.patience_s()) for task_id in task_ids}
    seen = Seen(f"new inputs were taken in; {verify.told(ended[task_ids[0]])}")
    seen.wrong += _wrong_interruptions(scene, ended, [])
    seen.recovered(verify.moment(ended[task_ids[0]]["created_at"]) - at, terms.patience_s(), _ACCEPTED)
    return seen


def _runs_module(process: psutil.Process, module: str) -> bool:
    try:
        return module in process.cmdline()
    except psutil.Error:
        return False


def run_low_on_disk(scene: Scene) -> Seen:
    """The service is started where less room is left than it wants (`disk_low_bytes`), with tasks in its queue."""
    caller, stage, terms = scene.caller, scene.stage, scene.terms
    caller.client.request("POST", "/queue/pause")
    waiting = [caller.hand_in(PLAIN), *scene.hand_in_beside()]
    body = caller.request_of(waiting[0])
    seen = Seen()
    [service] = stage.services
    if (code := service.stop()) != 0:
        seen.wrong.append(f"the service exited with {code}")
    starved = stage.start(disk_low_bytes=str(2**62))
    answer = httpx.post(f"{caller.url}/generate", json=body, timeout=30.0)
    if answer.status_code != httpx.codes.INSUFFICIENT_STORAGE or answer.json().get("code") != "DISK_LOW":
        seen.wrong.append(f"a new task was answered {answer.status_code}, not 507 DISK_LOW")
    caller.client.request("POST", "/queue/resume")
    ended = {task_id: caller.until_ended(task_id, terms.patience_s()) for task_id in waiting}
    if (code := starved.stop()) != 0:
        seen.wrong.append(f"the service exited with {code}")
    began = verify.now()
    stage.start()
    new = caller.hand_in(PLAIN)
    seen.recovered(verify.now() - began, terms.restarted_s(), "from the next start until a new task was accepted")
    ended[new] = caller.until_ended(new, terms.patience_s())
    seen.wrong += _wrong_interruptions(scene, ended, [])
    good = sum(one["status"] == "SUCCEEDED" for one in ended.values())
    seen.what = f"new task refused with {answer.status_code}; {good} of {len(ended)} tasks SUCCEEDED"
    return seen


def _holds(service: ServiceProcess, task_id: str) -> bool:
    slots = httpx.get(f"{service.url}/queue", timeout=10.0).raise_for_status().json()["slots"]
    return any(slot["task_id"] == task_id for slot in slots)


def _never_rendered(scene: Scene, task_id: str) -> Seen:
    return Seen("it did not render", wrong=[f"it came to no frame: {verify.told(scene.caller.task(task_id))}"])


def _wrong_interruptions(scene: Scene, ended: dict[str, dict[str, Any]], struck: list[str]) -> list[str]:
    """All succeeded; those that were struck in their second attempt, the others after one interruption at most."""
    wrong = []
    for task_id, task in ended.items():
        spared = task_id not in struck and verify.story(task) != _INTERRUPTED
        wrong += verify.wrong_end(task, "SUCCEEDED", ["SUCCEEDED"] if spared else _INTERRUPTED)
        wrong += scene.caller.wrong_about(task) + scene.wrong_files(task)
    return wrong


def _note_takeover(seen: Seen, task: dict[str, Any], at: float, within_s: float) -> None:
    if len(task["attempts"]) > 1:
        seen.recovered(verify.moment(task["attempts"][1]["started_at"]) - at, within_s, "until it was rendered again")


def _twice(_terms: Terms) -> str:
    return "INTERRUPTED, then SUCCEEDED; no retry charged, every task once"


OUTSIDE = (
    Drill(
        "service-killed",
        "the service and all its processes are killed (SIGKILL) while it renders, and it is started again",
        _twice, kill_the_service, lambda terms: terms.start_s + 7.0, inside=False,
    ),
    Drill(
        "one-of-two-killed",
        "of two services on the same data, the one that renders is killed (SIGKILL)",
        _twice, kill_one_of_two, lambda terms: terms.settings.lease_s + 2 * terms.start_s + 6.0, inside=False,
    ),
    Drill(
        "one-of-two-frozen",
        "of two services on the same data, the one that renders is frozen (SIGSTOP) and woken when it is too late",
        lambda _terms: "INTERRUPTED, then SUCCEEDED; what wakes up changes nothing",
        freeze_one_of_two, lambda terms: terms.settings.lease_s + terms.start_s + 6.0, inside=False,
    ),
    Drill(
        "database-locked",
        "another program locks the database while tasks run",
        lambda _terms: "new tasks are refused with 503 and Retry-After; what was accepted SUCCEEDED",
        lock_the_database, lambda terms: min(_LOCKED_S, terms.settings.lease_s / 2) + 8.0,
        inside=False,
    ),
    Drill(
        "media-helper-killed",
        "the process that opens media files for the service is killed (SIGKILL)",
        lambda _terms: "the next inputs are taken in, SUCCEEDED",
        kill_the_media_helper, lambda _terms: 5.0,
        inside=False,
    ),
    Drill(
        "disk-low",
        "the disk is low when the service is started with tasks in its queue",
        lambda _terms: "new tasks are refused with 507; what was accepted SUCCEEDED",
        run_low_on_disk, lambda terms: 2 * terms.start_s + 5.0,
        inside=False,
    ),
)  # fmt: skip
