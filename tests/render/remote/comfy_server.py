"""A server that speaks ComfyUI's protocol over HTTP and WebSocket; what its nodes do is one copy of a file."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import uuid
from pathlib import Path
from typing import Any

import av
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


class ComfyServer:
    """Runs one prompt at a time, a step per `step_s`; `held` keeps the running one where it is."""

    def __init__(self, folder: Path, result: Path) -> None:
        self.folder = folder
        self.made = result
        folder.mkdir()
        self.step_s = 0.02
        self.held = False
        self.sockets = True
        """Whether there is a WebSocket."""
        self.rename = False
        """Uploads come back under another name."""
        self.node_errors: dict[str, Any] | None = None
        """Refuse prompts with these."""
        self.error: dict[str, Any] | None = None
        """What prompts end with in place of a video."""
        self.interrupted_by_others = False
        self.forgets = False
        """A prompt ends without a trace."""
        self.outputs: dict[str, Any] | None = None
        self.prompts: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.uploads: dict[str, bytes] = {}
        self.pending: list[str] = []
        self.running: str = ""
        self.history: dict[str, Any] = {}
        self.interrupts: list[Any] = []
        self._stop_running = False
        self._clients: dict[str, WebSocket] = {}
        self._orders: dict[str, dict[str, Any]] = {}
        self._cache: dict[str, str] = {}
        app = Starlette(
            routes=[
                Route("/upload/image", self._upload, methods=["POST"]),
                Route("/prompt", self._prompt, methods=["POST"]),
                Route("/history/{prompt_id}", self._history),
                Route("/history", self._forget, methods=["POST"]),
                Route("/queue", self._queue),
                Route("/queue", self._delete, methods=["POST"]),
                Route("/interrupt", self._interrupt, methods=["POST"]),
                Route("/view", self._view),
                WebSocketRoute("/ws", self._socket),
            ]
        )
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._server = uvicorn.Server(
            uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        worker = asyncio.ensure_future(self._work())
        await self._server.serve([self._listener])
        worker.cancel()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    def count(self, call: str) -> int:
        return self.calls.count(call)

    def queue_of_another(self, nodes: int = 1) -> str:
        """Put somebody else's prompt into the queue; its id."""
        prompt = str(uuid.uuid4())
        order = {str(number): {"class_type": "EmptyImage", "inputs": {}} for number in range(nodes)}
        self._orders[prompt] = {"prompt": order}
        self.pending.append(prompt)
        return prompt

    async def _upload(self, request: Request) -> Response:
        self.calls.append("upload")
        form = await request.form()
        file, folder = form["image"], str(form.get("subfolder", ""))
        name = f"renamed (1) {file.filename}" if self.rename else file.filename
        place = f"{folder}/{name}" if folder else name
        self.uploads[place] = await file.read()
        return JSONResponse({"name": name, "subfolder": folder, "type": form.get("type", "input")})

    async def _prompt(self, request: Request) -> Response:
        self.calls.append("prompt")
        order = await request.json()
        self.prompts.append(order)
        missing = [
            node["inputs"][name]
            for node in order["prompt"].values()
            for name in ("image", "audio", "file")
            if isinstance(node["inputs"].get(name), str) and node["inputs"][name] not in self.uploads
        ]
        if self.node_errors is not None or missing:
            told = {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation"}
            errors = self.node_errors or {"1": {"class_type": "LoadImage", "errors": [{"message": str(missing)}]}}
            return JSONResponse({"error": told, "node_errors": errors}, 400)
        prompt = str(uuid.uuid4())
        self._orders[prompt] = order
        self.pending.append(prompt)
        return JSONResponse({"prompt_id": prompt, "number": len(self.prompts), "node_errors": {}})

    async def _history(self, request: Request) -> Response:
        self.calls.append("history")
        prompt = request.path_params["prompt_id"]
        return JSONResponse({prompt: self.history[prompt]} if prompt in self.history else {})

    async def _forget(self, request: Request) -> Response:
        for prompt in (await request.json())["delete"]:
            self.history.pop(prompt, None)
        return Response()

    async def _queue(self, _request: Request) -> Response:
        self.calls.append("queue")
        item = lambda prompt: [0, prompt, self._orders.get(prompt, {}).get("prompt"), {}, []]  # noqa: E731
        return JSONResponse(
            {
                "queue_running": [item(self.running)] if self.running else [],
                "queue_pending": [item(prompt) for prompt in self.pending],
            }
        )

    async def _delete(self, request: Request) -> Response:
        for prompt in (await request.json()).get("delete", []):
            if prompt in self.pending:
                self.pending.remove(prompt)
        return Response()

    async def _interrupt(self, request: Request) -> Response:
        asked = await request.json()
        self.interrupts.append(asked)
        if asked.get("prompt_id", self.running) == self.running:
            self._stop_running = True
        return Response()

    async def _view(self, request: Request) -> Response:
        self.calls.append("view")
        path = self.folder / request.query_params.get("subfolder", "") / request.query_params["filename"]
        return FileResponse(path, media_type="video/mp4") if path.is_file() else Response(status_code=404)

    async def _socket(self, socket: WebSocket) -> None:
        if not self.sockets:
            await socket.close()
            return
        await socket.accept()
        client = socket.query_params["clientId"]
        self._clients[client] = socket
        await socket.send_json({"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}}})
        await socket.send_bytes(b"\x00\x00\x00\x01preview")
        await socket.send_text("no json")
        try:
            while True:
                await socket.receive()
        except (WebSocketDisconnect, RuntimeError):
            self._clients.pop(client, None)

    async def _say(self, prompt: str, kind: str, **data: Any) -> None:
        socket = self._clients.get(self._orders[prompt].get("client_id", ""))
        if socket is not None:
            await socket.send_json({"type": kind, "data": {"prompt_id": prompt, **data}})

    async def _work(self) -> None:
        while True:
            await asyncio.sleep(self.step_s)
            if not self.pending:
                continue
            self.running = self.pending.pop(0)
            self._stop_running = False
            prompt = self.running
            record = await self._execute(prompt)
            if not self.forgets:
                self.history[prompt] = record
            self.running = ""
            if record["status"]["completed"]:
                await self._say(prompt, "execution_success")

    async def _execute(self, prompt: str) -> dict[str, Any]:
        order = self._orders[prompt]["prompt"]
        messages: list[Any] = [["execution_start", {"prompt_id": prompt}]]
        for node in order:
            await self._say(prompt, "executing", node=node)
            for value in (1, 2):
                await asyncio.sleep(self.step_s)
                await self._say(prompt, "progress", node=node, value=value, max=2)
            while self.held and not self._stop_running:
                await asyncio.sleep(self.step_s)
            if self._stop_running or self.interrupted_by_others:
                messages.append(["execution_interrupted", {"prompt_id": prompt, "node_id": node}])
                return self._record(order, {}, "error", messages)
        if self.error is not None:
            messages.append(["execution_error", {"prompt_id": prompt, **self.error}])
            return self._record(order, {}, "error", messages)
        return self._record(order, self._save(order), "success", messages)

    def _save(self, order: dict[str, Any]) -> dict[str, Any]:
        key = json.dumps(order, sort_keys=True)
        node, save = next(((n, v) for n, v in order.items() if v["class_type"] == "SaveVideo"), ("", {}))
        if not node:
            return {}
        prefix = save["inputs"]["filename_prefix"]
        # An equal prompt is not run again: its old file is told.
        name = self._cache.setdefault(key, f"{prefix}_{len(self._cache) + 1:05}_.mp4")
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _with_prompt(self.made, path, key)
        folder, _, file = name.rpartition("/")
        shown = {"images": [{"filename": file, "subfolder": folder, "type": "output"}], "animated": [True]}
        return self.outputs if self.outputs is not None else {node: shown}

    def _record(self, order: Any, outputs: Any, status: str, messages: Any) -> dict[str, Any]:
        told = {"status_str": status, "completed": status == "success", "messages": messages}
        return {"prompt": [0, "x", order, {}, []], "outputs": outputs, "status": told}


def _with_prompt(source: Path, target: Path, prompt: str) -> None:
    """The video with the whole prompt as metadata and its index at the end, as SaveVideo writes it."""
    with (
        av.open(str(source)) as before,
        av.open(str(target), "w", format="mp4", options={"movflags": "use_metadata_tags"}) as after,
    ):
        after.metadata["prompt"] = prompt
        streams = {stream.index: after.add_stream_from_template(stream) for stream in before.streams}
        for packet in before.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                after.mux(packet)
