"""Deliveries to endpoints that fail, hang, lie, move, vanish and come back (R0.1, R1.2, R1.3, R1.10)."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace
from typing import Any

import pytest
import standardwebhooks

from app.intake import guard
from app.notify.sender import Timeouts
from app.store.records import Callback
from app.store.sql import SqlStore
from app.tasks.notices import DEFAULT_NOTICES, NOTICES
from app.tasks.trace import TraceContext
from tests.certificates import self_signed, server_side
from tests.notify.conftest import OWN_KEY, until_over
from tests.notify.receiver import Received, answer, raw, receiving
from tests.store.kit import ERROR, create, must_claim, succeed

pytestmark = pytest.mark.anyio
TRACE = TraceContext("ab" * 16, "cd" * 8, sampled=False)
PATIENT = Timeouts(connect_s=20, read_s=20, total_s=20)
HASTY = Timeouts(connect_s=0.5, read_s=0.3, total_s=0.6)


def cancelled(store: SqlStore, url: str, **more: Any) -> str:
    """A task whose end is told to `url`."""
    task = create(store, callback=Callback(url, DEFAULT_NOTICES, **more))
    assert store.cancel(task.id) == "cancelled"
    return task.id


def told(store: SqlStore, url: str) -> str:
    """A task with a whole life, all of which is told to `url`."""
    task = create(store, callback=Callback(url, NOTICES), trace=TRACE, metadata={"order": 7})
    store.end_attempt(must_claim(store), "retry", error=ERROR | {"message": "", "hint": ""})
    succeed(store, must_claim(store))
    return task.id


LIFE = ["task.queued", "task.running", "task.retry_wait", "task.running", "task.succeeded"]


async def test_a_life_is_told_in_order_each_part_as_it_was(store: SqlStore, delivering: Any) -> None:  # R1.2
    async with receiving() as receiver, delivering():
        task_id = told(store, receiver.url())
        received = await receiver.until(5)
        deliveries = await until_over(store, task_id)
    assert [one.type for one in received] == LIFE
    assert [one.content["data"]["status"] for one in received] == [
        "QUEUED",
        "RUNNING",
        "RETRY_WAIT",
        "RUNNING",
        "SUCCEEDED",
    ]
    assert [one.id for one in received] == [one.id for one in deliveries]
    assert all(one.state == "delivered" and [t.status for t in one.tries] == [204] for one in deliveries)
    last = received[-1]
    assert last.content["data"]["output"]["sha256"]
    assert last.content["data"]["metadata"] == {"order": 7}
    assert last.content["data"]["links"]["deliveries"] == f"/tasks/{task_id}/deliveries"
    assert last.headers["traceparent"] == TRACE.traceparent
    assert last.headers["content-type"] == "application/json"
    failed = received[2].content["data"]["attempts"][0]["error"]
    assert failed["code"] == "WORKER_CRASHED"
    assert failed["message"].strip(), "R0.1"
    assert failed["hint"].strip(), "R0.1"
    assert "secret" not in last.body.decode()


@pytest.mark.parametrize(
    ("secret", "verifier"),
    [
        (None, OWN_KEY),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("a plain text", b"a plain text"),
    ],
)
async def test_the_library_of_standard_webhooks_accepts_what_is_sent(
    store: SqlStore, delivering: Any, secret: str | None, verifier: str | bytes
) -> None:  # R1.10
    async with receiving() as receiver, delivering():
        cancelled(store, receiver.url(), secret=secret)
        [one] = await receiver.until(1)
    library = standardwebhooks.Webhook(verifier)
    assert library.verify(one.body, one.headers)["type"] == "task.cancelled"
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        library.verify(one.body + b" ", one.headers)


async def test_while_secrets_are_rotated_old_and_new_verify(store: SqlStore, delivering: Any) -> None:
    async with receiving() as receiver, delivering(keys=(b"new", b"old")):
        cancelled(store, receiver.url())
        [one] = await receiver.until(1)
    assert len(one.headers["webhook-signature"].split(" ")) == 2
    for key in (b"new", b"old"):
        assert standardwebhooks.Webhook(key).verify(one.body, one.headers)


async def test_a_failed_delivery_comes_again_with_the_same_id_and_a_new_signature(
    store: SqlStore, delivering: Any
) -> None:
    async with receiving() as receiver, delivering() as tries:
        receiver.answers = [answer("500 Oops"), answer("404 Not Found")]
        task_id = cancelled(store, receiver.url())
        first, _, third = await receiver.until(3)
        [delivery] = await until_over(store, task_id)
    assert {one.id for one in receiver.received} == {delivery.id}
    assert first.body == third.body
    assert standardwebhooks.Webhook(OWN_KEY).verify(third.body, third.headers)
    assert [one.status for one in delivery.tries] == [500, 404, 204]
    assert (delivery.state, [outcome for outcome, _ in tries]) == ("delivered", ["retry", "retry", "delivered"])


def hang(seconds: float) -> Any:
    async def wait(_received: Received, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)

    return wait


async def trickle(_received: Received, writer: asyncio.StreamWriter) -> None:
    """An answer that always moves, and never ends."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for n in range(100):
        writer.write(f"X-{n}: 1\r\n".encode())
        await writer.drain()
        await asyncio.sleep(0.1)


