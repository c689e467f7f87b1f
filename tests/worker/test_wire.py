"""The messages on the pipe keep their shape: a child of one version may meet a service of the next."""

from __future__ import annotations

import msgspec
import pytest

from app.worker import wire

SNAPSHOTS = [
    (
        wire.Run("t", 2, "warp", "/s", "ab", "/a", "/o", {"fps": 25.0}, 0.25, "00-1-2-01", "1"),
        b'{"type":"run","task_id":"t","attempt":2,"tier":"warp","source":"/s","source_sha256":"ab","audio":"/a",'
        b'"output_dir":"/o","options":{"fps":25.0},"batch_scale":0.25,"traceparent":"00-1-2-01","trace_id":"1"}',
    ),
    (wire.Cancel("t", 2), b'{"type":"cancel","task_id":"t","attempt":2}'),
    (wire.Stop(), b'{"type":"stop"}'),
    (wire.Ready("cpu", 1.5, {"torch": "2"}), b'{"type":"ready","device":"cpu","load_s":1.5,"versions":{"torch":"2"}}'),
    (
        wire.StartFailed("GPU_UNAVAILABLE", "m", "h", {}),
        b'{"type":"start_failed","code":"GPU_UNAVAILABLE","message":"m","hint":"h","detail":{}}',
    ),
    (wire.Started("t", 1), b'{"type":"started","task_id":"t","attempt":1}'),
    (
        wire.Finished(
            "t",
            1,
            "/o/x.mp4",
            50,
            25.0,
            2.0,
            64,
            64,
            0.5,
            {"render": 0.4},
            {"cached": True},
            {"bytes": 9},
            {"sound": 0.9},
            0.9,
            [("q", 0.1)],
        ),
        b'{"type":"finished","task_id":"t","attempt":1,"path":"/o/x.mp4","frames":50,"fps":25.0,"duration_s":2.0,'
        b'"width":64,"height":64,"seconds":0.5,"stages":{"render":0.4},"facts":{"cached":true},"checks":{"bytes":9},'
        b'"scores":{"sound":0.9},"confidence":0.9,"calls":[["q",0.1]]}',
    ),
    (
        wire.Rendered("t", 1, "/o/x.mp4", 50, 25.0, 2.0, 64, 64, 0.5, {"render": 0.4}, {"held": 0}, {"bytes": 9}),
        b'{"type":"rendered","task_id":"t","attempt":1,"path":"/o/x.mp4","frames":50,"fps":25.0,"duration_s":2.0,'
        b'"width":64,"height":64,"seconds":0.5,"stages":{"render":0.4},"facts":{"held":0},"checks":{"bytes":9},"calls":[]}',
    ),
    (
        wire.Judge("t", 1, "/s", "/a", "/o", wire.Rendered("t", 1, "/o/x", 5, 25.0, 0.2, 64, 64, 0.5, {}, {}, {})),
        b'{"type":"judge","task_id":"t","attempt":1,"source":"/s","audio":"/a","output_dir":"/o","video":{'
        b'"type":"rendered","task_id":"t","attempt":1,"path":"/o/x","frames":5,"fps":25.0,"duration_s":0.2,"width":64,'
        b'"height":64,"seconds":0.5,"stages":{},"facts":{},"checks":{},"calls":[]}}',
    ),
    (
        wire.Judged("t", 1, {"face_share": 1.0}, {"face": 1.0}, 1.0, 0.3),
        b'{"type":"judged","task_id":"t","attempt":1,"values":{"face_share":1.0},"scores":{"face":1.0},"confidence":1.0,'
        b'"seconds":0.3}',
    ),
    (
        wire.Failed("t", 1, "INTERNAL", "m", "h", {"type": "x"}),
        b'{"type":"failed","task_id":"t","attempt":1,"code":"INTERNAL","message":"m","hint":"h","detail":{"type":"x"},'
        b'"calls":[]}',
    ),
]


@pytest.mark.parametrize(("message", "frame"), SNAPSHOTS, ids=lambda value: type(value).__name__)
def test_a_message_has_its_known_form_and_comes_back(message, frame):
    assert wire.encode(message) == frame
    decode = wire.decode_command if isinstance(message, wire.Command) else wire.decode_event
    assert decode(frame) == message


@pytest.mark.parametrize(
    "frame", [b"", b"{", b'{"type":"run"}', b'{"type":"rm -rf"}', b"\x80\x04K\x01.", b'{"type":"stop"']
)
def test_anything_else_is_an_error_that_is_seen(frame):
    for decode in (wire.decode_command, wire.decode_event):
        with pytest.raises(msgspec.DecodeError):
            decode(frame)
