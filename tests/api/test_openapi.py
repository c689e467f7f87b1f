"""Every answer is as /openapi.json says, whatever is asked: requests made of the description by schemathesis."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from operator import attrgetter
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
import schemathesis
from hypothesis import settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.generation import derive_operation_seed
from schemathesis.generation.hypothesis.builder import HypothesisTestConfig, HypothesisTestMode, create_test
from schemathesis.schemas import APIOperation

from app.api.app import create_app
from app.api.drop_in.terms import DropIn
from app.api.ports import ApiDependencies, ApiSettings
from app.media.sandbox import Sandbox
from app.store.records import Claim
from app.tasks.status import Status
from tests.api.kit import Api, ApiFactory, LoopThread, Media
from tests.api.test_deliveries import URL, deliver
from tests.api.test_review import put_up
from tests.conftest import LONG

EXAMPLES = 300 if settings.get_current_profile_name() == LONG else 20
"""Random requests per operation, beside those at the borders of each schema."""
STREAMS = ("/events", "/tasks/{task_id}/events")
MENDED: dict[str, dict[str, Any]] = {
    "/generate": {"options": {}, "metadata": {}, "after": []},
    "/tasks/{task_id}/derive": {"options": {}, "metadata": {}, "after": []},
    "/tasks/{task_id}/rerender": {"options": {}},
    "/easy/submit": {"code": "c1", "audio_url": "speech.wav", "video_url": "template.mp4", "chaofen": 0},
}
"""What bodies say has to fit tiers and inputs, which no schema can tell."""
ORDERS = ("/generate", "/tasks/{task_id}/derive")
ASKED_OF = {
    "/tasks/{task_id}/output": Status.SUCCEEDED,
    "/tasks/{task_id}/retry": Status.FAILED,
    "/tasks/{task_id}/approve": Status.REVIEW,
    "/tasks/{task_id}/reject": Status.REVIEW,
    "/tasks/{task_id}/rerender": Status.REVIEW,
}
UNTOLD = ("/tasks/{task_id}/output", "/uploads")
"""Whether these serve a request depends on the file: preconditions and ranges, the digest of a body."""

load_all_checks()
POSITIVE, NEGATIVE = CHECKS.get_by_names(["positive_data_acceptance", "negative_data_rejection"])


class Stock:
    """Tasks in every status, renewed as they are used up."""

    def __init__(self, api: Api, folder: Path) -> None:
        self.api = api
        self.folder = folder
        self.inputs = api.inputs()
        self._turn, self._statuses = count(), count()
        self._tasks: dict[Status, str] = {}

    def turn(self) -> int:
        """Another number each time."""
        return next(self._turn)

    def task(self, path: str) -> str:
        """The id of a task: every other time of the status that this address is for, else of another each time."""
        number = next(self._statuses)
        status = list(Status)[number // 2 % len(Status)]
        if number % 2:
            status = ASKED_OF.get(path, status)
        held = self._tasks.get(status)
        if held is None or (task := self.api.store.get(held)) is None or task.status is not status:
            held = self._tasks[status] = self._made(status)
        return held

    def delivery(self, task_id: str) -> str:
        """The id of a notice of the task, or of none."""
        found = self.api.client.get(f"/tasks/{task_id}/deliveries").json()["deliveries"]
        return str(found[0]["id"]) if found else f"{task_id}_1"

    def cursor(self, path: str) -> str:
        """Where a listing goes on."""
        link = self.api.client.get(path, params={"limit": 1}).json()["links"]["next"]
        return str(parse_qs(urlsplit(link or "?cursor=MQ").query)["cursor"][0])

    def paths(self) -> dict[str, str]:
        """The fields of a good `POST /human/generate`, with a place that is free."""
        place = self.folder / f"{next(self._turn)}.mp4"
        files = {"audio_path": "speech.wav", "video_path": "template.mp4"}
        return {name: str(self.folder / "temp" / file) for name, file in files.items()} | {"save_path": str(place)}

    def _made(self, status: Status) -> str:
        answer = self.api.client.post("/generate", json=self.inputs | {"callback": {"url": URL}})
        assert answer.status_code == 202, answer.text
        task_id = str(answer.json()["id"])
        match status:
            case Status.CANCELLED:
                self.api.client.post(f"/tasks/{task_id}/cancel")
                deliver(self.api, "dead")
            case Status.RUNNING:
                self._claim(task_id)
            case Status.RETRY_WAIT:
                error = {"code": "WORKER_CRASHED", "message": "", "hint": ""}
                self.api.store.end_attempt(self._claim(task_id), "retry", error=error, retry_at=time.time() + 3600)
            case Status.REVIEW:
                put_up(self.api, self._claim(task_id))
            case Status.SUCCEEDED:
                self.api.succeed(self._claim(task_id))
            case Status.FAILED:
                self.api.fail(self._claim(task_id))
        return task_id

    def _claim(self, task_id: str) -> Claim:
        while True:  # others wait too: those that were submitted by the requests under test
            claim = self.api.store.claim("node", lease_s=3600, tier="warp", slot="cpu0", device="cpu")
            assert claim is not None
            if claim.task.id == task_id:
                return claim
            self.api.succeed(claim)


@pytest.fixture(scope="module")
def stock(
    loop_thread: LoopThread, sandbox: Sandbox, template: Path, media: Media, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stock]:
    factory = ApiFactory(loop_thread, sandbox, template, tmp_path_factory.mktemp("served"), media)
    folder = tmp_path_factory.mktemp("shared")
    (folder / "temp").mkdir()
    shutil.copyfile(media.video, folder / "temp" / "template.mp4")
    shutil.copyfile(media.speech, folder / "temp" / "speech.wav")
    opened = DropIn(folder, (folder,))
    yield Stock(factory(max_wait_s=0.02, media_roots=(folder,), drop_in=opened), folder)
    factory.close()


@pytest.fixture(scope="module")
def working(stock: Stock) -> Iterator[Stock]:
    """From now on every task succeeds at once."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.005):
            claim = stock.api.store.claim("worker", lease_s=3600, tier="warp", slot="cpu0", device="cpu")
            if claim is not None:
                stock.api.succeed(claim)

    thread = threading.Thread(target=work)
    thread.start()
    yield stock
    over.set()
    thread.join(30)


