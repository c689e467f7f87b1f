"""docs/http.md speaks of what there is."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from app.api.drop_in import duix
from app.api.drop_in.human import HumanAnswer, HumanRequest
from app.api.drop_in.placing import Reason
from app.api.drop_in.terms import DropIn
from app.api.models import GenerateRequest, TaskQuery
from app.api.problem_codes import INPUT_TITLES, PROBLEMS, SERVICE_TITLES
from app.api.task_schema import TaskResource
from tests.api.kit import Api, ApiFactory

TEXT = (Path(__file__).parents[2] / "docs" / "http.md").read_text()

DROP_IN = (Path(__file__).parents[2] / "docs" / "drop-in.md").read_text()
LATER = {"no_space", "disk", "unreadable", "exists"}
"""Reasons of a SAVE_FAILED and of a SAVE_PATH_TAKEN, which the page tells by their codes."""


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


def test_the_page_on_drop_ins_names_every_answer() -> None:
    for code in (duix.SYSTEM_ERROR, duix.DONE, duix.BUSY, duix.BAD_PARAMETER, duix.UNKNOWN_TASK):
        assert f"| {code} |" in DROP_IN
    for reason in set(get_args(Reason)) - LATER:
        assert f"`{reason}`" in DROP_IN
    for name in (*duix.DuixAnswer.model_fields, *HumanRequest.model_fields, *HumanAnswer.model_fields):
        assert f"`{name}`" in DROP_IN or f'"{name}"' in DROP_IN or f"{name}," in DROP_IN


def test_opened_addresses_are_described(start_api: ApiFactory, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    opened = start_api(drop_in=DropIn(tmp_path / "out", (tmp_path / "out",)))
    paths = opened.client.get("/openapi.json").json()["paths"]
    assert {"/easy/submit", "/easy/query", "/human/generate"} <= set(paths)
    page = opened.client.get("/docs").text
    assert all(path in page for path in paths)
