"""Tables and lines of services, on one machine and in a cluster; durations for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from reconciler.cli.output import cell

COLOURS = {"ScaledToZero": "blue", "Waking": "yellow", "Active": "green", "Idle": "cyan", "Draining": "magenta"}
COLUMNS = ("NAME", "STATE", "SINCE", "WHY", "HELD", "RELAYED", "REQUESTS", "NEXT", "LAST WAKE")
FIGURES = ("HELD", "RELAYED", "REQUESTS")
OPTIONAL_COLUMNS = ("RELAYED", "REQUESTS")
WIDTH_FOR_ALL, WIDTH_FOR_PARTS = 100, 150
"""Widths of a terminal that shows all columns, and also the parts of the last wake; `explain` shows both."""
EVENTS = {"IdleElapsed": "sleeps", "WakeTimedOut": "wake times out", "DrainTimedOut": "drain times out"}


def table(services: Sequence[Mapping[str, Any]], width: int) -> Table:
    """Return a table of services on one machine, for a terminal of this width."""
    now = datetime.now(UTC)
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    shown = [column for column in COLUMNS if width >= WIDTH_FOR_ALL or column not in OPTIONAL_COLUMNS]
    for column in shown:
        folds = column in ("WHY", "NEXT", "LAST WAKE")
        drawn.add_column(column, justify="right" if column in FIGURES else "left", no_wrap=not folds)
    for service in services:
        cells = dict(zip(COLUMNS, _row(service, now, parts=width >= WIDTH_FOR_PARTS), strict=True))
        colour = COLOURS.get(service["state"], "white")
        drawn.add_row(*(cell(cells[column], colour if column == "STATE" else "") for column in shown))
    return drawn


def line(service: Mapping[str, Any]) -> str:
    """Return the line to write when a service changes: `echo  Idle  no traffic`."""
    return f"{service['name']:<20}  {_state(service):<21}  {_why(service)}"


def complaints(overview: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each problem of one machine that is not about one service."""
    yield from (overview.get("listens") or {}).get("busy", ())
    envoys = [envoy for envoy in overview["envoys"] if not envoy.get("away")]
    for envoy in envoys:
        if nack := envoy["lastNack"]:
            yield f"Envoy {envoy['id']} rejected a configuration at {nack['at']}: {nack['message']}"
    if not envoys:
        yield "no Envoy is connected: clients cannot reach services, and no service sleeps"
    if not any(holder["connected"] for holder in overview["holders"]):
        yield "no holder is connected: connections cannot wake services, and no service sleeps"
    file = overview.get("file") or {}
    if problems := file.get("problems"):
        effect = "is rejected, and its last valid content stays in force" if file["rejected"] else "is applied in part"
        more = f" (and {len(problems) - 1} more; see `zenvoy check {file['path']}`)" if len(problems) > 1 else ""
        yield f"the services file {effect}: {problems[0]}{more}"


def _row(service: Mapping[str, Any], now: datetime, parts: bool) -> list[str]:
    return [
        service["name"],
        _state(service),
        age(service["since"], now) if service["since"] else "",
        _why(service),
        _count(service["held"]),
        _count(service["relayed"]),
        str(service["requests"]),
        next_event(service["deadline"], now) if service["deadline"] else "",
        last_wake(service, parts),
    ]


def _why(service: Mapping[str, Any]) -> str:
    """Return the reason for the state, and the reason why usage is unknown if that keeps the service awake."""
    reason: str = service["stalled"] or service["reason"]
    traffic = service["traffic"]
    doubtful = service["state"] == "Active" and traffic and traffic["usage"] == "unknown"
    if rejected := service.get("rejected"):
        return f"Envoy rejects a part of it: {rejected}; {reason}"
    return reason if not doubtful or traffic["reason"] in reason else f"{reason}; kept awake: {traffic['reason']}"


