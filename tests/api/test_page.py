"""The page at `/` as it is served: types, entity tags, policy, and addresses that work below any path."""

from __future__ import annotations

import inspect
import re

import pytest

from app.api.routes.page import MEDIA_TYPES, POLICY, read_assets
from app.api.task_schema import TaskResource
from tests.api.kit import Api, problem

ASSETS = read_assets()
SCRIPTS = sorted(name for name in ASSETS if name.endswith(".js"))


def text(name: str) -> str:
    return ASSETS[name].content.decode()


def test_the_page_is_at_the_root_and_takes_any_query(shared: Api) -> None:
    answer = shared.client.get("/", params={"utm_source": "mail"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.content == ASSETS["index.html"].content
    head = shared.client.head("/")
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", answer.headers["etag"])


@pytest.mark.parametrize("name", sorted(ASSETS))
def test_every_file_has_its_type_and_is_asked_for_again_only_if_it_changed(shared: Api, name: str) -> None:
    answer = shared.client.get(f"/page/{name}")
    assert answer.headers["content-type"] == MEDIA_TYPES[name[name.rfind(".") :]]
    assert answer.headers["cache-control"] == "no-cache"
    for tag in (answer.headers["etag"], f"W/{answer.headers['etag']}", f'"other", {answer.headers["etag"]}', "*"):
        again = shared.client.get(f"/page/{name}", headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == answer.headers["etag"]
    assert shared.client.get(f"/page/{name}", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/page/page.css"])
def test_the_policy_lets_the_page_do_nothing_but_talk_to_its_service(shared: Api, path: str) -> None:
    headers = shared.client.get(path).headers
    assert headers["content-security-policy"] == POLICY
    assert "default-src 'none'" in POLICY
    assert "unsafe" not in POLICY
    assert "http" not in POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("name", ["none.js", "../config.py", "..%2fconfig.py", "__init__.py", ".", "main.js%00"])
def test_nothing_else_of_the_package_is_served(shared: Api, name: str) -> None:
    problem(shared.client.get(f"/page/{name}"), 404, "NOT_FOUND")


def test_the_page_is_no_part_of_the_described_interface(shared: Api) -> None:
    paths = shared.client.get("/openapi.json").json()["paths"]
    assert not [path for path in paths if path == "/" or path.startswith("/page")]


def test_every_address_in_the_markup_is_relative_and_there() -> None:
    found = re.findall(r'(?:href|src)="([^"]*)"', text("index.html"))
    assert found
    for address in found:
        assert address.startswith(("#", "page/", "docs")), address
        if address.startswith("page/"):
            assert address.removeprefix("page/") in ASSETS


def test_ids_are_shown_letter_for_letter() -> None:
    assert '"calt" 0' in text("page.css"), "Inter makes 5x6 a 5 × 6"


def test_the_markup_has_neither_inline_scripts_nor_inline_styles() -> None:
    markup = text("index.html")
    assert not re.search(r"<script(?![^>]*\bsrc=)", markup)
    assert not re.search(r"<style|\sstyle=|\son\w+=", markup)


@pytest.mark.parametrize("name", SCRIPTS)
def test_modules_import_each_other_by_relative_names_that_are_there(name: str) -> None:
    imports = re.findall(r'\bfrom "([^"]+)"', text(name))
    assert all(found.startswith("./") and found.removeprefix("./") in ASSETS for found in imports), imports


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_module_makes_markup_of_text_or_names_an_address_outside(name: str) -> None:
    code = text(name)
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "eval(", "new Function"):
        assert way not in code
    assert not re.search(r"https?://|[\"'`]//", code)
    assert not re.search(r"(?:fetch|EventSource|open)\(\s*[\"'`]/", code)


def test_every_error_of_the_form_has_a_place_that_its_control_names() -> None:
    markup = text("index.html")
    ids = set(re.findall(r'\bid="([^"]+)"', markup))
    for named in re.findall(r'aria-(?:describedby|labelledby)="([^"]+)"', markup):
        assert set(named.split()) <= ids, named
    for control in re.findall(r'<label[^>]* for="([^"]+)"', markup):
        assert control in ids


def test_every_reason_to_wait_has_words_of_its_own() -> None:
    documented = inspect.getsource(TaskResource).partition("wait_reason: ")[2].split('"""')[1]
    reasons = set(re.findall(r"`([a-z_]+)`", documented)) - {"waits_for"}
    spoken = text("format.js").partition("const WAIT_WORDS = {")[2].partition("};")[0]
    # Of a task that waits for its turn the place in the queue is told.
    assert set(re.findall(r"^  ([a-z_]+):", spoken, flags=re.M)) == reasons - {"slot"}
