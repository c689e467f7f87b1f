"""The page for people, by doing: a real browser, a real service, real files."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Service

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
from playwright.sync_api import Browser, BrowserContext, Page, Request, Route, expect  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH (Debian: apt install chromium)")

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
)
TIERS = """
[[tiers]]
name = "stage"
renderer = "rehearsal"

[[tiers]]
name = "understudy"
renderer = "rehearsal"
"""
BOUND_MS = 30_000.0
expect.set_options(timeout=BOUND_MS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("page")
    (folder / "greenroom.toml").write_text(TIERS)
    service = Service(
        folder / "data",
        "--config", str(folder / "greenroom.toml"),
        GREENROOM_REHEARSALS="1", GREENROOM_BACKOFF_CAP_S="0.01", GREENROOM_SLOTS="1", GREENROOM_DISK_LOW_BYTES="0",
    ).until_ready()  # fmt: skip
    yield service
    service.http.close()
    service.stop()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(BOUND_MS)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, service: Service) -> Iterator[Page]:
    """A page that reports every script error, breach of its policy, and request to anybody else."""
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if "Content Security" in said.text else None)
    page.on("request", lambda asked: wrong.append(asked.url) if not _is_own(asked, service) else None)
    yield page
    assert wrong == []


def _is_own(asked: Request, service: Service) -> bool:
    return asked.url.startswith((str(service.http.base_url), "blob:"))


@pytest.fixture
def opened(page: Page, service: Service) -> Callable[[str], Page]:
    def open_view(view: str = "create") -> Page:
        page.goto(f"{service.http.base_url}/#/{view}")
        expect(page.locator("#pulse")).to_have_attribute("data-state", "good")
        return page

    return open_view


@pytest.fixture
def voice(speech: Callable[[float], Path]) -> Path:
    return speech(1.5)


def fill(page: Page, source: Path, audio: Path, options: str = "") -> None:
    page.set_input_files("#source", source)
    page.set_input_files("#audio", audio)
    if options:
        page.locator("#options").evaluate("details => details.open = true")
        page.fill("#json-options", options)


def submit(page: Page) -> Any:
    """Press the button; the card of the new task."""
    before = page.locator("#mine .card").count()
    page.click("#submit")
    expect(page.locator("#mine .card")).to_have_count(before + 1)
    return page.locator("#mine .card").first


def badge(place: Any, words: str) -> None:
    expect(place.locator(".badge").first).to_have_text(words)


def share(bar: Any) -> float | None:
    """The bar's value; None while it has none, or is gone."""
    value = bar.evaluate_all("bars => bars.length && !bars[0].hidden ? bars[0].getAttribute('value') : null")
    return float(value) if value is not None else None


def test_a_photo_and_a_voice_become_a_video_that_plays_and_downloads(opened, service, portrait, voice):
    page = opened()
    fill(page, portrait, voice, '{"frame_s": 0.1, "size": 128}')
    expect(page.locator("#drop-source .state")).to_contain_text("Photo · 512 × 512")
    expect(page.locator("#drop-audio .state")).to_contain_text("Sound · 1.5 s")
    card = submit(page)
    seen: list[float] = []
    badge(card, "Running")
    while (now := share(card.locator("progress"))) is not None or not seen:
        if now is not None and (not seen or now != seen[-1]):
            seen.append(now)
        if card.locator(".badge").inner_text() not in ("Running", "Waiting"):
            break
    assert len(seen) > 2
    assert seen == sorted(seen), "the bar never goes back"
    badge(card, "Done")
    video = card.locator("video")
    video.evaluate("v => v.readyState >= 1 || new Promise(done => v.onloadedmetadata = done)")
    assert abs(video.evaluate("v => v.duration") - 1.5) < 0.2
    assert video.evaluate("v => [v.videoWidth, v.videoHeight]") == [128, 128]
    video.evaluate("v => { v.muted = true; return v.play(); }")
    video.evaluate("v => v.ended || new Promise(done => v.onended = done)")
    with page.expect_download() as download:
        card.get_by_role("link", name="Download").click()
    task = service.task(card.get_attribute("data-task"))
    assert hashlib.sha256(Path(download.value.path()).read_bytes()).hexdigest() == task["output"]["sha256"]
    assert task["metadata"]["title"] == f"portrait, {voice.stem}"
    assert download.value.suggested_filename.endswith(".mp4")
    page.reload()
    badge(page.locator("#mine .card").first, "Done")  # remembered in this browser


