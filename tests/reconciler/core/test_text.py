"""Tests of durations, lists, plurals and similar words."""

from __future__ import annotations

import pytest

from reconciler.core.spec import UsageUnit
from reconciler.core.text import closest_match, error_text, join_words, parse_duration, paused_effect, pluralize


@pytest.mark.parametrize(("number", "said"), [(0, "0 targets"), (1, "1 target"), (2, "2 targets")])
def test_pluralize_one_is_singular(number: int, said: str) -> None:
    assert pluralize(number, "target") == said


@pytest.mark.parametrize(
    ("by", "said"), [("requests", "1 request"), ("connections", "1 connection"), ("bytes", "1 byte")]
)
def test_idle_by_one_is_singular(by: str, said: str) -> None:
    assert pluralize(1, UsageUnit(by).one) == said


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0.0), ("5m", 300.0), ("1h30m", 5400.0), ("500ms", 0.5), ("1.5s", 1.5), ("5", None), ("m", None), ("", None)],
)
def test_parse_duration_needs_units(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds


def test_closest_match_ignores_case_and_hyphens() -> None:
    assert closest_match("Idle-After", ["idleAfter", "wakeTimeout"]) == "idleAfter"
    assert closest_match("x", ["idleAfter"]) is None
    assert closest_match("idleAfter" * 20, ["idleAfter"]) is None


def test_join_words_puts_the_conjunction_last() -> None:
    assert join_words(["a"]) == "a"
    assert join_words(["a", "b", "c"]) == "a, b or c"
    assert join_words(["a", "b"], "and") == "a and b"


def test_error_text_without_a_message_names_the_kind() -> None:
    assert error_text(OSError("reset")) == "reset"
    assert error_text(TimeoutError()) == "no answer in time"
    assert error_text(EOFError()) == "EOFError"


def test_paused_effect_depends_on_the_state() -> None:
    assert paused_effect("Idle") == "stays awake until `zenvoy resume`"
    assert paused_effect("ScaledToZero", "noon").endswith("wakes it, and then stays awake until noon")
