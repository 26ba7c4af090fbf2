"""Every panel's query, against real Prometheuses that real runs filled. The list of what may be empty is in the panels
themselves: `Query.may_be_empty` says why."""

from __future__ import annotations

import pytest

from grafana.answers import Viewer
from grafana.build import BOARDS
from grafana.fleet_wakes import NO_REQUESTS
from grafana.model import Panel, Query

PANELS = [panel for board in BOARDS for panel in board.panels()]
EACH = pytest.mark.parametrize(
    "panel", PANELS, ids=[f"{board.uid}: {panel.title}" for board in BOARDS for panel in board.panels()]
)
pytestmark = [pytest.mark.prometheus, pytest.mark.envoy]


def empty(viewer: Viewer, panel: Panel) -> list[Query]:
    """Those of its queries that find nothing."""
    return [query for query, found in zip(panel.queries, viewer.answers(panel), strict=True) if not found]


@EACH
def test_prometheus_understands_the_query(eventful_viewer: Viewer, panel: Panel) -> None:
    for query in panel.queries:
        filled = eventful_viewer.filled(query.expr)
        assert "$" not in filled
        assert eventful_viewer.prometheus.parse(filled)


@EACH
def test_everything_has_data_when_much_happened(eventful_viewer: Viewer, panel: Panel) -> None:
    assert not [query for query in empty(eventful_viewer, panel) if query.may_be_empty != NO_REQUESTS]


@EACH
def test_only_what_says_why_is_empty_when_nothing_sleeps(uneventful_viewer: Viewer, panel: Panel) -> None:
    nothing = empty(uneventful_viewer, panel)
    assert not [query for query in nothing if not query.may_be_empty]
    assert not nothing or panel.no_value


def test_series_are_named_apart(eventful_viewer: Viewer) -> None:
    for panel in PANELS:
        answers = eventful_viewer.answers(panel)
        if not panel.columns:
            names = [
                one.named(query.legend) for query, found in zip(panel.queries, answers, strict=True) for one in found
            ]
            assert all(names), panel.title
            assert len(set(names)) == len(names), f"{panel.title}: {names}"
