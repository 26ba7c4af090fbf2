"""Pictures of a real run, and the parts of drawing that can be told to be right without looking."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from matplotlib.image import imread

from grafana.answers import Series, Viewer
from grafana.build import BOARDS
from grafana.draw import legend_columns, stretches
from grafana.draw_table import cells
from grafana.model import Column, Kind, Panel, Query, Unit
from grafana.picture import drawn_of, fingerprint
from grafana.render import IMAGES, render
from grafana.units import readable, ticks

ROOT = Path(__file__).parents[2]


@pytest.mark.prometheus
@pytest.mark.envoy
def test_every_dashboard_can_be_drawn_and_its_picture_is_committed(eventful_viewer: Viewer, tmp_path: Path) -> None:
    drawn = render(eventful_viewer, tmp_path)
    assert len(drawn) == len(BOARDS)
    for path, board in zip(drawn, BOARDS, strict=True):
        assert imread(path).std() > 0.05, f"{path.name} is blank"
        for picture in (path, IMAGES / path.name):
            assert drawn_of(picture) == fingerprint(board), f"{picture} is out of date: `python -m grafana.render`"


def test_every_picture_is_shown_to_somebody() -> None:
    shown = "".join(page.read_text() for page in (ROOT / "README.md", *(ROOT / "docs").glob("how-to/*.md")))

    assert set(re.findall(r"!\[[^\]]{20,}\]\((?:docs|\.\.)/img/([^)]+)\)", shown)) == {
        path.name for path in IMAGES.iterdir()
    }


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, Unit.SECONDS, "0 s"),
        (0.0053, Unit.SECONDS, "5.3 ms"),
        (90, Unit.SECONDS, "1.5 min"),
        (1_500, Unit.COUNT, "1.5 K"),
        (3, Unit.COUNT, "3"),
        (0.251, Unit.SHARE, "25.1 %"),
        (89 * 1024 * 1024, Unit.BYTES, "89 MiB"),
        (float("nan"), Unit.SECONDS, "no number"),
    ],
)
def test_numbers_are_readable(value: float, unit: Unit, text: str) -> None:
    assert readable(value, unit) == text


def test_axes_have_round_numbers() -> None:
    assert ticks(131, Unit.SECONDS) == [0, 60, 120]
    assert ticks(0.9, Unit.SECONDS) == pytest.approx([0, 0.5])
    assert ticks(1, Unit.COUNT) == [0, 1]
    assert ticks(7, Unit.COUNT) == [0, 2, 4, 6]


def test_a_legend_takes_as_few_lines_as_it_can() -> None:
    assert legend_columns([6, 4, 8, 6, 12, 7], room=80) == 6
    assert legend_columns([6, 4, 8, 6, 12, 7], room=60) == 4
    assert legend_columns([40, 40], room=60) == 1


def test_a_state_is_one_stretch_until_it_changes_or_is_not_known() -> None:
    one = Series({}, ((0, 1), (1, 1), (2, 3), (5, 3)))
    assert stretches(one, 1) == [(0, 2, 1), (2, 3, 3), (5, 6, 3)]


def test_a_table_has_a_row_for_each_set_of_labels() -> None:
    columns = (Column("service", "Service", words={"b": "bee"}), Column("A", "For", Unit.SECONDS), Column("B", "Held"))
    panel = Panel("t", "d", Kind.TABLE, (Query("x"), Query("y")), columns=columns, sort="For")
    first = (Series({"service": "a"}, ((0, 1),)), Series({"service": "b"}, ((0, 2),)))
    second = (Series({"service": "a"}, ((0, 7),)),)
    assert cells(panel, (first, second)) == [("bee", "2 s", ""), ("a", "1 s", "7")]