def test_a_running_task_is_cancelled_with_the_keyboard(opened, service, portrait, voice):
    page = opened()
    fill(page, portrait, voice, '{"frame_s": 1}')
    card = submit(page)
    badge(card, "Running")
    card.get_by_role("button", name="Cancel").focus()
    page.keyboard.press("Enter")
    badge(card, "Cancelled")
    assert service.task(card.get_attribute("data-task"))["status"] == "CANCELLED"


def test_a_failed_task_tells_why_and_is_tried_again(opened, service, portrait, voice):
    task = service.post(portrait, voice, options={"fault": "raise", "code": "INPUT_NO_FACE"}, metadata={"order": 17})
    service.until_ended(task["id"])
    page = opened("tasks")
    page.get_by_label("Failed").check()
    page.locator("#task-table tbody tr", has_text=task["id"]).locator("td").last.click()
    sheet = page.locator("#detail")
    expect(sheet).to_contain_text("INPUT_NO_FACE")
    expect(sheet).to_contain_text("Why here: stage is first in line")
    expect(sheet).to_contain_text("Then: INPUT_NO_FACE is not retried")
    expect(sheet.locator(".callout.bad")).to_contain_text("No face was found")
    expect(sheet).to_contain_text('"order": 17')
    sheet.get_by_role("button", name="Try again").click()
    expect(sheet.locator(".facts")).to_contain_text("Tries again")
    again = service.http.get("/tasks", params={"retry_of": task["id"]}).json()["tasks"]
    assert len(again) == 1
    expect(sheet).to_contain_text(again[0]["id"])
    page.keyboard.press("Escape")
    expect(sheet).to_be_hidden()
    expect(page).to_have_url(re.compile("#/tasks$"))


def test_a_retried_attempt_shows_its_postmortem_and_what_followed(opened, service, portrait, voice):
    task = service.post(portrait, voice, options={"fault": "kill", "times": 1})
    service.until_ended(task["id"])
    sheet = opened(f"tasks/{task['id']}").locator("#detail")
    expect(sheet.locator(".attempts > li")).to_have_count(2)
    first = sheet.locator(".attempts > li").first
    expect(first).to_contain_text("WORKER_CRASHED")
    expect(first).to_contain_text("retry 1 of 3")
    first.get_by_text("Postmortem", exact=True).click()
    expect(first.locator("pre").last).to_contain_text("SIGKILL")
    first.get_by_text("How the tiers stood").click()
    expect(first.locator("table")).to_contain_text("understudy")


def test_the_queue_is_paused_with_the_place_in_line_and_resumed(opened, service, portrait, voice):
    page = opened("service")
    page.get_by_role("button", name="Pause the queue").click()
    expect(page.locator("#pulse")).to_have_text("Paused")
    assert service.http.get("/queue").json()["paused"] is True
    ahead = service.post(portrait, voice)["id"]
    page.locator('nav a[data-view="create"]').click()
    fill(page, portrait, voice)
    card = submit(page)
    expect(card).to_contain_text("The queue is paused")
    page.locator('nav a[data-view="service"]').click()
    page.get_by_role("button", name="Resume the queue").click()
    expect(page.locator("#pulse")).to_have_text("Live")
    page.locator('nav a[data-view="create"]').click()
    badge(card, "Done")
    assert service.task(ahead)["status"] == "SUCCEEDED"


def test_the_place_in_line_counts_down(opened, service, portrait, voice):
    running = [service.post(portrait, voice, options={"frame_s": 0.5})["id"] for _ in range(3)]
    service.until_rendering(running[0])
    page = opened()
    fill(page, portrait, voice)
    card = submit(page)
    expect(card).to_contain_text("2 tasks go first")
    service.http.post(f"/tasks/{running[2]}/cancel")
    expect(card).to_contain_text("1 task goes first")
    service.http.post(f"/tasks/{running[1]}/cancel")
    expect(card).to_contain_text("Next in line")
    service.http.post(f"/tasks/{running[0]}/cancel")
    badge(card, "Done")


