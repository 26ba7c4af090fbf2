"""Requirements on every dashboard, checked in the JSON that Grafana reads."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from grafana.build import BOARDS, DASHBOARDS
from grafana.model import GRID_WIDTH, Board
from grafana.theme import CAUSE_COLORS, PART_COLORS
from reconciler.core.reasons import UNKNOWN_REASONS
from reconciler.metrics.definitions import CLUSTER_PARTS, PARTS
from xds.bootstrap.document import ADS_CLUSTER
from xds.bootstrap.stats_listener import ADMIN_CLUSTER

METRICS = Path(__file__).parents[2] / "docs" / "metrics.md"
BOARD = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
FOREIGN = re.compile(r"(envoy|process)_\w+")
"""Metrics that dashboards show and zenvoy does not export."""
OF_GRAFANA = {"__rate_interval", "__interval", "__range", "datasource"}


def committed(board: Board) -> dict[str, Any]:
    return dict(json.loads((DASHBOARDS / f"{board.uid}.json").read_text()))


def panels(board: Board) -> list[dict[str, Any]]:
    return [panel for panel in committed(board)["panels"] if panel["type"] != "row"]


@BOARD
def test_panel_has_description_unit_and_no_value_text(board: Board) -> None:
    for panel in panels(board):
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["noValue"], f"{panel['title']}: noValue is missing"
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["targets"]


@BOARD
def test_panels_have_unique_ids_and_do_not_overlap(board: Board) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in committed(board)["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= GRID_WIDTH, panel["title"]
        cells = {(grid["x"] + x, grid["y"] + y) for x in range(grid["w"]) for y in range(grid["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in committed(board)["panels"]]
    assert len(set(ids)) == len(ids)


@BOARD
def test_dashboard_links_to_the_others_and_has_a_data_source(board: Board) -> None:
    made = committed(board)
    assert made["uid"] == board.uid
    link = made["links"][0]
    assert (link["type"], link["tags"], link["keepTime"], link["includeVars"]) == ("dashboards", ["zenvoy"], True, True)
    assert "zenvoy" in made["tags"]
    assert made["templating"]["list"][0]["type"] == "datasource"


@BOARD
def test_variables_in_queries_exist(board: Board) -> None:
    made = committed(board)
    known = {variable["name"] for variable in made["templating"]["list"]} | OF_GRAFANA
    queries = [target["expr"] for panel in panels(board) for target in panel["targets"]]
    queries += [v["query"] for v in made["templating"]["list"] if v["type"] == "query"]
    for query in queries:
        assert set(re.findall(r"\$\{?(\w+)", query)) <= known, query


@BOARD
def test_metrics_in_queries_are_documented(board: Board) -> None:
    documented = set(re.findall(r"^\| `(\w+)` ", METRICS.read_text(), re.M))
    for panel in panels(board):
        for target in panel["targets"]:
            for name in re.findall(
                r"\b(?:zenvoy|envoy|process)_\w+", re.sub(r'"[^"]*"|by \([^)]*\)', "", target["expr"])
            ):
                plain = re.sub(r"_(bucket|sum|count)$", "", name)
                assert {name, plain} & documented or FOREIGN.fullmatch(name), f"{panel['title']}: {name}"


@BOARD
def test_envoy_queries_exclude_the_clusters_of_zenvoy(board: Board) -> None:
    for panel in panels(board):
        for target in panel["targets"]:
            for matchers in re.findall(r"envoy_cluster_\w+\{([^}]*)}", target["expr"]):
                operator, pattern = re.findall(r'envoy_cluster_name(=~|!~)"([^"]*)"', matchers)[0]
                for ours in (ADMIN_CLUSTER, ADS_CLUSTER):
                    assert bool(re.fullmatch(pattern, ours)) is (operator == "!~"), panel["title"]


def test_wake_parts_and_causes_have_distinct_colors() -> None:
    for parts in (PARTS, CLUSTER_PARTS):
        assert [part for part in PART_COLORS if part in parts] == list(parts), "not in order"
        assert len({PART_COLORS[part] for part in parts}) == len(parts)
    assert PART_COLORS.keys() == {*PARTS, *CLUSTER_PARTS}
    assert CAUSE_COLORS.keys() == set(UNKNOWN_REASONS)
    assert len(set(CAUSE_COLORS.values())) == len(UNKNOWN_REASONS)


def test_links_to_a_service_lead_to_an_existing_dashboard() -> None:
    text = "".join(path.read_text() for path in DASHBOARDS.glob("*.json"))
    assert set(re.findall(r"/d/([\w-]+)", text)) == {"zenvoy-service"} <= {board.uid for board in BOARDS}
