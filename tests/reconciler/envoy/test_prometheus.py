"""Samples from a real Prometheus that scrapes a small exporter in Envoy's place."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from aiohttp import web

from reconciler.core.spec import UsageUnit
from reconciler.core.traffic import Counters, Usage, Window
from reconciler.envoy.prometheus.stats import FIELDS
from tests.reconciler.envoy.prometheus_parts import PATIENCE_SECONDS, Exporter, prometheus, sampled, served, source
from xds.bootstrap.document import NODE_TAG


@pytest.mark.prometheus
async def test_prometheus_sample_names_missing_envoy_until_back(tmp_path: Path) -> None:
    exporter = Exporter()
    app = web.Application()
    app.router.add_get("/{node}", exporter.answer)
    async with served(app) as port, prometheus(tmp_path, f"127.0.0.1:{port}", {"/one": (), "/two": ()}) as url:
        stats = source(url, {"one", "two"})
        first = await sampled(stats, lambda sample: len(sample.envoys) == 2)
        assert first.envoys["one"].services == {"shop.web": Counters(requests=7, bytes=42)}
        assert first.missing == {}
        assert time.time() - first.taken_at < PATIENCE_SECONDS

        exporter.requests["two"] = 6
        second = await sampled(
            stats,
            lambda s: (
                s.taken_at > first.taken_at  # both were scraped again
                and "two" in s.envoys
                and s.envoys["two"].services["shop.web"].requests == 6
            ),
        )
        window = Window(first, second, frozenset({"one", "two"}))
        assert window.judge("shop.web", UsageUnit.REQUESTS, window.unknown()).usage is Usage.TRAFFIC

        exporter.requests["two"] = None
        partial = await sampled(stats, lambda sample: "two" in sample.missing)
        assert "Prometheus" in partial.missing["two"]
        window = Window(second, partial, frozenset({"one", "two"}))
        assert window.judge("shop.web", UsageUnit.REQUESTS, window.unknown()).usage is Usage.UNKNOWN

        exporter.requests["two"] = 6
        await sampled(stats, lambda sample: len(sample.envoys) == 2)

        exporter.requests["one"] = float("nan")
        broken = await sampled(stats, lambda sample: bool(sample.missing))
        assert "not a number" in broken.missing["one"]
        await stats.close()


@pytest.mark.prometheus
async def test_prometheus_clock_difference_makes_sample_unknown(tmp_path: Path) -> None:
    exporter = Exporter()
    app = web.Application()
    app.router.add_get("/{node}", exporter.answer)
    async with served(app) as port, prometheus(tmp_path, f"127.0.0.1:{port}", {"/one": ()}) as url:
        right = source(url, {"one"})
        await sampled(right, lambda sample: len(sample.envoys) == 1)
        wrong = source(url, {"one"}, ahead=-60.0)
        began = time.monotonic()
        sample = await wrong.sample()
        uncertain = time.monotonic() - began
        assert sample.envoys == {}
        found = re.search(r"its clock is (\S+) s ahead of ours", sample.missing["one"])
        assert found and float(found[1]) == pytest.approx(60.0, abs=uncertain + 0.1)
        await right.close()
        await wrong.close()


def drop(name: str, **more: str) -> dict[str, object]:
    """Return a rule that drops a series, which some people use to save storage."""
    labels = {"__name__": name, **more}
    return {"source_labels": list(labels), "regex": ";".join(labels.values()), "action": "drop"}


def labeldrop(name: str) -> dict[str, object]:
    return {"regex": name, "action": "labeldrop"}


LOSSES = {
    **{name: (drop(name), f"Prometheus lacks {name} of it") for name in FIELDS},
    "all": (drop("envoy_cluster_.*"), f"Prometheus lacks {', '.join(FIELDS)} of it"),
    "some": (drop(".*_active", envoy_cluster_name=".*"), "envoy_cluster_upstream_rq_active, envoy_cluster_upstream_cx"),
    "uptime": (drop("envoy_server_.*"), "Prometheus lacks envoy_server_uptime of it"),
    "cluster": (labeldrop("envoy_cluster_name"), "Prometheus lacks the label envoy_cluster_name in envoy_cluster_"),
    "node": (labeldrop(NODE_TAG), "Prometheus has no recent scrape of it"),
}
"""Relabelling rules and the expected reason, by the name of the Envoy that they affect."""


@pytest.mark.prometheus
async def test_prometheus_dropped_series_makes_envoy_missing(tmp_path: Path) -> None:
    exporter = Exporter()
    exporter.requests = dict.fromkeys((*LOSSES, "whole"), 7)
    app = web.Application()
    app.router.add_get("/{node}", exporter.answer)
    rules = {"/whole": [], **{f"/{node}": [rule] for node, (rule, _) in LOSSES.items()}}
    async with served(app) as port, prometheus(tmp_path, f"127.0.0.1:{port}", rules) as url:
        stats = source(url, {*LOSSES, "whole"})
        sample = await sampled(
            stats,
            lambda s: (
                s.envoys.keys() == {"whole"}
                and all(why in s.missing.get(node, "") for node, (_, why) in LOSSES.items())
            ),
        )
        assert sample.missing.keys() == LOSSES.keys()
        await stats.close()
