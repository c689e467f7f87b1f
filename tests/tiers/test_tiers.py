"""The tiers: what may serve a task, in which order, with which options; and what an operator may get wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.config import ConfigError
from app.config_sources import load_settings
from app.tiers.lineup import LineupError, lineup
from app.tiers.settings import TierSettings
from app.tiers.tiers import NoTier, Tiers, UnknownTier, Work

IMAGE = {"kind": "image", "width": 512, "height": 512}
SPEECH = {"kind": "audio", "duration_s": 10.0}


def tier(name: str, renderer: str = "warp", **more: Any) -> TierSettings:
    return TierSettings(name=name, renderer=renderer, **more)


def work(**changes: Any) -> Work:
    given = {"renderer": None, "fallback": "any", "options": {}, "source": IMAGE, "audio": SPEECH} | changes
    return Work(**given)


CHAIN = Tiers([tier("good"), tier("plain"), tier("last", degraded=True), tier("named", only_by_name=True)])


@pytest.mark.parametrize(
    ("changes", "route"),
    [
        ({}, ("good", "plain", "last")),
        ({"fallback": "equal"}, ("good", "plain")),
        ({"fallback": "none"}, ("good",)),
        ({"renderer": "plain"}, ("plain", "good", "last")),
        ({"renderer": "plain", "fallback": "none"}, ("plain",)),
        ({"renderer": "plain", "fallback": "equal"}, ("plain", "good")),
        ({"renderer": "named"}, ("named", "good", "plain", "last")),
        ({"renderer": "warp", "fallback": "none"}, ("good",)),
    ],
)
def test_fallback_and_name_decide_who_may_serve(changes, route):
    assert CHAIN.route(work(**changes)) == route


def test_an_unknown_name_is_told():
    with pytest.raises(UnknownTier):
        CHAIN.route(work(renderer="nobody"))


def test_limits_leave_a_tier_out_with_its_reason():
    tiers = Tiers(
        [
            tier("short", max_audio_s=5),
            tier("small", max_pixels=100_000),
            tier("videos", sources=["video"]),
            tier("gpu", needs_cuda=True),
        ]
    )
    with pytest.raises(NoTier) as told:
        tiers.route(work())
    assert told.value.reasons == {
        "short": "the speech is longer than 5 s",
        "small": "the source has more than 100000 pixels",
        "videos": "it takes no image as source",
        "gpu": "it needs CUDA, and the slots of this service have none",
    }
    assert Tiers([tier("gpu", needs_cuda=True)], has_cuda=True).route(work()) == ("gpu",)


def test_options_are_dropped_renamed_mapped_and_completed_per_tier():  # R2.3
    adapted = tier(
        "adapted",
        drop_options=["unwanted"],
        rename_options={"power": "strength"},
        map_options={"power": {"high": 1.2}},
        default_options={"crf": 30},
    )
    options = Tiers([adapted]).all["adapted"].options_for({"unwanted": 3, "power": "high"})
    assert (options["strength"], options["crf"]) == (1.2, 30)
    assert not {"unwanted", "power"} & set(options)


def test_a_tier_that_does_not_take_the_options_is_passed_over_and_one_that_filters_them_serves():  # R2.3
    tiers = Tiers([tier("strict"), tier("loose", drop_options=["rejected"])])
    assert tiers.route(work(options={"rejected": 1})) == ("loose",)
    tiers.check_options(None, "any", {"rejected": 1})
    with pytest.raises(ValidationError):
        tiers.check_options("strict", "none", {"rejected": 1})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[tiers]]\nname = "a"\nrenderer = "warp"\nconcurrency = 0\n', "line 4"),
        ('port = 1\n\n[[tiers]]\nname = "a"\nrenderer = "warp"\n[[tiers]]\nname = "B"\nrenderer = "warp"\n', "line 7"),
        ('[[tiers]]\nname = "a"\nrenderer = "magic"\n', "There is no renderer 'magic'"),
        ('[[tiers]]\nname = "a"\nrenderer = "warp"\nspeling = 1\n', "speling: neither a tier nor the renderer warp"),
        ('[[tiers]]\nname = "a"\nrenderer = "warp"\nbreaker = { failures = 0 }\n', "line 4"),
        ('[[tiers]]\nname = "a"\nrenderer = "warp"\n[tiers.breaker]\nfailures = 0\n', "line 4"),
        ('[[tiers]]\nrenderer = "warp"\n', "line 1"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_line(tmp_path: Path, text: str, told: str):
    file = tmp_path / "greenroom.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_settings({}, file)
    assert told in str(error.value)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("tiers", "told"),
    [
        ([tier("a"), tier("a")], "two tiers have the name 'a'"),
        ([tier("a", enabled=False)], "no tier is enabled"),
        ([tier("a", "rehearsal")], "rehearses failures"),
    ],
)
def test_tiers_that_make_no_sense_together_are_refused(tiers, told):
    with pytest.raises(LineupError, match=told):
        lineup(tiers, default_renderer="warp", rehearsals=False, has_cuda=False)


def test_without_configured_tiers_there_is_one_and_the_rehearsal_by_name_where_it_is_allowed():
    assert list(lineup([], default_renderer="warp", rehearsals=False, has_cuda=False).all) == ["warp"]
    tiers = lineup([], default_renderer="warp", rehearsals=True, has_cuda=False)
    assert tiers.route(work()) == ("warp",)
    assert tiers.route(work(renderer="rehearsal", fallback="none")) == ("rehearsal",)


LAST = [tier("good"), tier("last", "still")]


def test_a_renderer_without_lip_sync_is_degraded_though_the_operator_forgot():  # R2.4
    tiers = Tiers(LAST)
    assert (tiers.all["good"].degraded, tiers.all["last"].degraded) == (False, True)
    assert tiers.route(work(fallback="equal")) == ("good",)
    assert tiers.route(work(renderer="last", fallback="equal")) == ("good",)


def test_the_last_resort_does_not_serve_a_value_that_no_tier_takes():  # R2.3
    rename = {"force": "strength"}
    tiers = Tiers([tier("main"), tier("other", rename_options=rename, only_by_name=True), tier("last", "still")])
    for options in ({"strength": "abc"}, {"strength": 99}, {"strength": 99, "crop": "face"}, {"force": "abc"}):
        for renderer in (None, "last"):
            with pytest.raises(ValidationError, match=r"strength|force"):
                tiers.check_options(renderer, "any", options)
            with pytest.raises(NoTier):
                tiers.route(work(renderer=renderer, options=options))
    for options in ({"strength": 0.5}, {"force": 0.5}):
        tiers.check_options(None, "any", options)
        assert "last" in tiers.route(work(options=options))


def test_the_last_resort_ignores_what_means_something_to_the_others_only():  # R2.3
    tiers = Tiers(LAST)
    options = {"strength": 1.2, "seed": 4, "max_side": 640}
    assert tiers.route(work(options=options)) == ("good", "last")
    assert tiers.all["last"].options_for(options)["max_side"] == 640
    assert "strength" not in tiers.all["last"].options_for(options)


def test_a_mistake_in_the_options_is_not_served_by_the_last_resort():
    tiers = Tiers(LAST)
    with pytest.raises(NoTier):
        tiers.route(work(options={"strenght": 1.2}))
    with pytest.raises(ValidationError):
        tiers.check_options(None, "any", {"strenght": 1.2})


def test_without_configuration_no_light_renderer_takes_a_process():
    found = lineup((), default_renderer="warp", rehearsals=False, has_cuda=False)
    assert [one.name for one in found.enabled] == ["warp"]


def test_the_documents_chain_is_valid_and_adapts_options_as_it_says(tmp_path: Path):
    page = (Path(__file__).parents[2] / "docs" / "tiers.md").read_text()
    file = tmp_path / "greenroom.toml"
    file.write_text(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0])
    tiers = Tiers(load_settings({}, file).settings.tiers)
    assert [(one.name, one.degraded) for one in tiers.enabled] == [
        ("studio", False),
        ("plain", False),
        ("night", False),
        ("last", True),
    ]
    assert tiers.all["studio"].options_for({"detail": "high", "strength": 1.0})["steps"] == 40
    assert "home" in tiers.absence(tiers.all["studio"]), "no LatentSync here"
    assert tiers.route(work(options={"detail": "high"})) == ("plain", "last")
