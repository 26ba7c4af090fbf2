"""The committed dashboards equal the output of `python -m grafana.build`; `make golden` updates them."""

from __future__ import annotations

import os

from grafana import build


def test_golden_dashboards() -> None:
    if os.environ.get("ZENVOY_GOLDEN") == "write":
        build.write()
    assert not build.outdated(), "run `make golden` and review the difference"


def test_build_twice_gives_the_same_files() -> None:
    assert build.files() == build.files()
