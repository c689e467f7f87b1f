"""Light tiers beside those of the devices in one real service: the last resort serves, and reload adds and removes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil

from tests.e2e.conftest import Service, gone, until

WARP = '[[tiers]]\nname = "good"\nrenderer = "warp"\n'
STILL = '[[tiers]]\nname = "last"\nrenderer = "still"\nconcurrency = {slots}\n'


def slots(service: Service) -> dict[str, dict[str, Any]]:
    return {slot["name"]: slot for slot in service.http.get("/queue").json()["slots"]}


def maps_torch(pid: int) -> bool:
    return any("libtorch" in entry.path for entry in psutil.Process(pid).memory_maps())


def test_warp_and_the_last_resort_in_one_service(serve, tmp_path: Path, portrait, speech):  # R2.4 R2.8 R2.9
    file = tmp_path / "greenroom.toml"
    file.write_text(WARP + STILL.format(slots=2))
    service = serve("--config", str(file), GREENROOM_CACHE="false")  # equal requests, and each is to be rendered
    until(lambda: [s["state"] for s in slots(service).values()] == ["idle"] * 3, "three slots")
    assert sorted(slots(service)) == ["cpu-0", "last-0", "last-1"]
    assert [maps_torch(slots(service)[name]["pid"]) for name in ("cpu-0", "last-0", "last-1")] == [True, False, False]

    task = service.until_ended(service.post(portrait, speech(0.5), options={"strength": 1.1})["id"])
    assert (task["served_by"], task["degraded"]) == ("good", False)
    assert service.http.put("/tiers/good/breaker", json={"state": "open"}).status_code == 200
    task = service.until_ended(service.post(portrait, speech(0.5), options={"strength": 1.1})["id"])
    assert (task["served_by"], task["degraded"]) == ("last", True)
    video = service.http.get(f"/tasks/{task['id']}/output")
    assert video.headers["content-type"] == "video/mp4"

    pids = {name: slot["pid"] for name, slot in slots(service).items()}
    file.write_text(STILL.format(slots=1))
    assert service.http.post("/tiers/reload").status_code == 200
    until(lambda: sorted(slots(service)) == ["last-0"] and gone(pids["cpu-0"]), "the device's slot to go")
    assert slots(service)["last-0"]["pid"] == pids["last-0"], "what stays as it was keeps its process"
    until(lambda: gone(pids["last-1"]), "the second light slot to go")
    task = service.until_ended(service.post(portrait, speech(0.5))["id"])
    assert task["served_by"] == "last"

    file.write_text(WARP)
    assert service.http.post("/tiers/reload").status_code == 200
    until(lambda: [s["state"] for s in slots(service).values()] == ["idle"], "the device's slot to come back")
    task = service.until_ended(service.post(portrait, speech(0.5))["id"])
    assert (task["served_by"], task["degraded"]) == ("good", False)
    assert not service.http.get("/health/ready").json().get("failures")