async def half_close(_received: Received, writer: asyncio.StreamWriter) -> None:
    writer.write_eof()
    await asyncio.sleep(1)


@pytest.mark.parametrize(
    ("does", "limits", "error"),
    [
        (hang(60), replace(PATIENT, read_s=0.3), "READ_TIMEOUT"),
        (trickle, replace(PATIENT, total_s=2), "TOTAL_TIMEOUT"),
    ],
)
async def test_an_endpoint_that_takes_too_long_is_left_and_tried_until_it_is_dead(
    store: SqlStore, delivering: Any, does: Any, limits: Timeouts, error: str
) -> None:
    async with receiving() as receiver, delivering(timeouts=limits):
        receiver.otherwise = does
        [delivery] = await until_over(store, cancelled(store, receiver.url()))
        assert len(receiver.received) == 3
    assert delivery.state == "dead"
    assert [(one.status, one.error) for one in delivery.tries] == [(None, error)] * 3
    assert all(one.message for one in delivery.tries), "no try is without a reason"


@pytest.mark.parametrize(
    ("does", "status", "error"),
    [
        (half_close, None, "PROTOCOL"),
        (raw(b""), None, "PROTOCOL"),
        (raw(b"\x16\x03\x01 no http at all\r\n\r\n"), None, "PROTOCOL"),
        (raw(b"HTTP/1.1 200 O"), None, "PROTOCOL"),
        (answer("302 Found", Location="http://127.0.0.1/elsewhere"), 302, "REDIRECT"),
        (answer("304 Not Modified"), 304, "REDIRECT"),
        (answer("100 Continue"), None, "PROTOCOL"),
        (answer("400 Bad Request"), 400, None),
        (answer("503 Busy"), 503, None),
    ],
)
async def test_every_way_to_fail_has_a_word_and_is_tried_until_it_is_dead(
    store: SqlStore, delivering: Any, does: Any, status: int | None, error: str | None
) -> None:
    async with receiving() as receiver, delivering(timeouts=PATIENT):
        receiver.otherwise = does
        task_id = cancelled(store, receiver.url())
        [delivery] = await until_over(store, task_id)
        assert len(receiver.received) == 3
    assert delivery.state == "dead"
    assert [(one.status, one.error) for one in delivery.tries] == [(status, error)] * 3
    assert all(one.message or one.status for one in delivery.tries), "no try is without a reason"
    assert all(one.seconds < PATIENT.total_s for one in delivery.tries)


async def test_an_endpoint_that_is_not_there_is_said_to_be_so(store: SqlStore, delivering: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]  # bound, and nobody listens
        async with delivering():
            [delivery] = await until_over(store, cancelled(store, f"http://127.0.0.1:{port}/"))
            [tls] = await until_over(store, cancelled(store, f"https://127.0.0.1:{port}/"))
    assert {one.error for one in (*delivery.tries, *tls.tries)} == {"CONNECTION"}


async def test_a_plain_endpoint_that_is_spoken_to_in_tls_is_said_to_be_so(store: SqlStore, delivering: Any) -> None:
    async with receiving() as receiver, delivering(timeouts=HASTY):
        [delivery] = await until_over(store, cancelled(store, receiver.url().replace("http:", "https:")))
    assert {one.error for one in delivery.tries} <= {"TLS", "CONNECT_TIMEOUT", "TOTAL_TIMEOUT"}


