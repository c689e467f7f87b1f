"""A server that speaks the Duix.Avatar protocol, with all its quirks, on a folder; its GPU is a copy of a file.

Codes, bodies, words and the files that it leaves are those of the server's entry `app_local.py`, of which there are
public copies, and of logs in the project's issues.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import av

SERVER_DIR = "/code/data"
_WORDS = {10: "文件下载完成", 20: "音频特征提取完成", 90: "视频处理完成"}


class DuixServer:
    """One task at a time; records die with the first answer that tells an end. It moves by one step per look."""

    def __init__(self, folder: Path, result: Path) -> None:
        """`result` is the video that every task makes; `folder` stands for `/code/data`."""
        self.folder = folder
        self.made = result
        self.steps: list[Any] = [0, 10, 20, 20, 90]
        """Progress at one look after the other; then the end. A string is a failure's message."""
        self.tidies = 0
        """How many submissions it is still busy for after it has told an end."""
        self.answers_lost = 0
        """Take so many tasks without an answer."""
        self.stands = False
        """Never go past the last step."""
        self.result_name = "/{code}-r.mp4"
        self.keep_file = True
        self.busy = False
        self.forgets_after: int | None = None
        """Looks after which the record is gone, with nothing made."""
        self.lose_end = False
        """Cut the connection in the middle of the answer that tells the end."""
        self.unknown_first = 0
        """How many looks a fresh task is unknown."""
        self.override: Callable[[str, dict[str, Any]], dict[str, Any] | None] = lambda _path, _answer: None
        self.submitted: list[dict[str, Any]] = []
        self.seen_inputs: list[tuple[str, int, int]] = []
        """Kind of video, audio rate and channels of each task, as the server finds them."""
        self.looks = 0
        self.files: dict[str, bytes] = {}
        self._tasks: dict[str, list[Any]] = {}
        self._settling = 0
        self._lock = threading.Lock()
        (folder / "temp").mkdir(parents=True)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            # HTTP/1.0, as the server that comes with Flask: a connection for each request.

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = outer._submit(body)
                if outer.answers_lost:
                    outer.answers_lost -= 1
                    return
                self._answer(answer)

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                if url.path == "/easy/query":
                    self._answer(outer._query(parse_qs(url.query)["code"][0]))
                    return
                file = outer.files.get(url.path)
                self.send_response(200 if file else 404)
                self.send_header("Content-Type", "video/mp4")
                self.send_header("Content-Length", str(len(file or b"")))
                self.end_headers()
                self.wfile.write(file or b"")

            def _answer(self, answer: dict[str, Any]) -> None:
                # As Flask sends a string: JSON under the name of HTML.
                answer = outer.override(urlsplit(self.path).path, answer) or answer
                ended = (answer.get("data") or {}).get("status") in (2, 3)
                body = json.dumps(answer, sort_keys=True, ensure_ascii=False, indent=4).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if ended and outer.lose_end:
                    self.wfile.write(body[: len(body) // 2])
                    self.close_connection = True
                else:
                    self.wfile.write(body)

            def log_message(self, *_args: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def running(self) -> list[str]:
        return list(self._tasks)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def finish(self) -> None:
        """Let what stands come to its end."""
        self.stands = False
        self.steps = []
        for task in self._tasks.values():
            task[:] = [0, []]

    def left(self) -> list[str]:
        """The files in the shared folder."""
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file())

    def _here(self, path: str) -> Path:
        assert path.startswith(SERVER_DIR + "/")
        return self.folder / path.removeprefix(SERVER_DIR + "/")

    def _submit(self, order: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self.submitted.append(order)
            settling = self._settling > 0
            self._settling = max(self._settling - 1, 0)
            if self.busy or self._tasks or settling:
                return {"code": 10001, "success": True, "msg": "忙碌中", "data": {}}
            for name in ("audio_url", "video_url"):
                if not order.get(name):
                    return {"code": 10002, "success": False, "msg": f"{name}参数缺失", "data": {}}
            with av.open(str(self._here(order["video_url"]))) as video:
                kind = f"{video.streams.video[0].codec_context.name} {video.streams.video[0].frames}"
            with av.open(str(self._here(order["audio_url"]))) as audio:
                sound = audio.streams.audio[0].codec_context
                self.seen_inputs.append((kind, sound.sample_rate, sound.layout.nb_channels))
            for ending in ("_format.mp4", "_format.wav", "-t.mp4"):
                (self.folder / "temp" / f"{order['code']}{ending}").touch()
            self._tasks[order["code"]] = [0, list(self.steps)]
            return {"code": 10000, "success": True, "msg": 10000, "data": {}}

    def _query(self, code: str) -> dict[str, Any]:
        with self._lock:
            self.looks += 1
            unknown = {"code": 10004, "success": True, "msg": "任务不存在", "data": {}}
            task = self._tasks.get(code)
            if task is None:
                return unknown
            task[0] += 1
            if task[0] <= self.unknown_first:
                return unknown
            if self.forgets_after is not None and task[0] > self.forgets_after:
                del self._tasks[code]
                return unknown
            if task[1]:
                step = task[1][0] if self.stands and len(task[1]) == 1 else task[1].pop(0)
                if isinstance(step, str):
                    del self._tasks[code]
                    self._settling = self.tidies
                    return self._told(code, 3, 0, "", step)
                return self._told(code, 1, step, "", _WORDS.get(step, ""))
            return self._end(code)

    def _end(self, code: str) -> dict[str, Any]:
        name = self.result_name.format(code=code)
        if self.keep_file:
            shutil.copyfile(self.made, self.folder / "temp" / f"{code}-r.mp4")
        self.files[f"/files/{code}-r.mp4"] = self.made.read_bytes()
        del self._tasks[code]
        self._settling = self.tidies
        more = {"cost": 1.0, "video_duration": 1200, "width": 64, "height": 48}
        answer = self._told(code, 2, 100, name, "任务完成")
        answer["data"] |= more
        return answer

    def _told(self, code: str, status: int, progress: int, result: str, msg: object) -> dict[str, Any]:
        data = {"code": code, "status": status, "progress": progress, "result": result, "msg": msg}
        return {"code": 10000, "success": True, "msg": "", "data": data}
