"""What is asked of Prometheus, and what the rows of its answer say of each Envoy. Pure.

Everything is asked at once: an answer is evaluated at one instant, so that an Envoy's counters, its uptime and the time
of the scrape that they are from belong together. Which Envoy a series is from is told by the label that the bootstrap
makes Envoy put on all of them.

A series that is not there reads as a service that was never used, and a rule of Prometheus can drop any. So every
figure must be there for a cluster that each Envoy uses as long as it is connected.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.core.traffic import Counters
from xds.bootstrap.document import ADS_CLUSTER, NODE_TAG

FIELDS = {
    "envoy_cluster_upstream_rq_total": "requests",
    "envoy_cluster_upstream_rq_active": "active_requests",
    "envoy_cluster_upstream_cx_total": "connections",
    "envoy_cluster_upstream_cx_active": "active_connections",
    "envoy_cluster_upstream_cx_rx_bytes_total": "bytes",
    "envoy_cluster_upstream_cx_tx_bytes_total": "bytes",
}
UPTIME = "envoy_server_uptime"
CLUSTER_TAG = "envoy_cluster_name"
MOST = 2.0**63
"""No figure is larger; NaN and infinity are not below it."""
SCRAPED = "zenvoy_scraped"
"""The label of rows whose value is the time of an Envoy's scrape: `or` drops rows whose labels are another's."""
QUERY = (
    '{__name__=~"envoy_cluster_upstream_((rq|cx)_(total|active)|cx_(rx|tx)_bytes_total)|envoy_server_uptime",'
    f'{NODE_TAG}!=""}} or label_replace(timestamp({UPTIME}{{{NODE_TAG}!=""}}), "{SCRAPED}", "at", "", "")'
)


class Unusable(Exception):
    """What Prometheus said, if anything, is nothing that a judgement could stand on; in words for people."""


@dataclass(slots=True)
class Scraped:
    """One Envoy, by its latest scrape."""

    uptime: float | None = None
    at: float | None = None
    """By Prometheus' clock, in seconds since the epoch."""
    services: dict[str, dict[str, int]] = field(default_factory=dict)
    surely: set[str] = field(default_factory=set)
    """The figures that are there for what is always in use."""
    nameless: str | None = None
    """A figure of which nobody can tell whose it is."""
    wrong: str | None = None
    """A figure that is not a number, or not one that Envoy counts to."""

    def counters(self) -> dict[str, Counters]:
        return {service: Counters(**figures) for service, figures in self.services.items()}

    def lacks(self) -> str | None:
        """Return what a judgement needs of it and is not there, for people."""
        if self.nameless:
            return f"Prometheus lacks the label {CLUSTER_TAG} in {self.nameless} of it"
        absent = [name for name in FIELDS if name not in self.surely]
        return f"Prometheus lacks {', '.join(absent)} of it" if absent else None


def read(
    rows: Iterable[Mapping[str, Any]], expected: Collection[str], service_of: Callable[[str], str]
) -> dict[str, Scraped]:
    """Return what rows say of each expected Envoy. Raises whatever Python does for rows that are none.

    A row of any other Envoy is ignored: a series with this label may be anybody's. Two jobs may scrape one Envoy: the
    older of both scrapes is the one with the lower uptime.
    """
    envoys: dict[str, Scraped] = {}
    for row in rows:
        labels, value = row["metric"], float(row["value"][1])
        node = labels[NODE_TAG]
        if node not in expected:
            continue
        envoy = envoys.get(node) or envoys.setdefault(node, Scraped())
        if not 0 <= value < MOST:
            envoy.wrong = figure if (figure := labels.get("__name__")) in (*FIELDS, UPTIME) else "the time of a scrape"
            continue
        if SCRAPED in labels:
            envoy.at = value if envoy.at is None else min(envoy.at, value)
            continue
        name = labels["__name__"]
        if name == UPTIME:
            envoy.uptime = value if envoy.uptime is None else min(envoy.uptime, value)
        else:
            _count(envoy, name, labels.get(CLUSTER_TAG), int(value), service_of)
    return envoys


def _count(envoy: Scraped, name: str, cluster: str | None, value: int, service_of: Callable[[str], str]) -> None:
    figure = FIELDS[name]
    if not cluster:
        envoy.nameless = name
    elif cluster == ADS_CLUSTER:
        envoy.surely.add(name)
    else:
        counted = envoy.services.setdefault(service_of(cluster), {})
        counted[figure] = counted.get(figure, 0) + value