async def test_tls_is_believed_from_the_authorities_that_are_named(
    store: SqlStore, delivering: Any, tmp_path: Any
) -> None:
    certificate, key = self_signed(tmp_path / "tls", "DNS:localhost")
    async with receiving(tls=server_side(certificate, key)) as receiver, delivering(ca_file=certificate):
        url = receiver.url(host="localhost").replace("http:", "https:")
        [delivery] = await until_over(store, cancelled(store, url))
        assert (delivery.state, [one.status for one in delivery.tries]) == ("delivered", [204])
        assert [one.type for one in receiver.received] == ["task.cancelled"]
        # Another name than the certificate's, at the same endpoint.
        [other] = await until_over(store, cancelled(store, receiver.url().replace("http:", "https:")))
    assert {one.error for one in other.tries} == {"TLS"}
    assert "IP address mismatch" in str(other.tries[0].message)
    assert len(receiver.received) == 1


async def test_an_untrusted_certificate_is_a_failed_delivery_that_says_so(
    store: SqlStore, delivering: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = self_signed(tmp_path / "tls", "DNS:localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # the setting counts, no variable
    async with receiving(tls=server_side(certificate, key)) as receiver, delivering():
        url = receiver.url(host="localhost").replace("http:", "https:")
        [delivery] = await until_over(store, cancelled(store, url))
    assert delivery.state == "dead"
    assert [(one.status, one.error) for one in delivery.tries] == [(None, "TLS")] * 3
    assert delivery.tries[0].message == "The endpoint's certificate is not accepted: self-signed certificate."
    assert receiver.received == []


async def test_gone_ends_all_notices_of_the_task_and_no_other(store: SqlStore, delivering: Any) -> None:
    async with receiving() as receiver, delivering():
        receiver.answers = [answer("410 Gone")]
        task_id = told(store, receiver.url())
        deliveries = await until_over(store, task_id)
        assert [one.state for one in deliveries] == ["disabled"] * 5
        assert len(receiver.received) == 1
        other = cancelled(store, receiver.url())
        assert [one.state for one in await until_over(store, other)] == ["delivered"]


async def test_retry_after_is_waited_for(store: SqlStore, delivering: Any) -> None:
    async with receiving() as receiver, delivering():
        receiver.answers = [answer("429 Slow down", Retry_After="1")]
        task_id = cancelled(store, receiver.url())
        first, second = await receiver.until(2)
        await until_over(store, task_id)
    assert second.at - first.at >= 0.95


async def test_no_redirect_is_followed(store: SqlStore, delivering: Any) -> None:
    async with receiving() as target, receiving() as receiver, delivering():
        receiver.otherwise = answer("307 Temporary Redirect", Location=target.url())
        await until_over(store, cancelled(store, receiver.url()))
    assert target.received == []


async def test_a_name_that_turns_private_is_not_connected_to(
    store: SqlStore, delivering: Any, monkeypatch: pytest.MonkeyPatch
) -> None:  # R1.10
    """DNS rebinding: what is connected to is what was checked, at the moment of connecting."""

    async def resolve(host: str, names: object) -> list[str]:
        return ["127.0.0.1"]

    monkeypatch.setattr(guard, "resolve", resolve)
    async with receiving() as receiver, delivering(allow_private=False):
        [delivery] = await until_over(store, cancelled(store, receiver.url(host="rebound.example")))
        [plain] = await until_over(store, cancelled(store, receiver.url()))
    assert {one.error for one in (*delivery.tries, *plain.tries)} == {"PRIVATE_ADDRESS"}
    assert "rebound.example" in str(delivery.tries[0].message)
    assert receiver.received == []


async def test_order_is_kept_through_failures(store: SqlStore, delivering: Any) -> None:  # R1.2
    async with receiving() as receiver, delivering(schedule_s=(0,) + (0.01,) * 9):
        receiver.answers = [answer("500 Oops" if n % 3 else "204 No Content") for n in range(40)]
        tasks = [told(store, receiver.url(f"/{n}")) for n in range(6)]
        for task_id in tasks:
            assert {one.state for one in await until_over(store, task_id)} == {"delivered"}
    for n in range(6):
        mine = [one for one in receiver.received if one.path == f"/{n}"]
        ids = [int(one.id.rpartition("_")[2]) for one in mine]
        assert ids == sorted(ids), "a repeat may come, a step back may not"
        assert list(dict.fromkeys(one.id for one in mine)) == [
            one.id for one in await store.outbox.adeliveries(tasks[n])
        ]


async def test_a_dead_endpoint_does_not_delay_another(store: SqlStore, delivering: Any) -> None:
    async with receiving() as dead, receiving() as live, delivering(concurrency=16, timeouts=Timeouts(1, 20, 20)):
        dead.otherwise = hang(20)
        for _ in range(100):
            cancelled(store, dead.url())
        await dead.until(4)
        delays = []
        for n in range(20):
            began = time.monotonic()
            cancelled(store, live.url())
            delays.append((await live.until(n + 1))[-1].at - began)
        assert dead.most_at_once == 4, "an endpoint gets so many at once and not more"
    print(f"delivered beside a dead endpoint: median {sorted(delays)[10] * 1000:.0f} ms, most {max(delays) * 1000:.0f}")
    assert sorted(delays)[10] < 2.0
    assert max(delays) < 10.0


async def test_two_services_on_one_database_send_once(store: SqlStore, delivering: Any, tmp_path: Any) -> None:
    from app.store.sql import open_store

    second = open_store(tmp_path / "greenroom.db")
    try:
        async with receiving() as receiver, delivering(), delivering(owner="node-2", on=second):
            tasks = [cancelled(side, receiver.url()) for _ in range(20) for side in (store, second)]
            for task_id in tasks:
                await until_over(store, task_id)
        assert len(receiver.received) == len({one.id for one in receiver.received}) == 40
    finally:
        second.close()


async def test_what_is_being_sent_when_the_service_stops_is_sent_by_the_next(store: SqlStore, delivering: Any) -> None:
    async with receiving() as receiver:
        receiver.answers = [hang(20)]
        async with delivering():
            task_id = cancelled(store, receiver.url())
            await receiver.until(1)
        async with delivering(owner="node-2"):
            await receiver.until(2)
            [delivery] = await until_over(store, task_id)
    assert delivery.state == "delivered"


async def test_a_dead_notice_is_sent_again_when_it_is_asked_for(store: SqlStore, delivering: Any) -> None:  # R1.10
    async with receiving() as receiver, delivering():
        receiver.answers = [answer("500 Oops")] * 3
        task_id = cancelled(store, receiver.url())
        [dead] = await until_over(store, task_id)
        assert dead.state == "dead"
        await store.outbox.areplay(task_id, dead.event_id)
        await receiver.until(4)
        [delivery] = await until_over(store, task_id)
    assert (delivery.state, [one.status for one in delivery.tries]) == ("delivered", [500, 500, 500, 204])
    assert len({one.id for one in receiver.received}) == 1


async def test_a_fault_of_the_service_itself_ends_with_a_dead_notice(
    store: SqlStore, delivering: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.notify import conftest

    def broken(_notice: Any) -> dict[str, Any]:
        raise RuntimeError("no words")

    monkeypatch.setattr(conftest, "notice_body", broken)
    async with delivering():
        [delivery] = await until_over(store, cancelled(store, "http://127.0.0.1:1/"))
    assert (delivery.state, delivery.tries[0].error) == ("dead", "INTERNAL")


async def test_whoever_hears_of_the_end_finds_it_so(store: SqlStore, delivering: Any) -> None:  # R1.3
    wrong: list[str] = []

    async def look(received: Received, writer: asyncio.StreamWriter) -> None:
        data = received.content["data"]
        task = await store.aget(data["id"])
        if task is None or task.status.value != data["status"] or task.output is None:
            wrong.append(received.id)
        await answer()(received, writer)

    async with receiving() as receiver, delivering(per_endpoint=16):
        receiver.otherwise = look
        for _ in range(100):
            create(store, callback=Callback(receiver.url(), DEFAULT_NOTICES))
            succeed(store, await asyncio.to_thread(must_claim, store))
        await receiver.until(100)
    assert wrong == []


async def test_an_answer_with_an_odd_wish_is_settled_as_any_other(store: SqlStore, delivering: Any) -> None:
    """Otherwise its lease would run out, and it would be sent again, for ever."""
    async with receiving() as receiver, delivering():
        receiver.answers = [answer("503 Busy", Retry_After="Thu, 01 Jan 1970 00:00:00 +9999999999999")]
        [delivery] = await until_over(store, cancelled(store, receiver.url()))
    assert delivery.state == "delivered"
    assert [one.status for one in delivery.tries] == [503, 204]
