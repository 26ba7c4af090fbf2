"""A client for the Prometheus HTTP API that runs panel queries the way Grafana does."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from grafana.model import Kind, Panel

TIMEOUT_SECONDS = 60.0


class Rejected(Exception):
    """Prometheus rejected a query."""


@dataclass(frozen=True, slots=True)
class Span:
    """A time range in seconds since the epoch, and the step between its points."""

    start: float
    end: float
    step: float


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer: `(time, value)` points, with the time in seconds since the epoch."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]

    @property
    def last(self) -> float:
        return self.points[-1][1]

    def named(self, legend: str) -> str:
        """Return the name that Grafana shows in the legend."""
        return re.sub(r"{{\s*(\w+)\s*}}", lambda found: self.labels.get(found[1], ""), legend)


Answers = tuple[tuple[Series, ...], ...]
"""The series of each query of a panel."""


def filled(expr: str, variables: Mapping[str, str], span: Span, scrape_interval: float) -> str:
    """Return a query with its variables filled in, including the intervals that Grafana computes."""
    values = {
        "__rate_interval": _duration(max(4 * scrape_interval, scrape_interval + span.step)),
        "__interval": _duration(span.step),
        "__range": _duration(span.end - span.start),
        **variables,
    }
    return re.sub(r"\$\{?(\w+)}?", lambda found: values[found[1]], expr)


class Prometheus:
    """A client for one Prometheus server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def parse(self, expr: str) -> str:
        """Return the query as Prometheus formats it. Raises `Rejected`."""
        return str(self._get("format_query", query=expr))

    def range(self, expr: str, span: Span) -> list[Series]:
        """Run a range query. Raises `Rejected`."""
        found = self._get("query_range", query=expr, start=span.start, end=span.end, step=span.step)
        return [_series(row["metric"], row["values"]) for row in found["result"]]

    def instant(self, expr: str, at: float) -> list[Series]:
        """Run an instant query. Raises `Rejected`."""
        found = self._get("query", query=expr, time=at)
        return [_series(row["metric"], [row["value"]]) for row in found["result"]]

    def targets_up(self) -> int:
        """Return how many targets the last scrape reached, or 0 while Prometheus is unreachable."""
        try:
            return int(sum(one.last for one in self.instant("up", time.time())))
        except OSError:
            return 0

    def _get(self, endpoint: str, **parameters: object) -> Any:
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{endpoint}?{query}", timeout=TIMEOUT_SECONDS) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.SERVICE_UNAVAILABLE:
                raise  # Prometheus is still loading its storage
            with error:
                raise Rejected(f"{parameters['query']}: {error.read().decode()}") from None


@dataclass(frozen=True, slots=True)
class Viewer:
    """A dashboard viewer with a time range and chosen variables."""

    prometheus: Prometheus
    span: Span
    variables: Mapping[str, str]
    scrape_interval: float

    def filled(self, expr: str) -> str:
        """Return a query as Grafana would send it."""
        return filled(expr, self.variables, self.span, self.scrape_interval)

    def answers(self, panel: Panel) -> Answers:
        """Run the queries of a panel. Series without any number are left out."""
        return tuple(self._found(panel, self.filled(query.expr)) for query in panel.queries)

    def _found(self, panel: Panel, expr: str) -> tuple[Series, ...]:
        if panel.kind in (Kind.TABLE, Kind.BARS):
            found = self.prometheus.instant(expr, self.span.end)
        else:
            found = self.prometheus.range(expr, self.span)
        return tuple(one for one in found if any(value == value for _, value in one.points))


def _duration(seconds: float) -> str:
    """Format a duration for PromQL, which does not accept fractions."""
    return f"{round(1000 * seconds)}ms"


def _series(labels: Mapping[str, str], points: list[tuple[float, str]]) -> Series:
    return Series(labels, tuple((float(at), float(value)) for at, value in points))
