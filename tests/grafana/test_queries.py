"""Every panel's query, against real Prometheuses that real runs filled. The list of what may be empty is in the panels
themselves: `Query.may_be_empty` says why."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from grafana import fleet
from grafana.answers import Viewer
from grafana.build import BOARDS
from grafana.control_plane import NO_PODS
from grafana.fleet_wakes import NO_REQUESTS
from grafana.model import Panel, Query
from grafana.queries import IN_A_CLUSTER, NO_API_SERVER
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
    assert not [query for query in empty(eventful_viewer, panel) if query.may_be_empty not in IN_A_CLUSTER_ONLY]


def test_what_was_refused_is_as_many_as_by_reason(eventful_viewer: Viewer) -> None:
    reasons = eventful_viewer.answers(panel_of("zenvoy-fleet", "Refused by reason"))[0]
    number = panel_of("zenvoy-fleet", "Released, refused, given up").queries[1]
    at_once = eventful_viewer.prometheus.instant(eventful_viewer.filled(number.expr), eventful_viewer.span.end)
    assert [one.last for one in at_once] == [sum(one.last for one in reasons)]
    assert {one.labels["reason"] for one in reasons} >= {"max_held"}


def test_why_services_stalled_is_told_by_a_row_each(eventful_viewer: Viewer) -> None:
    table = next(panel for panel in fleet.WAKING_NOW.panels if panel.title == "Stalled")
    for found in eventful_viewer.answers(table):
        assert [(one.labels["service"], one.labels["why"]) for one in found] == [("broken", "Exited")]
    stumbled = eventful_viewer.answers(panel_of("zenvoy-service", "Why it stalled"))[0]
    assert [one.labels["why"] for one in stumbled] == ["Exited"]


def test_connections_from_envoy_are_found_by_the_name_that_envoy_has_for_a_service(eventful_viewer: Viewer) -> None:
    panel = panel_of("zenvoy-service", "Connections from Envoy")
    (found,) = eventful_viewer.answers(panel)[0]
    assert max(value for _, value in found.points) > 0

    dotted = replace(eventful_viewer, variables={**eventful_viewer.variables, "service": "shop/web.v1"})
    pattern = re.findall(r'envoy_cluster_name=~"([^"]+)"', dotted.filled(panel.queries[0].expr))[0]
    assert re.fullmatch(pattern, stat_name("shop/web.v1"))
    assert not re.fullmatch(pattern, stat_name(ignored("shop/web.v1")))


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
