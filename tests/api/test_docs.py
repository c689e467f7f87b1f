"""docs/http.md speaks of what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.api.models import GenerateRequest, TaskQuery
from app.api.problems import INPUT_TITLES, PROBLEMS, SERVICE_TITLES
from app.api.resource import TaskResource
from tests.api.kit import Api

TEXT = (Path(__file__).parents[2] / "docs" / "http.md").read_text()


@pytest.mark.parametrize("code", [*PROBLEMS, *INPUT_TITLES, *SERVICE_TITLES])
def test_every_code_is_explained(code: str) -> None:
    assert f"`{code}`" in TEXT


@pytest.mark.parametrize("name", [*GenerateRequest.model_fields, *TaskQuery.model_fields])
def test_every_field_is_explained(name: str) -> None:
    assert f"`{name}`" in TEXT or ("`links.next`" in TEXT and name == "cursor")


def test_every_field_of_a_task_is_shown() -> None:
    assert all(f'"{name}"' in TEXT for name in TaskResource.model_fields)


def test_every_address_is_there(shared: Api) -> None:
    for path in shared.client.get("/openapi.json").json()["paths"]:
        assert path.replace("{task_id}", "{id}").replace("{upload_id}", "{id}") in TEXT