def last_wake(service: Mapping[str, Any], parts: bool = True) -> str:
    """Return the duration or the outcome of the last wake, with its parts: `213 ms (signal 1 ms, started 3 ms, …)`."""
    wake = service["lastWake"]
    if wake is None:
        return ""
    whole = duration(wake["total"]) if wake["total"] is not None else _unfinished_wake(service)
    each = ", ".join(f"{name} {duration(seconds)}" for name, seconds in wake["parts"].items())
    return f"{whole} ({each}){_before_ready(wake)}" if parts else whole


def _before_ready(wake: Mapping[str, Any]) -> str:
    """Return how much a wake preceded Kubernetes' readiness; empty if Kubernetes ended it."""
    if (saved := wake.get("savedSeconds")) is not None:
        return f", {duration(saved)} before Kubernetes called it ready"
    return ", and Kubernetes has not called it ready yet" if wake.get("early") and wake["readyAt"] else ""


def _unfinished_wake(service: Mapping[str, Any]) -> str:
    """Return the outcome of a wake that has served no client yet."""
    if service["state"] == "Waking" or (service["relayed"] and service["lastWake"]["readyAt"]):
        return "in progress"
    return "abandoned" if service["lastWake"]["readyAt"] else "failed"


def duration(seconds: float) -> str:
    """Return a duration with two or three significant figures: `3 ms`, `1.2 s`, `4m10s`, `2h5m`, `3d4h`."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = int(seconds)
    for (big, many), (small, few) in ((("d", 86400), ("h", 3600)), (("h", 3600), ("m", 60)), (("m", 60), ("s", 1))):
        if whole >= many:
            return f"{whole // many}{big}{whole % many // few}{small}"
    return f"{whole}s"


def age(since: str, now: datetime) -> str:
    """Return the time since a moment."""
    return duration(max(0.0, (now - datetime.fromisoformat(since)).total_seconds()))


def next_event(deadline: Mapping[str, Any], now: datetime) -> str:
    """Return what happens at a deadline: `sleeps in 30 s`."""
    left = (datetime.fromisoformat(deadline["at"]) - now).total_seconds()
    return f"{EVENTS.get(deadline['event'], deadline['event'])} in {duration(max(0.0, left))}"


def _state(service: Mapping[str, Any]) -> str:
    return str(service["state"]) + (" (paused)" if service["paused"] else "")


def _count(value: int | None) -> str:
    return "?" if value is None else str(value)


CLUSTER_COLUMNS = ("NAME", "STATE", "TARGET", "READY", "SINCE", "WHY")
LINE_WIDTHS = (20, 22, 24, 7, 7)
"""Widths of the columns of a line, whose successors are not known yet."""


def cluster_table(services: Sequence[Mapping[str, Any]], namespaces: bool, now: datetime) -> Table:
    """Return a table of ScaledServices; `namespaces`: with their namespaces."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for column in _columns(namespaces):
        drawn.add_column(column, overflow="fold" if column == "WHY" else "ellipsis")
    for service in services:
        cells = _cells(service, namespaces, now)
        at, colour = 2 if namespaces else 1, COLOURS.get(service["state"], "white")
        drawn.add_row(*(cell(text, colour if column == at else "") for column, text in enumerate(cells)))
    return drawn


def cluster_lines(service: Mapping[str, Any], namespaces: bool, now: datetime, header: bool) -> list[str]:
    """Return the line to write when a ScaledService changes, after a header if it is the first."""
    rows = [*([_columns(namespaces)] if header else []), _cells(service, namespaces, now)]
    widths = (20, *LINE_WIDTHS) if namespaces else LINE_WIDTHS
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=False)), cells[-1]]).rstrip()
        for cells in rows
    ]


def _columns(namespaces: bool) -> tuple[str, ...]:
    return ("NAMESPACE", *CLUSTER_COLUMNS) if namespaces else CLUSTER_COLUMNS


def _cells(service: Mapping[str, Any], namespaces: bool, now: datetime) -> list[str]:
    from reconciler.cluster_client.status import shown_reason

    cells = [
        service["name"].rpartition("/")[2],
        _state(service),
        service["target"],
        service["ready"],
        age(service["since"], now) if service["since"] else "",
        shown_reason(service),
    ]
    return [service["namespace"], *cells] if namespaces else cells
