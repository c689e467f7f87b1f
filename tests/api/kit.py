"""The API over a real socket: real uvicorn, real store, real sandbox; only the pool is a stand-in."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import socket
import threading
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvicorn

from app.api.app import create_app
from app.api.caching import ResultCache
from app.api.drop_in.terms import DropIn
from app.api.ports import ApiDependencies, ApiSettings, JudgesView, LiveProgress, ReloadRefused, SlotView
from app.chains.releaser import Releaser, ReleaseTerms
from app.forecast.outlook import Outlook, foresee
from app.intake.blobs import BlobStore
from app.intake.fetch import FetchLimits
from app.intake.resolve import Intake, IntakeSettings
from app.media.info import MediaLimits
from app.media.sandbox import Sandbox
from app.notify.address import TargetGuard
from app.store.records import Artifact, Claim, KeepFor, TaskRecord
from app.store.sql import SqlStore, open_store
from app.tiers.settings import TierSettings
from app.tiers.tiers import Tiers

T = TypeVar("T")
VIDEO = bytes(range(256)) * 40
"""What a finished task's file holds here; its bytes tell their own position."""


class LoopThread:
    """One event loop in a thread, for the servers and the sandbox of a whole test run."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._left: list[Future[None]] = []

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, T], seconds: float = 60) -> T:
        return self.submit(work).result(seconds)

    def leave(self, work: Coroutine[Any, Any, None]) -> None:
        """Start work that only has to be done by the end of the test run."""
        self._left.append(self.submit(work))

    def finish(self) -> None:
        """Wait for that work."""
        while self._left:
            self._left.pop().result(60)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)


class StandInPool:
    """A pool whose live view is what a test puts into it."""

    def __init__(self) -> None:
        self.live: dict[str, LiveProgress] = {}
        self.view: list[SlotView] = [SlotView("cpu0", "idle", "cpu")]
        self.court = JudgesView([], waiting=0, judging=0)
        self.stopping = False

    def progress(self, task_id: str) -> LiveProgress | None:
        return self.live.get(task_id)

    def slots(self) -> list[SlotView]:
        return self.view

    def judges(self) -> JudgesView:
        return self.court

    def draining(self) -> bool:
        return self.stopping


class StandInDisk:
    """A disk with as much room as a test says."""

    low_bytes = 1000

    def __init__(self) -> None:
        self.room: int | None = 5000

    def free(self) -> int | None:
        return self.room

    def is_low(self) -> bool:
        return self.room is not None and self.room < self.low_bytes


class StandInDesk:
    """The tiers that a test puts in force; their breakers are closed."""

    def __init__(self) -> None:
        self.tiers = Tiers([TierSettings(name="warp", renderer="warp")])
        self.held: tuple[str, float | None] | None = None
        self.switched: list[tuple[str, bool]] = []
        self.configured: Tiers | str = self.tiers
        """What a reload finds: tiers, or what is wrong."""

    def hold(self, route: Sequence[str]) -> tuple[str, float | None] | None:
        return self.held

    def resources(self) -> list[dict[str, Any]]:
        states = dict(self.switched)
        return [
            {
                "name": tier.name,
                "renderer": tier.settings.renderer,
                "enabled": True,
                "degraded": tier.degraded,
                "only_by_name": False,
                "absent": "",
                "breaker": "open" if states.get(tier.name) else "closed",
                "breaker_until": None,
                "breaker_openings": 0,
                "slots": 1,
                "free": 1,
                "running": 0,
                "latency_s": None,
                "success": None,
                "measured": 0,
            }
            for tier in self.tiers.all.values()
        ]

    def set_breaker(self, tier: str, *, is_open: bool) -> bool:
        self.switched.append((tier, is_open))
        return tier in self.tiers.all

    async def reload(self) -> None:
        if isinstance(self.configured, str):
            raise ReloadRefused(self.configured)
        self.tiers = self.configured


class StandInForecast:
    """What a test says is expected; of other tasks what is known without having learned."""

    def __init__(self) -> None:
        self.told: dict[str, Outlook] = {}
        self.any: Outlook | None = None
        """Of all others."""
        self.positions: dict[str, int | None] = {}
        self.wait: float | None = None
        self.room: dict[str | None, float] = {}

    async def refresh(self) -> None:
        return None

    def outlook(
        self, task: TaskRecord, *, reason: str | None, until: float | None = None, position: int | None = None
    ) -> Outlook:
        self.positions[task.id] = position
        until_s = None if until is None else until - time.time()
        return self.told.get(task.id) or self.any or foresee(reason, until_s=until_s, age_s=0.0)

    def wait_s(self) -> float | None:
        return self.wait

    def room_s(self, client: str | None = None) -> float | None:
        return self.room.get(client)


@dataclass
class StandInReadiness:
    ok: bool = True
    release: threading.Event | None = None

    def check(self) -> tuple[bool, dict[str, Any]]:
        if self.release is not None:
            self.release.wait(30)
        return self.ok, {"database": "ok" if self.ok else "locked"}


class Observed(list[tuple[str, str, int, float]]):
    """The requests that the server has finished; one can wait for them."""

    def __init__(self) -> None:
        self._more = threading.Condition()

    def __call__(self, *seen: Any) -> None:
        with self._more:
            self.append(seen)  # type: ignore[arg-type]
            self._more.notify_all()

    def until(self, count: int) -> None:
        """Wait until so many requests are finished."""
        with self._more:
            assert self._more.wait_for(lambda: len(self) >= count, 20), f"{len(self)} requests, not {count}"


@dataclass(repr=False)
class Api:
    """One running server, its parts, and a client for it."""

    url: str
    client: httpx.Client
    store: SqlStore
    blobs: BlobStore
    pool: StandInPool
    readiness: StandInReadiness
    disk: StandInDisk
    desk: StandInDesk
    forecast: StandInForecast
    data_dir: Path
    app: Any
    observed: Observed
    media: Media
    _stops: list[Any] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def upload(self, path: Path) -> str:
        """Upload a file; its `upload:` address."""
        answer = self.client.post("/uploads", content=path.read_bytes(), params={"name": path.name})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["uri"])

    def inputs(self) -> dict[str, str]:
        """`source` and `audio` of a good request."""
        return {"source": self.upload(self.media.portrait), "audio": self.upload(self.media.speech)}

    def generate(self, **fields: Any) -> httpx.Response:
        return self.client.post("/generate", json=self.inputs() | fields)

    def submit(self, **fields: Any) -> dict[str, Any]:
        """A new task."""
        answer = self.generate(**fields)
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def start(self, task_id: str) -> Claim:
        """Begin the task's next attempt, as the dispatcher would."""
        claim = self.store.claim("node", lease_s=30, tier="warp", slot="cpu0", device="cpu")
        assert claim is not None
        assert claim.task.id == task_id
        return claim

    def succeed(self, claim: Claim, content: bytes = VIDEO) -> None:
        """End an attempt with a result; it is cached where its task takes part in that."""
        keys = claim.task.cache_keys
        self.serve_with(claim, keys[0] if keys else None, content)

    def serve_with(self, claim: Claim, result_key: str | None, content: bytes = VIDEO) -> None:
        """End an attempt with a result that is cached by this key."""
        path = self.data_dir / "results" / f"{claim.task.id}.mp4"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        artifact = Artifact(f"results/{path.name}", sha256, len(content), 1.0, 64, 48, 25.0, 25)
        keep = None if result_key is None else KeepFor(result_key, 3600.0, 10**9)
        self.store.succeed(claim, artifact, served_by="warp", quality={"confidence": 1.0, "checks": {}}, keep=keep)

    def fail(self, claim: Claim, **error: Any) -> None:
        self.store.end_attempt(claim, "fail", error={"code": "WORKER_CRASHED", "message": "", "hint": ""} | error)

    def finished(self, content: bytes = VIDEO, **fields: Any) -> str:
        """The id of a new task that has succeeded."""
        task_id = str(self.submit(**fields)["id"])
        self.succeed(self.start(task_id), content)
        return task_id

    def raw(self, sent: bytes, *, then_close: bool = False) -> bytes:
        """Send bytes over a socket of their own and read all that comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(sent)
            if then_close:
                connection.shutdown(socket.SHUT_WR)
            received = b""
            while piece := connection.recv(65_536):
                received += piece
        return received


@dataclass(frozen=True)
class Media:
    """Real little files."""

    portrait: Path
    speech: Path
    video: Path
    silent_video: Path
    no_samples: Path
    rubbish: Path
    empty: Path
    bomb: Path


class ApiFactory:
    """Starts servers in one loop, each on a database of its own."""

    def __init__(self, loop: LoopThread, sandbox: Sandbox, template: Path, folder: Path, media: Media) -> None:
        self._loop, self._sandbox, self._template, self._folder, self._media = loop, sandbox, template, folder, media
        self._running: list[tuple[Api, Any]] = []

    def __call__(
        self,
        *,
        media_roots: tuple[Path, ...] = (),
        allow_private_addresses: bool = False,
        limits: MediaLimits | None = None,
        prober: Any = None,
        cached: bool = False,
        drop_in: DropIn | None = None,
        **settings: Any,
    ) -> Api:
        data_dir = self._folder / f"data{len(self._running)}"
        data_dir.mkdir()
        shutil.copyfile(self._template, data_dir / "greenroom.db")
        store = open_store(data_dir / "greenroom.db")
        blobs = BlobStore(data_dir / "blobs")
        intake = Intake(
            blobs,
            store,
            prober or self._sandbox,
            IntakeSettings(
                media_roots,
                allow_private_addresses,
                limits or MediaLimits(),
                FetchLimits(read_s=1, total_s=5),
            ),
        )
        pool, readiness, disk, desk = StandInPool(), StandInReadiness(), StandInDisk(), StandInDesk()
        forecast = StandInForecast()
        observed = Observed()
        deps = ApiDependencies(
            store=store,
            intake=intake,
            pool=pool,
            tiers=desk,
            readiness=readiness,
            settings=ApiSettings(data_dir, **settings),
            render_metrics=lambda: (b"greenroom_up 1\n", "text/plain; version=1.0.0; charset=utf-8"),
            observe_request=observed,
            disk=disk,
            forecast=forecast,
            check_target=TargetGuard(allow_private=allow_private_addresses).check,
            cache=ResultCache(store, data_dir, max_bytes=10**9) if cached else None,
            drop_in=drop_in or DropIn(),
        )
        terms = ReleaseTerms(data_dir, deps.settings.default_deadline_s)
        releaser = Releaser(store, intake, terms, tiers=lambda: desk.tiers, backoff=lambda *_: 0.01, cache=deps.cache)
        self._loop.run(releaser.start())
        app = create_app(deps)
        server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="error", access_log=False))
        serving = self._loop.submit(server.serve())
        port = self._loop.run(_port_of(server))
        url = f"http://127.0.0.1:{port}"
        client = httpx.Client(base_url=url, timeout=30, trust_env=False, verify=False)
        api = Api(
            url, client, store, blobs, pool, readiness, disk, desk, forecast, data_dir, app, observed, self._media
        )

        async def stop() -> None:
            app.state.waiters.close()
            app.state.hub.close()
            server.should_exit = True
            await asyncio.wrap_future(serving)
            await releaser.stop()
            await intake.close()
            await asyncio.to_thread(store.close)

        self._running.append((api, stop))
        return api

    def close(self) -> None:
        """Tell all servers to stop. They do so while the next tests run: uvicorn looks ten times a second."""
        for api, stop in self._running:
            api.client.close()
            self._loop.leave(stop())


async def _port_of(server: uvicorn.Server) -> int:
    async with asyncio.timeout(20):
        while not server.started:  # uvicorn has no event for it
            await asyncio.sleep(0.005)
    return int(server.servers[0].sockets[0].getsockname()[1])


def problem(answer: httpx.Response, status: int, code: str, field: str | None = None) -> dict[str, Any]:
    """Check that an answer is the problem that it should be; its body."""
    assert answer.status_code == status, f"{answer.status_code}: {answer.text}"
    assert answer.headers["content-type"] == "application/problem+json"
    body = dict(answer.json())
    assert body["code"] == code, body
    assert body["status"] == status
    assert body["field"] == field, body
    for name in ("type", "title", "detail", "hint", "instance", "request_id"):
        assert body[name], f"{name} is empty: {body}"
    assert isinstance(body["retryable"], bool)
    assert "Traceback" not in answer.text
    return body


def multipart(parts: list[tuple[str, str | None, bytes]], boundary: str = "xyzzy") -> tuple[bytes, dict[str, str]]:
    """A form written by hand: (name, file name or None, content), and its header."""
    lines = []
    for name, file_name, content in parts:
        extra = f'; filename="{file_name}"' if file_name is not None else ""
        lines.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + content)
    body = b"\r\n".join([*lines, f"--{boundary}--\r\n".encode()])
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def as_part(fields: dict[str, Any]) -> tuple[str, None, bytes]:
    """The `request` part of a form."""
    return ("request", None, json.dumps(fields).encode())
