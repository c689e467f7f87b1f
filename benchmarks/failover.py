"""What it adds to a task that the tier before the serving one cannot: its breaker is open, or nobody listens there.

Tasks that name the serving tier and tasks that come to it over the chain take turns on one service, so that both meet
the same machine. What counts is the difference of their medians, from the request to the renderer's first line.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from benchmarks import material
from benchmarks.figures import free_port, percentile, summary
from benchmarks.handover import NO_OP, half_second, rendered
from benchmarks.service import Running, service

ROUNDS = 80
TARGETS_MS = {"open_breaker": 5.0, "refused_connection": 50.0}
"""Time that failing over may add."""


def added(folder: Path) -> dict[str, Any]:
    """Milliseconds from the request to the first line: direct, past an open breaker, past a refused connection."""
    config = folder / "greenroom.toml"
    shared = folder / "shared"
    shared.mkdir()
    config.write_text(
        '[[tiers]]\nname = "away"\nrenderer = "duix"\n'
        f'url = "http://127.0.0.1:{free_port()}"\nshared_dir = {json.dumps(str(shared))}\n'
        f"drop_options = {json.dumps(list(NO_OP))}\npatience_s = 1e6\n"
        "breaker = { failures = 1000000, window = 1000000, rate = 1.0 }\n"
        '[[tiers]]\nname = "here"\nrenderer = "rehearsal"\n'
    )
    data = folder / "chain"
    flags = ("--config", str(config), "--slots", "1")
    more = {"GREENROOM_REHEARSALS": "1", "GREENROOM_CACHE": "false"}
    with service(data, *flags, port=free_port(), **more) as running:
        source, audio = running.upload(material.portrait()), running.upload(half_second(folder / "half.wav"))
        task = {"source": source, "audio": audio, "options": NO_OP}
        _settle(running, task)
        results: dict[str, Any] = {}
        for name, state, attempts in (("open_breaker", "open", 1), ("refused_connection", "closed", 2)):
            running.client.put("/tiers/away/breaker", json={"state": state}).raise_for_status()
            direct, over = [], []
            for _ in range(ROUNDS):
                direct.append(_to_first_line(running, data, 1, **task, renderer="here"))
                over.append(_to_first_line(running, data, attempts, **task))
            results[name] = {
                "direct_ms": summary(direct, 1000),
                "over_the_chain_ms": summary(over, 1000),
                "added_p50_ms": round((percentile(over, 50) - percentile(direct, 50)) * 1000, 2),
                "added_p10_ms": round((percentile(over, 10) - percentile(direct, 10)) * 1000, 2),
                "target_ms": TARGETS_MS[name],
            }
        return results


def _settle(running: Running, task: dict[str, Any]) -> None:
    """All slots idle, and the first renders of both ways made."""
    while any(slot["state"] != "idle" for slot in running.client.get("/queue").json()["slots"]):
        time.sleep(0.05)
    for more in ({"renderer": "here"}, {}):
        ended = running.wait(running.generate(**task, **more)["id"])
        assert ended["served_by"] == "here", ended["error"]


def _to_first_line(running: Running, data: Path, attempts: int, **request: Any) -> float:
    """Seconds from the request to the first line of the render that served it, on idle slots."""
    began = time.time()
    task_id = running.generate(**request)["id"]
    ended = running.wait(task_id)
    assert (ended["served_by"], len(ended["attempts"])) == ("here", attempts), ended["attempts"]
    [span] = rendered(data, [task_id])
    while any(slot["state"] != "idle" for slot in running.client.get("/queue").json()["slots"]):
        time.sleep(0.001)
    return span.began - began