def test_a_tier_is_switched_off_and_on(opened, service):
    page = opened("service")
    card = page.locator('[data-tier="understudy"]')
    card.get_by_role("switch").click()
    expect(card.get_by_role("switch")).to_have_attribute("aria-checked", "false")
    expect(card).to_contain_text("Switched off by hand")
    states = {tier["name"]: tier["breaker"]["state"] for tier in service.http.get("/tiers").json()["tiers"]}
    assert states == {"stage": "closed", "understudy": "open"}
    card.get_by_role("switch").click()
    expect(card).to_contain_text("Takes tasks")
    expect(page.locator("#slots")).to_contain_text("Idle")


def test_a_video_in_review_is_watched_and_approved_and_another_rejected(opened, service, portrait, voice):
    tasks = [service.post(portrait, voice, options={"fault": "black"})["id"] for _ in range(2)]
    page = opened()
    link = page.locator('nav a[data-view="review"]')
    expect(link).to_contain_text("2")
    link.click()
    approved, rejected = (page.locator(f'#reviews [data-task="{task_id}"]') for task_id in tasks)
    approved.locator("video").evaluate("v => v.readyState >= 1 || new Promise(done => v.onloadedmetadata = done)")
    expect(approved).to_contain_text("LOW_CONFIDENCE")
    approved.get_by_role("button", name="Approve").click()
    expect(page.locator("#who-error")).to_have_text("Say who decides.")
    page.fill("#who", "Zoë")
    approved.get_by_role("button", name="Approve").click()
    expect(approved).to_have_count(0)
    rejected.get_by_role("button", name="Reject").click()
    expect(rejected.locator(".error")).to_contain_text("Say why")
    rejected.get_by_label("Reason").fill("All is dark.")
    rejected.get_by_role("button", name="Reject").click()
    expect(page.locator("#review-empty")).to_be_visible()
    assert [service.task(task_id)["status"] for task_id in tasks] == ["SUCCEEDED", "FAILED"]
    assert service.task(tasks[0])["quality"]["review"]["who"] == "Zoë"


def test_what_is_wrong_stands_at_its_field(opened, service, portrait, voice, tmp_path):
    page = opened()
    page.click("#submit")
    expect(page.locator("#source-error")).to_have_text("Add a photo or a video.")
    expect(page.locator("#audio-error")).to_have_text("Add a voice recording.")
    expect(page.locator("#source")).to_be_focused()
    rubbish = tmp_path / "rubbish.png"
    rubbish.write_bytes(b"no picture at all" * 99)
    fill(page, rubbish, voice)
    expect(page.locator("#source-error")).not_to_be_empty()
    expect(page.locator("#source")).to_have_attribute("aria-invalid", "true")
    refused = page.locator("#source-error").inner_text()
    page.click("#submit")
    assert page.locator("#source-error").inner_text() == refused
    fill(page, portrait, voice, '{"frame_s": 99}')
    page.click("#submit")
    expect(page.locator("#options-error")).to_contain_text("less than or equal to 60")
    expect(page.locator("#json-options")).to_be_focused()
    page.fill("#json-options", "{frame")
    page.click("#submit")
    expect(page.locator("#options-error")).to_contain_text("no JSON object")
    page.set_input_files("#source", voice)
    page.fill("#json-options", "")
    page.click("#submit")
    expect(page.locator("#source-error")).not_to_be_empty()
    assert page.locator("#mine .card").count() == 0


