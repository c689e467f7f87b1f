"""A chain of servers that are broken, in a real service: who serves, and how often each server is called."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from socket import socket
from typing import Any

import av
import numpy as np
import pytest

from tests.e2e.conftest import Service, until
from tests.render.remote.duix_server import DuixServer
from tests.render.remote.rough_peer import RoughPeer, answer

CHAIN = """
[[tiers]]
name = "studio"
renderer = "duix"
url = "{duix}"
shared_dir = "{shared}"
concurrency = 4
header_s = 60
call_s = 90
poll_s = 0.05
patience_s = 0
breaker = {{ failures = 3, open_s = 2 }}

[[tiers]]
name = "workflow"
renderer = "comfyui"
url = "{comfy}"
breaker = {{ failures = 3, open_s = 3600 }}

[[tiers]]
name = "here"
renderer = "rehearsal"
default_options = {{ fault = "none" }}
"""
BROKEN = answer("200 OK", b'{"code": 9999, "success": false, "msg": "", "data": {}}')
AWAY = answer("500 Internal Server Error", b"Traceback (most recent call last)", "Content-Type: text/plain")


@pytest.fixture
def peers() -> Iterator[tuple[RoughPeer, RoughPeer]]:
    both = RoughPeer(BROKEN), RoughPeer(AWAY)
    yield both
    for peer in both:
        peer.close()


@pytest.fixture
def start(serve, tmp_path):
    (tmp_path / "shared").mkdir()

    def begin(duix: str, comfy: str) -> Service:
        file = tmp_path / "greenroom.toml"
        file.write_text(CHAIN.format(duix=duix, comfy=comfy, shared=tmp_path / "shared"))
        # The servers of these tests show no faces: the gate would send their videos on.
        return serve(
            "--config", str(file), GREENROOM_REHEARSALS="1", GREENROOM_CONFIDENCE_THRESHOLD="0", GREENROOM_CACHE="false"
        ).until_ready()

    return begin


def breaker(service: Service, name: str) -> dict[str, Any]:
    return next(t for t in service.http.get("/tiers").json()["tiers"] if t["name"] == name)["breaker"]


def tiers_of(task: dict[str, Any]) -> list[str]:
    return [attempt["tier"] for attempt in task["attempts"]]


def test_broken_servers_are_left_alone_and_one_task_of_fifty_finds_out_whether_they_are_well(  # R2.1 R2.2 R3.4 R3.7
    start, peers, portrait, speech
):
    duix, comfy = peers
    service = start(duix.url, comfy.url)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    service.http.headers["traceparent"] = f"00-{trace}-00f067aa0ba902b7-01"
    for _ in range(3):
        task = service.until_ended(service.post(portrait, speech(0.5))["id"])
        assert (task["status"], task["served_by"], tiers_of(task)) == (
            "SUCCEEDED",
            "here",
            ["studio", "workflow", "here"],
        )
    first, second = (attempt["error"] for attempt in task["attempts"][:2])
    assert (first["code"], second["code"]) == ("UPSTREAM_5XX", "UPSTREAM_5XX")
    assert "/upload/image answered 500 Internal Server Error after" in second["message"]
    assert "Traceback" in second["message"]
    assert (len(duix.requests), len(comfy.requests)) == (3, 12)  # a submission once, an upload four times

    page = service.http.get("/metrics").text
    assert 'greenroom_upstream_duration_seconds_count{call="submit",tier="studio"} 3.0' in page
    assert 'greenroom_upstream_duration_seconds_count{call="upload",tier="workflow"} 12.0' in page
    called = [request.lower() for request in (*duix.requests, *comfy.requests)]
    assert all(f"traceparent: 00-{trace}-".encode() in request for request in called)

    assert breaker(service, "workflow")["state"] == "open"
    until(lambda: breaker(service, "studio")["state"] == "half_open", "the breaker's pause to end")
    assert len(duix.requests) == 3
    others_done = threading.Event()

    def hold(connection: socket) -> None:
        others_done.wait(80)
        BROKEN(connection)

    duix.script = [hold]
    sound = speech(0.5)
    with ThreadPoolExecutor(10) as pool:
        made = list(pool.map(lambda _: service.post(portrait, sound)["id"], range(50)))
    until(lambda: sum(service.task(name)["is_terminal"] for name in made) >= 49, "all but the probe")
    assert len(duix.requests) == 4
    others_done.set()
    tasks = [service.until_ended(name) for name in made]
    assert {task["served_by"] for task in tasks} == {"here"}
    assert sorted(map(len, map(tiers_of, tasks))) == [1] * 49 + [2]
    assert (len(duix.requests), len(comfy.requests)) == (4, 12)


def test_a_server_that_works_serves_and_nothing_stays_there(start, peers, portrait, speech, tmp_path):
    _, comfy = peers
    made = tmp_path / "made.mp4"
    with av.open(str(made), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(13):
            picture = np.roll(np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1)), number * 2, axis=1)
            frame = av.VideoFrame.from_ndarray(np.stack([picture] * 3, axis=-1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    server = DuixServer(tmp_path / "shared" / "face2face", made)
    try:
        service = start(server.url, comfy.url)
        text = (tmp_path / "greenroom.toml").read_text()
        (tmp_path / "greenroom.toml").write_text(text.replace(str(tmp_path / "shared"), str(server.folder)))
        assert service.http.post("/tiers/reload").status_code == 200
        task = service.until_ended(service.post(portrait, speech(0.5))["id"])
        assert (task["status"], task["served_by"]) == ("SUCCEEDED", "studio"), task["attempts"]
        assert (server.left(), server.running, comfy.requests) == ([], [], [])
    finally:
        server.close()
