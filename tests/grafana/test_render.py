"""Pictures of a real run, and the parts of drawing that can be told to be right without looking."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.image import imread

from grafana.answers import Series
from grafana.build import BOARDS
from grafana.draw import stretches
from grafana.draw_table import cells
from grafana.model import Column, Kind, Panel, Query, Unit
from grafana.render import IMAGES, render
from grafana.scene import Scene
from grafana.units import readable, ticks


@pytest.mark.prometheus
@pytest.mark.envoy
def test_every_dashboard_can_be_drawn_and_its_picture_is_committed(eventful: Scene, tmp_path: Path) -> None:
    drawn = render(eventful, tmp_path)
    assert len(drawn) == len(BOARDS)
    for path in drawn:
        picture = imread(path)
        assert picture.std() > 0.05, f"{path.name} is blank"
        assert imread(IMAGES / path.name).shape == picture.shape, (
            f"docs/img/{path.name}: run `python -m grafana.render`"
        )


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


def test_a_state_is_one_stretch_until_it_changes_or_is_not_known() -> None:
    one = Series({}, ((0, 1), (1, 1), (2, 3), (5, 3)))
    assert stretches(one, 1) == [(0, 2, 1), (2, 3, 3), (5, 6, 3)]


def test_a_table_has_a_row_for_each_set_of_labels() -> None:
    columns = (Column("service", "Service", words={"b": "bee"}), Column("A", "For", Unit.SECONDS), Column("B", "Held"))
    panel = Panel("t", "d", Kind.TABLE, (Query("x"), Query("y")), columns=columns, sort="For")
    first = (Series({"service": "a"}, ((0, 1),)), Series({"service": "b"}, ((0, 2),)))
    second = (Series({"service": "a"}, ((0, 7),)),)
    assert cells(panel, (first, second)) == [("bee", "2 s", ""), ("a", "1 s", "7")]