def test_a_submission_whose_answer_was_lost_is_sent_again_as_the_same_task(opened, context, service, portrait, voice):
    page = opened()
    fill(page, portrait, voice)
    keys: list[str] = []

    def lose_the_first(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            route.fetch()
            route.abort()
        else:
            route.continue_()

    context.route("**/generate", lose_the_first)
    before = len(service.http.get("/tasks?limit=200").json()["tasks"])
    page.click("#submit")
    expect(page.locator("#form-problem")).to_contain_text("The service does not answer.")
    badge(submit(page), "Done")
    assert keys[0] == keys[1]
    assert len(service.http.get("/tasks?limit=200").json()["tasks"]) == before + 1
    submit(page)
    assert keys[2] != keys[1], "another press is another video"


def test_without_an_event_stream_the_page_asks_and_progress_still_moves(context, opened, service, portrait, voice):
    context.route(re.compile(r"/events$"), lambda route: route.fulfill(status=502, body="<h1>proxy</h1>"))
    page = opened()
    expect(page.locator("#pulse")).to_have_text("Connected")
    fill(page, portrait, voice, '{"frame_s": 0.1}')
    card = submit(page)
    badge(card, "Running")
    seen = set()
    while len(seen) < 2:
        seen.add(share(card.locator("progress")))
        assert card.locator(".badge").inner_text() != "Done", seen
    badge(card, "Done")


def test_below_a_path_of_a_proxy_nothing_is_asked_for_outside_it(context, page, service, portrait, voice):
    base = str(service.http.base_url).rstrip("/")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    context.route(f"{base}/studio/**", lambda route: route.continue_(url=route.request.url.replace("/studio/", "/", 1)))
    page.goto(f"{base}/studio/")
    fill(page, portrait, voice, '{"frame_s": 0.05}')
    card = submit(page)
    badge(card, "Done")
    card.locator("video").evaluate("v => v.readyState >= 1 || new Promise(done => v.onloadedmetadata = done)")
    card.get_by_role("link", name="Details").click()
    expect(page.locator("#detail video")).to_be_visible()
    page.keyboard.press("Escape")
    page.locator('nav a[data-view="service"]').click()
    expect(page.locator('[data-tier="stage"]')).to_be_visible()
    assert {url for url in asked if not url.startswith((f"{base}/studio/", "blob:"))} == set()


def test_what_callers_supplied_is_shown_as_text(opened, service, portrait, voice):
    title = "<img src=x onerror=\"document.title='taken'\">"
    task = service.post(portrait, voice, metadata={"title": title, "more": "<script>document.title='taken'</script>"})
    service.until_ended(task["id"])
    page = opened("tasks")
    page.get_by_role("link", name=title).click()
    expect(page.locator("#detail h2")).to_have_text(title)
    expect(page.locator("#detail")).to_contain_text("<script>")
    assert page.title().startswith("Tasks")
    assert page.locator("#detail img, #task-table img").count() == 0


def test_a_task_that_waits_says_for_which_and_leads_there(opened, service, portrait, voice):
    page = opened("tasks")
    service.http.post("/queue/pause")
    try:
        first = service.post(portrait, voice, metadata={"title": "The first"})["id"]
        face = service.http.post("/uploads", content=portrait.read_bytes(), params={"name": "face.png"}).json()["uri"]
        order = {"source": face, "audio": f"task:{first}", "metadata": {"title": "The second"}}
        second = service.http.post("/generate", json=order).json()["id"]
        derived = service.http.post(f"/tasks/{first}/derive", json={"metadata": {"title": "Made of it"}}).json()["id"]
        page.evaluate("id => location.hash = `#/tasks/${id}`", second)
        detail = page.locator("#detail")
        expect(detail).to_contain_text("Waits for another task")
        detail.get_by_role("link", name=first).first.click()
        expect(page.locator("#detail h2")).to_have_text("The first")
        page.evaluate("id => location.hash = `#/tasks/${id}`", derived)
        expect(detail.get_by_role("link", name=first)).to_have_count(1)
        for task_id in (first, derived):
            service.http.post(f"/tasks/{task_id}/cancel")
        page.evaluate("id => location.hash = `#/tasks/${id}`", second)
        expect(detail).to_contain_text("PREDECESSOR_FAILED")
    finally:
        service.http.post("/queue/resume")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", ["create", "tasks", "review", "service"])
def test_nothing_is_wider_than_a_phone_and_texts_have_contrast(browser, service, view, scheme):
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme, is_mobile=True)
    page = context.new_page()
    page.goto(f"{service.http.base_url}/#/{view}")
    expect(page.locator("#pulse")).to_have_attribute("data-state", "good")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate(CONTRAST) == []
    context.close()


CONTRAST = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, place) => sum + c * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = channels(getComputedStyle(element).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.matches('.skip, option, [aria-disabled], #toast')) continue;
    const [a, b] = [light(channels(getComputedStyle(element).color)), light(behind(element))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(`${element.tagName} ${element.textContent.trim().slice(0, 40)}`);
  }
  return poor;
}"""
"""Visible texts with less than 4.5:1 against the nearest filled background (WCAG 2.2, 1.4.3)."""


def test_a_service_that_is_gone_is_said_to_be_gone(context, service):
    page = context.new_page()
    page.goto(f"{service.http.base_url}/#/service")
    expect(page.locator("#pulse")).to_have_attribute("data-state", "good")
    context.set_offline(True)
    expect(page.locator("#pulse")).to_have_text("No answer")
    expect(page.locator("#service-problem")).to_contain_text("does not answer")
    context.set_offline(False)
    expect(page.locator("#pulse")).to_have_text("Live")
