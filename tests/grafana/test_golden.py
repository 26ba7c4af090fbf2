"""The committed JSON is what `python -m grafana.build` writes; `make golden` writes it anew."""

from __future__ import annotations

import os

from grafana import build


def test_golden_dashboards() -> None:
    if os.environ.get("ZENVOY_GOLDEN") == "write":
        build.write()
    assert not build.outdated(), "run `make golden` and look at the difference"


def test_building_twice_gives_the_same() -> None:
    assert build.files() == build.files()