def description() -> dict[str, Any]:
    """What the service says of itself with all addresses open. It says it without looking at any of its parts."""
    parts = {name: MagicMock() for name in ("store", "intake", "pool", "tiers", "readiness")}
    opened = DropIn(Path("/opened"), (Path("/opened"),))
    return create_app(ApiDependencies(**parts, settings=ApiSettings(Path()), drop_in=opened)).openapi()


CONFIG = {"seed": 1, "generation": {"max-examples": EXAMPLES, "deterministic": True, "database": "none"}}
schema = schemathesis.openapi.from_dict(description(), config=schemathesis.Config.from_dict(CONFIG))


LASTING = "/human/generate"
OPERATIONS = [result.ok() for result in schema.get_all_operations()]
of_operations = partial(pytest.mark.parametrize, "operation", ids=attrgetter("label"))


def try_out(operation: APIOperation, check: Callable[..., None]) -> None:
    """Give `check(case)` the examples of an operation, the borders of its schemas, and random requests.

    schemathesis makes tests of this kind itself, but all operations' then have one name.
    """
    terms = HypothesisTestConfig(
        project=schema.config,
        modes=list(HypothesisTestMode),
        settings=schema.config.get_hypothesis_settings(operation=operation, phase="fuzzing"),
        explicit_setting_names={"max_examples"},
        seed=derive_operation_seed(schema.config.seed, operation.label),
    )
    create_test(operation=operation, test_func=check, config=terms)()


@of_operations([operation for operation in OPERATIONS if operation.path != LASTING])
def test_answers_are_as_described(operation: APIOperation, stock: Stock) -> None:
    served = 0

    def check(case: schemathesis.Case) -> None:
        nonlocal served
        believable = mend(case, stock)
        excluded = [] if believable else [POSITIVE]
        if case.path.startswith("/easy/"):
            excluded.append(NEGATIVE)  # everything is 200 there, and says no in its envelope
        sent = case.as_transport_kwargs(base_url=stock.api.url)
        with requests.request(**sent, stream=case.path in STREAMS, timeout=20) as response:
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                response._content = response.raw.read(1)  # what follows comes when it happens
            case.validate_response(response, excluded_checks=excluded)
        served += response.status_code < 300

    try_out(operation, check)
    assert served, "no request reached what it was about"


@of_operations([operation for operation in OPERATIONS if operation.path == LASTING])
def test_answers_of_a_request_that_lasts_are_as_described(operation: APIOperation, working: Stock) -> None:
    served = 0

    def check(case: schemathesis.Case) -> None:
        nonlocal served
        believable = is_positive(case)
        if believable:
            case.body |= working.paths()
        response = case.call_and_validate(
            base_url=working.api.url, timeout=60, excluded_checks=[NEGATIVE] if believable else [POSITIVE]
        )
        served += response.status_code < 300

    try_out(operation, check)
    assert served, "no request reached what it was about"


def test_the_description_is_that_of_the_service(stock: Stock) -> None:
    assert stock.api.client.get("/openapi.json").json() == schema.raw_schema


def test_every_field_and_parameter_is_described() -> None:
    told = schema.raw_schema
    fields = [
        (f"{name}.{field}", inner.get("description"))
        for name, model in told["components"]["schemas"].items()
        for field, inner in model.get("properties", {}).items()
    ]
    parameters = [
        (f"{path} {parameter['name']}", parameter.get("description"))
        for path, item in told["paths"].items()
        for operation in item.values()
        for parameter in operation.get("parameters", ())
    ]
    assert len(fields) > 250
    assert [name for name, words in fields + parameters if not words] == []


def is_positive(case: schemathesis.Case) -> bool:
    return case.meta is None or case.meta.generation.mode is GenerationMode.POSITIVE


def mend(case: schemathesis.Case, stock: Stock) -> bool:
    """Name what there is, in most requests; whether the request is one that has to be served then."""
    turn = stock.turn()
    if turn % 4 == 0 or not is_positive(case):
        if turn % 2 and "task_id" in case.path_parameters:
            case.path_parameters["task_id"] = stock.task(case.path)
        return False
    names = case.path_parameters
    if "task_id" in names:
        names["task_id"] = stock.task(case.path)
    if "delivery_id" in names:
        names["delivery_id"] = stock.delivery(names["task_id"])
    if "upload_id" in names:
        names["upload_id"] = stock.inputs["source"].removeprefix("upload:")
    if "name" in names:
        names["name"] = "warp"
    if "cursor" in case.query:
        case.query["cursor"] = stock.cursor(case.path)
    if case.path == "/easy/query":
        case.query = {"code": "c1"}
    case.headers.pop("Idempotency-Key", None)  # others have used it
    if case.media_type == "multipart/form-data":
        return False  # bytes that are neither face nor voice
    if case.path in MENDED and isinstance(case.body, dict):  # deriving needs no body
        for name in ("request_id", "renderer", "callback"):
            case.body.pop(name, None)
        case.body |= MENDED[case.path] | (stock.inputs if case.path in ORDERS else {})
    return case.path not in UNTOLD
