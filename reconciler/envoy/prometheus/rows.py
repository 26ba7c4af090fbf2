"""The query to Prometheus, and the parser of its rows. Pure.

One query selects everything: Prometheus evaluates it at one instant, so an Envoy's counters, its uptime and the time of
their scrape belong together. A label that the bootstrap adds to all series identifies the Envoy.

An absent series means a service that was never used, but a relabelling rule of Prometheus can also drop it. Therefore
each figure must be present for the ADS cluster, which every connected Envoy uses.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.core.traffic import Counters
from reconciler.envoy import admin_stats
from xds.bootstrap.document import ADS_CLUSTER, NODE_TAG
from xds.names import service_name

FIELDS = {f"envoy_cluster_{name}": field for name, field in admin_stats.FIELDS.items()}
UPTIME = "envoy_server_uptime"
CLUSTER_TAG = "envoy_cluster_name"
FIGURE_LIMIT = 2.0**63
"""Exceeds every valid figure; NaN and infinity fail the comparison."""
SCRAPED = "zenvoy_scraped"
"""The label of rows whose value is the time of a scrape. It makes them distinct: `or` drops rows with equal labels."""
QUERY = (
    '{__name__=~"envoy_cluster_upstream_((rq|cx)_(total|active)|cx_(rx|tx)_bytes_total)|envoy_server_uptime",'
    f'{NODE_TAG}!=""}} or label_replace(timestamp({UPTIME}{{{NODE_TAG}!=""}}), "{SCRAPED}", "at", "", "")'
)


@dataclass(slots=True)
class Scraped:
    """The latest scrape of one Envoy."""

    uptime: float | None = None
    at: float | None = None
    """The time of the scrape by Prometheus' clock, in seconds since the epoch."""
    services: dict[str, dict[str, int]] = field(default_factory=dict)
    ads_figures: set[str] = field(default_factory=set)
    """The figures that are present for the ADS cluster."""
    unlabeled: str | None = None
    """A figure without the label that names its cluster."""
    invalid: str | None = None
    """A figure whose value is not a valid number."""

    def counters(self) -> dict[str, Counters]:
        return {service: Counters(**figures) for service, figures in self.services.items()}

    def absent(self) -> str | None:
        """Describe the data that is needed but absent, for display."""
        if self.unlabeled:
            return f"Prometheus lacks the label {CLUSTER_TAG} in {self.unlabeled} of it"
        absent = [name for name in FIELDS if name not in self.ads_figures]
        return f"Prometheus lacks {', '.join(absent)} of it" if absent else None


def read(rows: Iterable[Mapping[str, Any]], expected: Collection[str]) -> dict[str, Scraped]:
    """Return the scrape of each expected Envoy. Raises Python's own errors for malformed rows.

    Rows of other Envoys are ignored: any target may have this label. If two jobs scrape one Envoy, the older scrape
    counts, which has the lower uptime.
    """
    envoys: dict[str, Scraped] = {}
    for row in rows:
        labels, value = row["metric"], float(row["value"][1])
        node = labels[NODE_TAG]
        if node not in expected:
            continue
        envoy = envoys.get(node) or envoys.setdefault(node, Scraped())
        if not 0 <= value < FIGURE_LIMIT:
            envoy.invalid = (
                figure if (figure := labels.get("__name__")) in (*FIELDS, UPTIME) else "the time of a scrape"
            )
            continue
        if SCRAPED in labels:
            envoy.at = value if envoy.at is None else min(envoy.at, value)
            continue
        name = labels["__name__"]
        if name == UPTIME:
            envoy.uptime = value if envoy.uptime is None else min(envoy.uptime, value)
        else:
            _count(envoy, name, labels.get(CLUSTER_TAG), int(value))
    return envoys


def _count(envoy: Scraped, name: str, cluster: str | None, value: int) -> None:
    figure = FIELDS[name]
    if not cluster:
        envoy.unlabeled = name
    elif cluster == ADS_CLUSTER:
        envoy.ads_figures.add(name)
    else:
        counted = envoy.services.setdefault(service_name(cluster), {})
        counted[figure] = counted.get(figure, 0) + value
