"""Chains of programs and the last resort in a real service: who serves, how often each is called, and what is left."""

from __future__ import annotations

import json
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Service, gone, until
from tests.media.makers import write_video

SECONDS = 0.5
SILENCE_S = 6.0
"""So long that a busy machine starts a program meanwhile."""
SOON_S = 30.0
"""What an attempt may take beyond what its fault takes, on a busy machine; no limit of the service is as short."""
PROGRAM = """
import os, shutil, signal, subprocess, sys, time
source, audio, output, video, tier, fault, where = sys.argv[1:]
with open(video + ".calls", "a") as file:
    print(tier, output, file=file)
if tier in where:
    if fault == "exit": sys.exit("it broke")
    if fault == "code": sys.exit(3)
    if fault == "nothing": sys.exit(0)
    if fault == "rubbish": open(output, "w").write("rubbish" * 99); sys.exit(0)
    if fault == "crash": os.abort()
    if fault == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], start_new_session=True)
        with open(video + ".pids", "a") as file:
            print(os.getpid(), child.pid, file=file, flush=True)
        time.sleep(600)
print("1/1", flush=True)
shutil.copy(video, output)
"""
NEVER = "{ failures = 1000000, window = 1000000, rate = 1.0 }"
FAULTS = {
    "exit": "INTERNAL",
    "code": "UPSTREAM_BUSY",
    "nothing": "OUTPUT_INVALID",
    "rubbish": "OUTPUT_INVALID",
    "crash": "WORKER_CRASHED",
    "hang": "WORKER_STALLED",
}


