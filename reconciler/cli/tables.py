"""Services as a table for people; times and durations as people say them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from reconciler.cli.output import cell

COLOURS = {"ScaledToZero": "blue", "Waking": "yellow", "Active": "green", "Idle": "cyan", "Draining": "magenta"}
COLUMNS = ("NAME", "STATE", "SINCE", "WHY", "HELD", "RELAYED", "REQUESTS", "NEXT", "LAST WAKE")
FIGURES = ("HELD", "RELAYED", "REQUESTS")
DISPENSABLE = ("RELAYED", "REQUESTS")
FOR_ALL, FOR_PARTS = 100, 150
"""Columns that a terminal needs for all columns, and for the parts of the last wake too; `explain` has both."""
EVENTS = {"IdleElapsed": "sleeps", "WakeTimedOut": "times out", "DrainTimedOut": "gives up draining"}


def table(services: Sequence[Mapping[str, Any]], now: datetime | None = None, width: int = FOR_PARTS) -> Table:
    """One row a service, with what a terminal of this width has room for."""
    at = now or datetime.now(UTC)
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    shown = [column for column in COLUMNS if width >= FOR_ALL or column not in DISPENSABLE]
    for column in shown:
        folds = column in ("WHY", "NEXT", "LAST WAKE")
        drawn.add_column(column, justify="right" if column in FIGURES else "left", no_wrap=not folds)
    for service in services:
        cells = dict(zip(COLUMNS, _row(service, at, parts=width >= FOR_PARTS), strict=True))
        colour = COLOURS.get(service["state"], "white")
        drawn.add_row(*(cell(cells[column], colour if column == "STATE" else "") for column in shown))
    return drawn


def line(service: Mapping[str, Any]) -> str:
    """What of a service is worth a line when it changes: `echo  Idle  no traffic`."""
    state = service["state"] + (" (paused)" if service["paused"] else "")
    return f"{service['name']:<20}  {state:<21}  {_why(service)}"


def complaints(envoys: Sequence[Mapping[str, Any]], holders: Sequence[object]) -> list[str]:
    """What is wrong beyond single services, a line each; of all that are connected."""
    lines = [
        f"Envoy {envoy['id']} rejected a configuration at {envoy['lastNack']['at']}: {envoy['lastNack']['message']}"
        for envoy in envoys
        if envoy["lastNack"]
    ]
    if not envoys:
        lines.append("no Envoy is connected: nobody can reach a service, and none is put to sleep")
    if not holders:
        lines.append("no holder is connected: a service that sleeps cannot wake, and none is put to sleep")
    return lines


def _row(service: Mapping[str, Any], now: datetime, parts: bool) -> list[str]:
    state = service["state"]
    return [
        service["name"],
        state + (" (paused)" if service["paused"] else ""),
        duration((now - _moment(service["since"])).total_seconds()) if service["since"] else "",
        _why(service),
        _count(service["held"]),
        _count(service["relayed"]),
        str(service["requests"]),
        _next(service["deadline"], now),
        last_wake(service["lastWake"], parts),
    ]


def _why(service: Mapping[str, Any]) -> str:
    """Why it is in this state; and what keeps it there, where that is a doubt about its use."""
    why: str = service["stalled"] or service["reason"]
    traffic = service["traffic"]
    doubtful = service["state"] == "Active" and traffic and traffic["usage"] == "unknown"
    if rejected := service.get("rejected"):
        return f"Envoy rejects a part of it: {rejected}; {why}"
    return why if not doubtful or traffic["reason"] in why else f"{why}; kept awake: {traffic['reason']}"


def last_wake(wake: Mapping[str, Any] | None, parts: bool = True) -> str:
    """The whole and its parts: `213 ms (signal 1 ms, started 3 ms, …)`."""
    if wake is None:
        return ""
    whole = duration(wake["total"]) if wake["total"] is not None else "going on"
    each = ", ".join(f"{name} {duration(seconds)}" for name, seconds in wake["parts"].items())
    return f"{whole} ({each})" if parts else whole


def duration(seconds: float) -> str:
    """Two figures that matter: `3 ms`, `1.2 s`, `4m10s`, `2h5m`, `3d4h`."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = int(seconds)
    for (big, many), (small, few) in ((("d", 86400), ("h", 3600)), (("h", 3600), ("m", 60)), (("m", 60), ("s", 1))):
        if whole >= many:
            return f"{whole // many}{big}{whole % many // few}{small}"
    return f"{whole}s"


def _next(deadline: Mapping[str, Any] | None, now: datetime) -> str:
    if deadline is None:
        return ""
    left = max(0.0, (_moment(deadline["at"]) - now).total_seconds())
    return f"{EVENTS.get(deadline['event'], deadline['event'])} in {duration(left)}"


def _count(value: int | None) -> str:
    return "?" if value is None else str(value)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


CLUSTER_COLUMNS = ("NAME", "STATE", "TARGET", "READY", "SINCE", "WHY")
WIDTHS = (20, 22, 24, 7, 7)
"""Of a line's columns; a line cannot know the next one's."""


def cluster_table(services: Sequence[Mapping[str, Any]], namespaces: bool, now: datetime) -> Table:
    """One row a service; `namespaces`: with the namespace of each."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for column in _columns(namespaces):
        drawn.add_column(column, overflow="fold" if column == "WHY" else "ellipsis")
    for service in services:
        cells = _cells(service, namespaces, now)
        at, colour = 2 if namespaces else 1, COLOURS.get(service["state"], "white")
        drawn.add_row(*(cell(text, colour if column == at else "") for column, text in enumerate(cells)))
    return drawn


class Lines:
    """A header, and then a line for each change."""

    def __init__(self, namespaces: bool) -> None:
        self._namespaces, self._begun = namespaces, False

    def of(self, service: Mapping[str, Any], now: datetime) -> list[str]:
        """What to print for this change."""
        wanted = [_cells(service, self._namespaces, now)]
        if not self._begun:
            wanted.insert(0, list(_columns(self._namespaces)))
        self._begun = True
        return [self._line(cells) for cells in wanted]

    def _line(self, cells: Sequence[str]) -> str:
        widths = (20, *WIDTHS) if self._namespaces else WIDTHS
        return "  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=False)), cells[-1]]).rstrip()


def _columns(namespaces: bool) -> tuple[str, ...]:
    return ("NAMESPACE", *CLUSTER_COLUMNS) if namespaces else CLUSTER_COLUMNS


def _cells(service: Mapping[str, Any], namespaces: bool, now: datetime) -> list[str]:
    from reconciler.cluster_client.status import why

    since = service["since"]
    cells = [
        service["name"].rpartition("/")[2],
        service["state"] + (" (paused)" if service["paused"] else ""),
        service["target"],
        service["ready"],
        duration(max(0.0, (now - datetime.fromisoformat(since)).total_seconds())) if since else "",
        why(service),
    ]
    return [service["namespace"], *cells] if namespaces else cells
