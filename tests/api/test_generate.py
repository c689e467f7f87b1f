"""POST /generate: what is accepted, and what is refused before anything is queued, naming field, code, reason, hint."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.media.info import MediaLimits
from app.tasks.trace import TraceContext, parse
from tests.api.kit import Api, ApiFactory, as_part, multipart, problem

FORM = "multipart/form-data; boundary=b"
GOOD = {"source": "upload:none", "audio": "upload:none"}


def post(api: Api, fields: dict[str, Any]) -> httpx.Response:
    return api.client.post("/generate", json=fields)


def queued(api: Api) -> int:
    return sum(api.client.get("/queue").json()["by_status"].values())


class TestAccepted:
    def test_the_answer_is_a_durable_task(self, api: Api) -> None:
        answer = api.generate(metadata={"mine": [1, {"ü": None}]})
        assert answer.status_code == 202
        task = answer.json()
        assert answer.headers["location"] == f"/tasks/{task['id']}"
        assert int(answer.headers["retry-after"]) >= 1
        assert (task["status"], task["is_terminal"], task["wait_reason"]) == ("QUEUED", False, "slot")
        assert task["metadata"] == {"mine": [1, {"ü": None}]}
        record = api.store.get(task["id"])
        assert record is not None
        assert record.source.name == "face.png"
        assert record.source.media["kind"] == "image"
        assert record.audio.media["audio_codec"]
        assert api.blobs.path(record.source.sha256).read_bytes() == api.media.portrait.read_bytes()

    def test_every_field_that_works_today_reaches_the_task(self, api: Api) -> None:
        answer = api.generate(
            renderer="warp",
            options={"strength": 0.5, "fps": 25.0},
            priority=9,
            not_before="2100-01-01T00:00:00+01:00",
            start_deadline_s=10,
            deadline_s=60.5,
            fallback="none",
            cache=False,
            after=[],
            callback=None,
            request_id="mine-1",
        )
        record = api.store.get(answer.json()["id"])
        assert record is not None
        at = datetime(2099, 12, 31, 23, tzinfo=UTC).timestamp()
        assert (record.renderer, record.priority, record.fallback) == ("warp", 9, "none")
        assert record.options == {"strength": 0.5, "fps": 25.0}
        assert record.route == ("warp",)
        assert record.not_before == at
        # Deadlines of a scheduled task count from when it may start.
        assert (record.start_deadline_at, record.deadline_at) == (at + 10, at + 60.5)
        assert answer.json()["wait_reason"] == "scheduled"
        assert int(answer.headers["retry-after"]) > 60

    def test_the_service_has_a_deadline_for_tasks_that_name_none(self, start_api: ApiFactory) -> None:
        api = start_api(default_deadline_s=100.0)
        record = api.store.get(api.submit()["id"])
        assert record is not None
        assert record.deadline_at is not None
        assert abs(record.deadline_at - record.created_at - 100) < 5

    def test_null_means_left_out(self, api: Api) -> None:
        names = (
            "renderer",
            "fallback",
            "not_before",
            "start_deadline_s",
            "deadline_s",
            "cache",
            "callback",
            "request_id",
        )
        api.submit(**dict.fromkeys(names))

    def test_a_video_with_sound_is_audio_and_a_video_is_a_source(self, api: Api) -> None:
        video = api.upload(api.media.video)
        assert post(api, {"source": video, "audio": video}).status_code == 202

    @pytest.mark.parametrize("flags", ["00", "01"])
    def test_the_callers_trace_is_the_tasks(self, api: Api, flags: str) -> None:
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        answer = api.client.post(
            "/generate", json=api.inputs(), headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-{flags}"}
        )
        assert answer.json()["trace_id"] == trace
        record = api.store.get(answer.json()["id"])
        assert record is not None
        # Nothing is recorded here: what comes later belongs to the caller's own span.
        assert record.trace == TraceContext(trace, "00f067aa0ba902b7", sampled=flags == "01")

    def test_without_a_trace_it_gets_one(self, api: Api) -> None:
        task = api.submit()
        record = api.store.get(task["id"])
        assert record is not None
        assert record.trace is not None
        assert parse(record.trace.traceparent) == record.trace
        assert record.trace_id == task["trace_id"]
        assert record.sampled

    def test_a_full_queue_is_429_with_retry_after(self, start_api: ApiFactory) -> None:
        api = start_api(max_waiting=1)
        api.submit()
        answer = api.generate()
        body = problem(answer, 429, "QUEUE_FULL")
        assert (body["limit"], body["retryable"]) == (1, True)
        assert int(answer.headers["retry-after"]) > 0


class TestFields:
    @pytest.mark.parametrize(
        ("change", "field", "reason"),
        [
            ({"sourc": "x"}, "sourc", "unknown_field"),
            ({"source": None}, "source", "missing"),
            ({"source": 5}, "source", "string_type"),
            ({"source": ""}, "source", "string_too_short"),
            ({"source": "x" * 9000}, "source", "string_too_long"),
            ({"source": ["upload:x"]}, "source", "string_type"),
            ({"renderer": 5}, "renderer", "string_type"),
            ({"renderer": "no-such"}, "renderer", "unknown_renderer"),
            ({"renderer": ""}, "renderer", "string_too_short"),
            ({"fallback": "sometimes"}, "fallback", "literal_error"),
            ({"options": []}, "options", "dict_type"),
            ({"options": None}, "options", "dict_type"),
            ({"options": {"strenght": 1}}, "options.strenght", "unknown_field"),
            ({"options": {"strength": 9}}, "options.strength", "less_than_equal"),
            ({"options": {"strength": "1"}}, "options.strength", "float_type"),
            ({"options": {"crf": 20.5}}, "options.crf", "int_type"),
            ({"priority": 10}, "priority", "less_than_equal"),
            ({"priority": -1}, "priority", "greater_than_equal"),
            ({"priority": "5"}, "priority", "int_type"),
            ({"priority": 5.5}, "priority", "int_type"),
            ({"priority": True}, "priority", "int_type"),
            ({"priority": None}, "priority", "int_type"),
            ({"not_before": "tomorrow"}, "not_before", "date_time"),
            ({"not_before": "2100-01-01T00:00:00"}, "not_before", "time_zone"),
            ({"not_before": 4102444800}, "not_before", "date_time"),
            ({"not_before": "99999-01-01T00:00:00Z"}, "not_before", "date_time"),
            ({"not_before": "9999-12-31T23:59:59-12:00"}, "not_before", "date_time"),
            ({"not_before": "0001-01-01T00:00:00+12:00"}, "not_before", "date_time"),
            ({"after": "task_1"}, "after", "list_type"),
            ({"after": [5]}, "after.0", "string_type"),
            ({"start_deadline_s": 0}, "start_deadline_s", "greater_than"),
            ({"deadline_s": -1}, "deadline_s", "greater_than"),
            ({"deadline_s": 1e12}, "deadline_s", "less_than_equal"),
            ({"deadline_s": "60"}, "deadline_s", "float_type"),
            ({"cache": "no"}, "cache", "bool_type"),
            ({"callback": "https://example.com"}, "callback", "model_type"),
            ({"callback": {}}, "callback.url", "missing"),
            ({"callback": {"url": "https://x", "retries": 1}}, "callback.retries", "unknown_field"),
            ({"metadata": "x"}, "metadata", "dict_type"),
            ({"metadata": {"x": "y" * 20_000}}, "metadata", "too_large"),
            ({"request_id": ""}, "request_id", "string_pattern_mismatch"),
            ({"request_id": "two words"}, "request_id", "string_pattern_mismatch"),
        ],
    )
    def test_a_wrong_one_is_named(self, shared: Api, change: dict[str, Any], field: str, reason: str) -> None:  # R3.2
        body = problem(post(shared, GOOD | change), 422, "REQUEST_INVALID", field)
        assert body["reason"] == reason
        assert [e["field"] for e in body["errors"]] == [field]
        assert queued(shared) == 0

    def test_all_wrong_ones_are_named_at_once(self, shared: Api) -> None:
        body = problem(post(shared, {"priority": 99, "color": 1}), 422, "REQUEST_INVALID", "priority")
        assert {e["field"] for e in body["errors"]} == {"priority", "color", "source", "audio"}

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "json"),
            (b"{", "json"),
            (b"not json", "json"),
            (b'{"source": NaN}', "json"),
            (b'{"a": "\\ud800"}', "json"),
            (b"\xff\xfe{}", "json"),
            (b"[]", "not_an_object"),
            (b"null", "not_an_object"),
            (b'"text"', "not_an_object"),
            (b"[" * 100_000, "json"),
            (b'{"a":' * 5000 + b"1" + b"}" * 5000, "json"),
            (b'{"priority": ' + b"9" * 5000 + b"}", "json"),
        ],
    )
    def test_a_body_that_is_no_json_object(self, shared: Api, content: bytes, reason: str) -> None:
        answer = shared.client.post("/generate", content=content, headers={"Content-Type": "application/json"})
        assert problem(answer, 422, "REQUEST_INVALID")["reason"] == reason

    @pytest.mark.parametrize("value", ["1e999", "-1e999", "[" * 30 + "]" * 30])
    def test_metadata_that_could_not_be_given_back(self, shared: Api, value: str) -> None:
        content = json.dumps(GOOD)[:-1] + f', "metadata": {{"x": {value}}}}}'
        answer = shared.client.post("/generate", content=content, headers={"Content-Type": "application/json"})
        problem(answer, 422, "REQUEST_INVALID", "metadata")

    def test_too_long_a_body_is_413(self, shared: Api) -> None:
        problem(post(shared, GOOD | {"metadata": {"x": "y" * 2_000_000}}), 413, "REQUEST_TOO_LARGE")

    def test_too_long_a_body_without_a_declared_length_is_413(self, shared: Api) -> None:
        pieces = (b"x" * 65_536 for _ in range(40))
        answer = shared.client.post("/generate", content=pieces, headers={"Content-Type": "application/json"})
        problem(answer, 413, "REQUEST_TOO_LARGE")

    @pytest.mark.parametrize("kind", ["text/plain", "application/xml", "application/x-www-form-urlencoded", "rubbish"])
    def test_another_content_type_is_415(self, shared: Api, kind: str) -> None:
        answer = shared.client.post("/generate", content=b"{}", headers={"Content-Type": kind})
        problem(answer, 415, "UNSUPPORTED_MEDIA_TYPE", "Content-Type")

    def test_no_content_type_is_taken_for_json(self, shared: Api) -> None:
        problem(shared.client.post("/generate", content=b'{"color": 1}'), 422, "REQUEST_INVALID", "color")


class TestInputs:
    @pytest.mark.parametrize(
        ("field", "uri", "code", "reason"),
        [
            ("source", "upload:no-such", "INPUT_NOT_FOUND", "no_such_upload"),
            ("audio", "upload:", "INPUT_NOT_FOUND", "no_such_upload"),
            ("source", "upload:../../etc/passwd", "INPUT_NOT_FOUND", "no_such_upload"),
            ("source", "face.png", "INPUT_INVALID", "scheme"),
            ("source", "/etc/passwd", "INPUT_INVALID", "scheme"),
            ("source", "ftp://example.com/x", "INPUT_INVALID", "scheme"),
            ("source", "data:image/png;base64,AAAA", "INPUT_INVALID", "scheme"),
            ("source", "multipart:face.png", "INPUT_INVALID", "scheme"),
            ("audio", "file:///etc/passwd", "INPUT_FORBIDDEN", "outside_roots"),
            ("audio", "file:///\0", "INPUT_INVALID", "url"),
            ("audio", "http://127.0.0.1:1/x", "INPUT_FORBIDDEN", "private_address"),
            ("audio", "http://localhost:1/x", "INPUT_FORBIDDEN", "private_address"),
            ("audio", "https://[::ffff:127.0.0.1]/x", "INPUT_FORBIDDEN", "private_address"),
            ("audio", "http://user:secret@example.com/x", "INPUT_INVALID", "userinfo"),
            ("audio", "http://", "INPUT_INVALID", "url"),
        ],
    )
    def test_an_address_that_gives_no_file(self, shared: Api, field: str, uri: str, code: str, reason: str) -> None:
        answer = post(shared, shared.inputs() | {field: uri})
        assert problem(answer, 422, code, field)["reason"] == reason
        assert "secret" not in answer.text
        assert queued(shared) == 0

    @pytest.mark.parametrize(
        ("field", "file", "code", "reason"),
        [
            ("source", "rubbish", "INPUT_INVALID", None),
            ("source", "empty", "INPUT_INVALID", "empty_file"),
            ("source", "speech", "INPUT_INVALID", "audio_as_source"),
            ("source", "bomb", "INPUT_TOO_LARGE", "too_many_pixels"),
            ("audio", "portrait", "INPUT_INVALID", "image_as_audio"),
            ("audio", "silent_video", "INPUT_INVALID", "no_audio_stream"),
            ("audio", "no_samples", "INPUT_INVALID", "no_samples"),
            ("audio", "empty", "INPUT_INVALID", "empty_file"),
            ("audio", "rubbish", "INPUT_INVALID", None),
        ],
    )
    @pytest.mark.parametrize("way", ["upload", "multipart"])
    def test_a_file_that_does_not_serve(
        self, shared: Api, way: str, field: str, file: str, code: str, reason: str | None
    ) -> None:  # R3.2
        path: Path = getattr(shared.media, file)
        if way == "upload":
            answer = post(shared, shared.inputs() | {field: shared.upload(path)})
        else:
            files = {"source": shared.media.portrait, "audio": shared.media.speech} | {field: path}
            answer = shared.client.post("/generate", files={n: (p.name, p.read_bytes()) for n, p in files.items()})
        body = problem(answer, 422, code, field)
        assert reason is None or body["reason"] == reason
        assert body["retryable"] is False
        # The message speaks of the file by the name that the caller gave it.
        if reason == "empty_file":
            assert path.name in body["detail"]
        assert queued(shared) == 0

    def test_both_wrong_files_are_told(self, shared: Api) -> None:
        wrong = {"source": shared.upload(shared.media.speech), "audio": shared.upload(shared.media.portrait)}
        body = problem(post(shared, wrong), 422, "INPUT_INVALID", "source")
        assert [(e["field"], e["reason"]) for e in body["errors"]] == [
            ("source", "audio_as_source"),
            ("audio", "image_as_audio"),
        ]

    def test_a_limit_tells_what_was_measured(self, start_api: ApiFactory) -> None:
        api = start_api(limits=MediaLimits(max_seconds=0.1))
        body = problem(api.generate(), 422, "INPUT_TOO_LARGE", "audio")
        assert body["reason"] == "too_long"
        assert body["facts"]["limit"] == 0.1

    def test_a_file_below_a_media_root(self, start_api: ApiFactory, tmp_path: Path) -> None:
        root = tmp_path / "media root"
        root.mkdir()
        api = start_api(media_roots=(root,))
        (root / "my 'face' 顔.png").write_bytes(api.media.portrait.read_bytes())
        (root / "v.wav").write_bytes(api.media.speech.read_bytes())
        fields = {"source": f"file://{root}/my%20'face'%20顔.png", "audio": f"file://{root}/v.wav"}
        answer = post(api, fields)
        assert answer.status_code == 202, answer.text
        record = api.store.get(answer.json()["id"])
        assert record is not None
        assert record.source.name == "my 'face' 顔.png"
        # What was accepted stays, whatever becomes of the file.
        (root / "v.wav").unlink()
        assert api.blobs.path(record.audio.sha256).exists()

    def test_a_link_out_of_the_media_root(self, start_api: ApiFactory, tmp_path: Path) -> None:
        root = tmp_path / "roots"
        root.mkdir()
        api = start_api(media_roots=(root,))
        (root / "out.png").symlink_to(api.media.portrait)
        body = problem(post(api, api.inputs() | {"source": f"file://{root}/out.png"}), 422, "INPUT_FORBIDDEN", "source")
        assert body["reason"] == "outside_roots"

    def test_an_upload_that_has_expired(self, start_api: ApiFactory) -> None:
        api = start_api(upload_ttl_s=0.001)
        problem(post(api, api.inputs()), 422, "INPUT_NOT_FOUND", "source")

    def test_http_inputs_are_fetched_and_kept(self, start_api: ApiFactory) -> None:
        api = start_api(allow_private_addresses=True)
        source = api.finished(api.media.portrait.read_bytes())
        audio = api.finished(api.media.speech.read_bytes())
        # The service's own results serve as the remote files.
        fields = {"source": f"{api.url}/tasks/{source}/output", "audio": f"{api.url}/tasks/{audio}/output"}
        assert post(api, fields).status_code == 202
        body = problem(post(api, fields | {"audio": f"{api.url}/nothing"}), 422, "INPUT_NOT_FOUND", "audio")
        assert body["reason"] == "http_status"


class TestMultipart:
    def send(self, api: Api, parts: list[tuple[str, str | None, bytes]]) -> httpx.Response:
        body, headers = multipart(parts)
        return api.client.post("/generate", content=body, headers=headers)

    def files(self, api: Api) -> list[tuple[str, str | None, bytes]]:
        return [
            ("source", "face.png", api.media.portrait.read_bytes()),
            ("audio", "speech.wav", api.media.speech.read_bytes()),
        ]

    @pytest.mark.parametrize("request_first", [True, False])
    def test_files_and_fields_in_any_order(self, api: Api, request_first: bool) -> None:
        fields = as_part({"priority": 7, "metadata": {"a": 1}})
        parts = [fields, *self.files(api)] if request_first else [*self.files(api), fields]
        answer = self.send(api, parts)
        assert answer.status_code == 202, answer.text
        record = api.store.get(answer.json()["id"])
        assert record is not None
        assert (record.priority, record.source.uri) == (7, "multipart:face.png")
        assert api.blobs.path(record.audio.sha256).read_bytes() == api.media.speech.read_bytes()

    def test_a_file_and_an_address(self, api: Api) -> None:
        fields = as_part({"audio": api.upload(api.media.speech)})
        assert self.send(api, [self.files(api)[0], fields]).status_code == 202

    def test_an_address_as_a_plain_field(self, api: Api) -> None:
        """curl -F source=@face.png -F audio=upload:..."""
        parts = [self.files(api)[0], ("audio", None, api.upload(api.media.speech).encode())]
        assert self.send(api, parts).status_code == 202

    @pytest.mark.parametrize(
        "name",
        ["a b.png", "it's.png", "顔 ünïcode.png", "%22quoted%22.png", "..%2f..%2fx.png", "../../x.png", "", "x" * 900],
    )
    def test_odd_file_names(self, shared: Api, name: str) -> None:
        (_, _, portrait), audio = self.files(shared)
        answer = self.send(shared, [("source", name, portrait), audio, as_part({"not_before": "2100-01-01T00:00:00Z"})])
        assert answer.status_code == 202, answer.text
        shared.client.post(f"/tasks/{answer.json()['id']}/cancel")
        record = shared.store.get(answer.json()["id"])
        assert record is not None
        assert record.source.name
        assert "/" not in record.source.name

    @pytest.mark.parametrize(
        ("parts", "field", "reason"),
        [
            ([], "source", "missing"),
            ([as_part({})], "source", "missing"),
            ([("request", None, b"{")], "request", "json"),
            ([("request", None, b"[]")], "request", "not_an_object"),
            ([as_part({"priority": 99, **GOOD})], "priority", "less_than_equal"),
            ([as_part(GOOD), ("color", None, b"red")], "color", "unknown_field"),
            ([as_part(GOOD), ("picture", "a.png", b"x")], "picture", "unknown_field"),
            ([as_part(GOOD), ("source", "a.png", b"x")], "source", "duplicate"),
            ([("source", "a.png", b"x"), ("source", "b.png", b"x")], "source", "duplicate"),
            ([as_part(GOOD), as_part(GOOD)], "request", "duplicate"),
        ],
    )
    def test_parts_that_make_no_request(
        self, shared: Api, parts: list[tuple[str, str | None, bytes]], field: str, reason: str
    ) -> None:
        assert problem(self.send(shared, parts), 422, "REQUEST_INVALID", field)["reason"] == reason

    @pytest.mark.parametrize(
        ("content", "kind"),
        [
            (b"", FORM),
            (b"--b\r\n", FORM),
            (b"rubbish", FORM),
            (b"--b\r\nrubbish\r\n\r\nx\r\n--b--\r\n", FORM),
            (b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n", FORM),
            (b"--b\r\nContent-Disposition: attachment; name=x\r\n\r\nx\r\n--b--\r\n", FORM),
            (b'--b\r\nContent-Disposition: form-data; name="source"; filename="x"\r\n\r\nhalf', FORM),
            (b"--b\r\nX: " + b"y" * 100_000, FORM),
            (b'--b\r\nContent-Disposition: form-data; name="t"\r\n\r\nx\r\n' * 50 + b"--b--\r\n", FORM),
            (b"x", "multipart/form-data"),
            (b"x", "multipart/form-data; boundary="),
        ],
    )
    def test_a_body_that_is_no_form(self, shared: Api, content: bytes, kind: str) -> None:
        answer = shared.client.post("/generate", content=content, headers={"Content-Type": kind})
        assert answer.status_code == 422
        assert answer.json()["code"] == "REQUEST_INVALID"

    def test_a_part_over_the_limit_is_refused_while_it_streams(self, start_api: ApiFactory) -> None:
        api = start_api(max_upload_bytes=100_000)
        head, headers = multipart([("source", "big.png", b"")])
        sent = 0

        def endless() -> Any:
            nonlocal sent
            yield head[: head.index(b"\r\n\r\n") + 4]
            for _ in range(2000):
                sent += 65_536
                yield b"x" * 65_536

        try:
            answer = api.client.post("/generate", content=endless(), headers=headers)
        except httpx.WriteError:
            pytest.fail("the answer came too late to be read")
        body = problem(answer, 413, "INPUT_TOO_LARGE", "source")
        assert body["facts"]["limit"] == 100_000
        assert not any(p.is_file() for p in (api.data_dir / "blobs").rglob("*"))

    def test_a_declared_length_over_the_limit_is_refused_unread(self, start_api: ApiFactory) -> None:
        api = start_api(max_upload_bytes=100_000)
        answer = api.raw(
            b"POST /generate HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 99999999\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        )
        assert answer.startswith(b"HTTP/1.1 413")

    def test_a_long_text_part_is_refused(self, shared: Api) -> None:
        answer = self.send(shared, [("request", None, b" " * 1_100_000)])
        problem(answer, 413, "REQUEST_TOO_LARGE", "request")

    def test_a_client_that_goes_away_leaves_nothing(self, start_api: ApiFactory) -> None:
        api = start_api()
        body, headers = multipart([("source", "face.png", b"x" * 3_000_000)])
        head = (
            f"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            f"Content-Type: {headers['Content-Type']}\r\n\r\n"
        ).encode()
        api.raw(head + body[:-100_000], then_close=True)
        api.observed.until(1)
        assert queued(api) == 0
        api.blobs.close()
        assert not any(p.is_file() for p in (api.data_dir / "blobs").rglob("*"))