class Chain:
    """Tiers `one` and `two` of programs, and the last resort."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "program.py"
        self.program.write_text(PROGRAM)
        self.video = write_video(folder / "made.mp4", frames=13)
        self.file = folder / "greenroom.toml"

    def command(self, name: str, **more: str) -> str:
        argv = [sys.executable, "-S", str(self.program), "{source}", "{audio}", "{output}", str(self.video)]
        fields = {
            "name": json.dumps(name),
            "renderer": '"command"',
            "argv": json.dumps([*argv, name, "{options.fault}", "{options.where}"]),
            "options": '{ fault = "", where = "" }',
            "exit_codes": '{ 3 = "UPSTREAM_BUSY" }',
            "breaker": NEVER,
            "patience_s": "1000",
            "concurrency": "2",
        } | more
        return "[[tiers]]\n" + "".join(f"{key} = {value}\n" for key, value in fields.items())

    def write(self, *tiers: str) -> Path:
        self.file.write_text("\n".join([*tiers, f'[[tiers]]\nname = "last"\nrenderer = "still"\nbreaker = {NEVER}\n']))
        return self.file

    def calls(self, task_id: str) -> list[str]:
        """The tiers whose program was started for a task, as the programs themselves wrote it down."""
        lines = [
            line.split(" ", 1) for line in self.video.with_name(self.video.name + ".calls").read_text().splitlines()
        ]
        return [tier for tier, output in lines if f"/{task_id}-" in output]

    def pids(self) -> list[int]:
        file = self.video.with_name(self.video.name + ".pids")
        return [int(pid) for pid in file.read_text().split()] if file.exists() else []


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


def processes(service: Service) -> dict[str, int]:
    return {slot["name"]: slot["pid"] for slot in service.http.get("/queue").json()["slots"] if slot["state"] == "idle"}


def seconds_of(attempt: dict[str, Any]) -> float:
    began, ended = (datetime.fromisoformat(attempt[key]) for key in ("started_at", "ended_at"))
    return (ended - began).total_seconds()


def tiers_of(task: dict[str, Any]) -> list[str]:
    return [attempt["tier"] for attempt in task["attempts"]]


def start(serve: Any, chain: Chain, **environment: str) -> Service:
    return serve(
        "--config",
        str(chain.file),
        GREENROOM_BACKOFF_CAP_S="0.01",
        GREENROOM_MAX_RETRIES="0",
        GREENROOM_CONFIDENCE_THRESHOLD="0",  # its videos show numbers, not faces
        GREENROOM_CACHE="false",  # equal requests, and each is to be rendered
        **environment,
    ).until_ready()


def test_every_fault_at_every_place_with_every_fallback(serve, chain, portrait, speech):  # R2.1 R2.2 R2.8
    chain.write(chain.command("one", silence_s=str(SILENCE_S)), chain.command("two", silence_s=str(SILENCE_S)))
    service = start(serve, chain)
    until(lambda: len(processes(service)) == 5, "all slots")
    before, sound, posted = processes(service), speech(SECONDS), {}
    for fault in FAULTS:
        for where in ("one", "one two"):
            for fallback in ("none", "equal", "any"):
                options = {"fault": fault, "where": where}
                posted[fault, where, fallback] = service.post(portrait, sound, options=options, fallback=fallback)["id"]
    for (fault, where, fallback), task_id in posted.items():
        code = FAULTS[fault]
        task = service.until_ended(task_id)
        served, route = _expected(where, fallback)
        assert (task["served_by"], tiers_of(task)) == (served, route), (fault, where, fallback, task["attempts"])
        assert task["degraded"] == (served == "last")
        codes = {a["error"]["code"] for a in task["attempts"] if a["error"]}
        assert codes == {code}, (fault, where, fallback)
        if served is None:
            assert task["error"]["code"] == code
        assert chain.calls(task_id) == [tier for tier in route if tier != "last"], "each attempt is one call"
        for attempt in task["attempts"]:
            least = SILENCE_S if fault == "hang" and attempt["error"] else 0.0
            assert least <= seconds_of(attempt) < least + SOON_S, (fault, where, fallback, attempt)
    assert processes(service) == before, "a program that fails says nothing against the process that waits for it"
    assert chain.pids()
    assert all(gone(pid) for pid in chain.pids())


def _expected(where: str, fallback: str) -> tuple[str | None, list[str]]:
    """Who serves, and who is called; without retries each tier is called once."""
    if fallback == "none":
        return None, ["one"]
    if where == "one":
        return "two", ["one", "two"]
    return ("last", ["one", "two", "last"]) if fallback == "any" else (None, ["one", "two"])


def test_a_cancel_and_a_time_limit_end_the_program_with_its_family(serve, chain, portrait, speech):
    chain.write(chain.command("one", time_limit_s="60"), chain.command("two"))
    service = start(serve, chain)
    options = {"fault": "hang", "where": "one"}
    task_id = service.post(portrait, speech(SECONDS), options=options)["id"]
    pids = until(chain.pids, "the program to hang")
    slot = next(s for s in service.http.get("/queue").json()["slots"] if s["task_id"] == task_id)
    assert service.http.post(f"/tasks/{task_id}/cancel").status_code in (200, 202)
    assert service.until_ended(task_id)["status"] == "CANCELLED"
    assert all(gone(pid) for pid in pids)
    until(lambda: processes(service).get(slot["name"]) == slot["pid"], "the slot's process, which yielded and stays")

    chain.write(chain.command("one", time_limit_s="1.5"), chain.command("two"))
    assert service.http.post("/tiers/reload").status_code == 200
    task = service.until_ended(service.post(portrait, speech(SECONDS), options=options)["id"])
    assert (task["served_by"], task["attempts"][0]["error"]["code"]) == ("two", "RENDER_TIMEOUT")
    assert len(chain.pids()) > len(pids)
    assert all(gone(pid) for pid in chain.pids())


def test_a_killed_service_leaves_no_program_behind(serve, chain, portrait, speech):
    chain.write(chain.command("one"), chain.command("two"))
    service = start(serve, chain)
    service.post(portrait, speech(SECONDS), options={"fault": "hang", "where": "one"})
    pids = until(chain.pids, "the program to hang")
    service.stop(signal.SIGKILL)
    until(lambda: all(gone(pid) for pid in pids), "the program and its child to be gone")


def test_a_program_that_is_not_there_makes_its_tier_absent_until_it_is(serve, chain, portrait, speech):
    tool = chain.folder / "tool"
    missing = chain.command("one", argv=json.dumps([str(tool), "{source}", "{audio}", "{output}"]), options="{}")
    chain.write(missing)
    service = start(serve, chain)
    tier = service.http.get("/tiers").json()["tiers"][0]
    assert f"its program {tool} is not there" in json.dumps(tier)
    assert service.until_ended(service.post(portrait, speech(SECONDS))["id"])["served_by"] == "last"
    tool.write_text(f'#!/bin/sh\nexec cp {chain.video} "$3"\n')
    tool.chmod(0o755)
    assert service.http.post("/tiers/reload").status_code == 200
    until(lambda: len(service.http.get("/queue").json()["slots"]) == 3, "the slots of the tier")
    assert service.until_ended(service.post(portrait, speech(SECONDS))["id"])["served_by"] == "one"
