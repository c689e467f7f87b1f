"""The examples of the description: there is one of everything, and each fits what it is an example of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from app.api.models import GenerateRequest
from app.api.routes.review import ApproveRequest, RejectRequest, RerenderRequest
from app.api.routes.tiers import BreakerSwitch
from tests.api.test_openapi import description

DESCRIPTION = description()


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in DESCRIPTION["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def given(place: dict[str, Any]) -> list[Any]:
    """The examples of a parameter, a body or an answer: its own, or those of its model."""
    if "example" in place:
        return [place["example"]]
    model = DESCRIPTION["components"]["schemas"].get(place["schema"].get("$ref", "").rsplit("/", 1)[-1], {})
    return [*model.get("examples", ())]


def check(place: dict[str, Any], what: str) -> None:
    examples = given(place)
    assert examples, f"{what} has no example"
    schema = {**place["schema"], "components": DESCRIPTION["components"]}
    for example in examples:
        assert jsonschema_rs.validator_for(schema).is_valid(example), f"{what}: {example}"


@pytest.mark.parametrize(("name", "operation"), list(operations()))
def test_there_is_an_example_of_everything(name: str, operation: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", ()):
        check(parameter, f"{name}: {parameter['name']}")
    places = [("body", operation.get("requestBody", {}))]
    places += [(code, answer) for code, answer in operation["responses"].items() if code != "204"]
    for what, place in places:
        for kind, content in place.get("content", {}).items():
            if "json" in kind:
                check(content, f"{name}: {what}")


@pytest.mark.parametrize(
    ("path", "method", "model"),
    [
        ("/generate", "post", GenerateRequest),
        ("/tasks/{task_id}/approve", "post", ApproveRequest),
        ("/tasks/{task_id}/reject", "post", RejectRequest),
        ("/tasks/{task_id}/rerender", "post", RerenderRequest),
        ("/tiers/{name}/breaker", "put", BreakerSwitch),
    ],
)
def test_the_examples_of_bodies_are_taken(path: str, method: str, model: Any) -> None:
    content = DESCRIPTION["paths"][path][method]["requestBody"]["content"]["application/json"]
    model.model_validate(content["example"])
