"""File names for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.intake.names import MAX_NAME, display_name, name_from_disposition, name_from_path


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("face.png", "face.png"),
        ("my face (1) 'x' \"y\".png", "my face (1) 'x' \"y\".png"),
        ("Gänsefüßchen – 顔.png", "Gänsefüßchen – 顔.png"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\face.png", "face.png"),
        ("a\0b\nc\r.png", "abc.png"),
        ("", "unnamed"),
        ("..", "unnamed"),
        ("dir/", "unnamed"),
        ("\ud800x", "x"),
        ("  padded.wav ", "padded.wav"),
    ],
)
def test_display_name(raw: str, shown: str) -> None:
    assert display_name(raw) == shown


def test_a_long_name_keeps_its_suffix() -> None:
    shown = display_name("x" * 500 + ".mp4")
    assert len(shown) == MAX_NAME
    assert shown.endswith("x.mp4")


@given(st.text())
def test_any_text_becomes_a_harmless_name(raw: str) -> None:
    shown = display_name(raw)
    assert 0 < len(shown) <= MAX_NAME
    assert not set(shown) & set("/\\\0\r\n")
    shown.encode()


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('attachment; filename="a b.wav"', "a b.wav"),
        ("attachment; filename*=UTF-8''%E9%A1%94.png", "顔.png"),
        ("attachment; filename=\"x.png\"; filename*=UTF-8''%C3%BC.png", "ü.png"),
        ('attachment; filename="' + "ü.png".encode().decode("latin-1") + '"', "ü.png"),
        ('attachment; filename="../../x"', "x"),
        ("attachment", None),
        ("", None),
        ("filename*=nonsense''%ff", None),
    ],
)
def test_name_from_disposition(header: str, name: str | None) -> None:
    assert name_from_disposition(header) == name


def test_name_from_path() -> None:
    assert name_from_path("/a/b%20c.png", "host") == "b c.png"
    assert name_from_path("/", "host") == "host"
