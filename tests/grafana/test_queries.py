"""Every panel's queries against Prometheus data from real runs. `Query.may_be_empty` says which may have no data."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from grafana import fleet
from grafana.build import BOARDS
from grafana.control_plane import NO_PODS
from grafana.fleet_wakes import NO_REQUESTS
from grafana.model import Panel, Query
from grafana.queries import IN_A_CLUSTER, NO_API_SERVER
from tests.grafana.answers import Viewer
from xds.names import ignored, stat_name

PANELS = [panel for board in BOARDS for panel in board.panels()]
EACH = pytest.mark.parametrize(
    "panel", PANELS, ids=[f"{board.uid}: {panel.title}" for board in BOARDS for panel in board.panels()]
)
IN_A_CLUSTER_ONLY = {NO_REQUESTS, NO_API_SERVER, NO_PODS, IN_A_CLUSTER}
pytestmark = [pytest.mark.prometheus, pytest.mark.envoy]


def panel_of(uid: str, title: str) -> Panel:
    return next(panel for board in BOARDS if board.uid == uid for panel in board.panels() if panel.title == title)


def empty(viewer: Viewer, panel: Panel) -> list[Query]:
    """Return the queries of a panel that have no data."""
    return [query for query, found in zip(panel.queries, viewer.answers(panel), strict=True) if not found]


@EACH
def test_query_is_valid_promql(eventful_viewer: Viewer, panel: Panel) -> None:
    for query in panel.queries:
        filled = eventful_viewer.filled(query.expr)
        assert "$" not in filled
        assert eventful_viewer.prometheus.parse(filled)


@EACH
def test_panel_has_data_after_an_eventful_run(eventful_viewer: Viewer, panel: Panel) -> None:
    assert not [query for query in empty(eventful_viewer, panel) if query.may_be_empty not in IN_A_CLUSTER_ONLY]


def test_refused_total_equals_the_sum_by_reason(eventful_viewer: Viewer) -> None:
    reasons = eventful_viewer.answers(panel_of("zenvoy-fleet", "Refused by reason"))[0]
    number = panel_of("zenvoy-fleet", "Released, refused, given up").queries[1]
    at_once = eventful_viewer.prometheus.instant(eventful_viewer.filled(number.expr), eventful_viewer.span.end)
    assert [one.last for one in at_once] == [sum(one.last for one in reasons)]
    assert {one.labels["reason"] for one in reasons} >= {"max_held"}


def test_stalled_tables_have_one_row_per_service(eventful_viewer: Viewer) -> None:
    table = next(panel for panel in fleet.WAKING_NOW.panels if panel.title == "Stalled")
    for found in eventful_viewer.answers(table):
        assert [(one.labels["service"], one.labels["reason"]) for one in found] == [("broken", "Exited")]
    stumbled = eventful_viewer.answers(panel_of("zenvoy-service", "Causes of stalls"))[0]
    assert [one.labels["reason"] for one in stumbled] == ["Exited"]


def test_envoy_connections_match_the_stat_name_of_a_service(eventful_viewer: Viewer) -> None:
    panel = panel_of("zenvoy-service", "Connections from Envoy")
    (found,) = eventful_viewer.answers(panel)[0]
    assert max(value for _, value in found.points) > 0

    dotted = replace(eventful_viewer, variables={**eventful_viewer.variables, "service": "shop/web.v1"})
    pattern = re.findall(r'envoy_cluster_name=~"([^"]+)"', dotted.filled(panel.queries[0].expr))[0]
    assert re.fullmatch(pattern, stat_name("shop/web.v1"))
    assert not re.fullmatch(pattern, stat_name(ignored("shop/web.v1")))


@EACH
def test_panel_without_data_gives_a_reason_when_nothing_sleeps(uneventful_viewer: Viewer, panel: Panel) -> None:
    nothing = empty(uneventful_viewer, panel)
    assert not [query for query in nothing if not query.may_be_empty]
    assert not nothing or panel.no_value


def test_series_of_a_panel_have_distinct_names(eventful_viewer: Viewer) -> None:
    for panel in PANELS:
        answers = eventful_viewer.answers(panel)
        if not panel.columns:
            names = [
                one.named(query.legend) for query, found in zip(panel.queries, answers, strict=True) for one in found
            ]
            assert all(names), panel.title
            assert len(set(names)) == len(names), f"{panel.title}: {names}"
