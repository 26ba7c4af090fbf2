"""What a real Prometheus answers to a panel's queries, their variables filled in. Counterpart: `scene.py` fills it."""

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

TIMEOUT_SECONDS = 20.0


class Rejected(Exception):
    """Prometheus rejects a query."""


@dataclass(frozen=True, slots=True)
class Span:
    """A time range, in seconds since the epoch, and the distance of its points."""

    start: float
    end: float
    step: float


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer: moments in seconds since the epoch, with values; one point when it was asked for now."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]

    @property
    def last(self) -> float:
        return self.points[-1][1]

    def named(self, legend: str) -> str:
        """What Grafana would call it."""
        return re.sub(r"{{\s*(\w+)\s*}}", lambda found: self.labels.get(found[1], ""), legend)


Answers = tuple[tuple[Series, ...], ...]
"""For each of a panel's queries, its series."""


def filled(expr: str, variables: Mapping[str, str], span: Span, scrape_interval: float) -> str:
    """A query as Grafana sends it. `$__rate_interval` is what Grafana makes of a scrape interval."""
    every = {
        "__rate_interval": _duration(max(4 * scrape_interval, scrape_interval + span.step)),
        "__interval": _duration(span.step),
        "__range": _duration(span.end - span.start),
        **variables,
    }
    return re.sub(r"\$\{?(\w+)}?", lambda found: every[found[1]], expr)


class Prometheus:
    """Asks one, through its HTTP interface."""

    def __init__(self, url: str) -> None:
        self.url = url

    def parse(self, expr: str) -> str:
        """The query as Prometheus understands it. Raises `Rejected`."""
        return str(self._ask("format_query", query=expr))

    def range(self, expr: str, span: Span) -> list[Series]:
        """Raises `Rejected`."""
        found = self._ask("query_range", query=expr, start=span.start, end=span.end, step=span.step)
        return [_series(row["metric"], row["values"]) for row in found["result"]]

    def instant(self, expr: str, at: float) -> list[Series]:
        """Raises `Rejected`."""
        found = self._ask("query", query=expr, time=at)
        return [_series(row["metric"], [row["value"]]) for row in found["result"]]

    def targets_up(self) -> int:
        """How many targets the last scrape reached; 0 while Prometheus itself cannot be reached."""
        try:
            return int(sum(one.last for one in self.instant("up", time.time())))
        except OSError:
            return 0

    def _ask(self, what: str, **parameters: object) -> Any:
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{what}?{query}", timeout=TIMEOUT_SECONDS) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.SERVICE_UNAVAILABLE:
                raise  # it has yet to read what it has stored
            with error:
                raise Rejected(f"{parameters['query']}: {error.read().decode()}") from None


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody who looks at dashboards: at this range, with these variables chosen."""

    prometheus: Prometheus
    span: Span
    variables: Mapping[str, str]
    scrape_interval: float

    def filled(self, expr: str) -> str:
        """The query as Grafana would send it."""
        return filled(expr, self.variables, self.span, self.scrape_interval)

    def answers(self, panel: Panel) -> Answers:
        """What each query of the panel finds; series without a single number are left out."""
        return tuple(self._found(panel, self.filled(query.expr)) for query in panel.queries)

    def _found(self, panel: Panel, expr: str) -> tuple[Series, ...]:
        if panel.kind in (Kind.TABLE, Kind.BARS):
            found = self.prometheus.instant(expr, self.span.end)
        else:
            found = self.prometheus.range(expr, self.span)
        return tuple(one for one in found if any(value == value for _, value in one.points))


def _duration(seconds: float) -> str:
    """PromQL knows no fractions."""
    return f"{round(1000 * seconds)}ms"


def _series(labels: Mapping[str, str], points: list[tuple[float, str]]) -> Series:
    return Series(labels, tuple((float(at), float(value)) for at, value in points))
