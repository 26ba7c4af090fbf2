"""Words for people."""

from __future__ import annotations

import pytest

from reconciler.core.spec import IdleBy
from reconciler.core.wording import counted


@pytest.mark.parametrize(("number", "said"), [(0, "0 targets"), (1, "1 target"), (2, "2 targets")])
def test_one_is_singular(number: int, said: str) -> None:
    assert counted(number, "target") == said


@pytest.mark.parametrize(
    ("by", "said"), [("requests", "1 request"), ("connections", "1 connection"), ("bytes", "1 byte")]
)
def test_one_of_what_idleness_is_judged_by(by: str, said: str) -> None:
    assert counted(1, IdleBy(by).one) == said
