"""Aggregation of one service's observations: those of this replica and the reports of its followers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from reconciler.ports.holders import HoldStatus, added
from reconciler.ports.router import RouteState
from reconciler.replication.messages import Report

Reports = Sequence[Report | None]
"""One report for each follower; None for a follower that is missing or has not reported."""


def total_held(mine: HoldStatus, reports: Reports, complete: bool) -> HoldStatus:
    """Return the held and relayed connections of all replicas.

    If a report is missing, the counts are unknown; but held connections that are known to exist are counted.
    """
    known = [report for report in reports if report is not None]
    complete = complete and len(known) == len(reports) and mine.held is not None and mine.relayed is not None
    complete = complete and all(report.held is not None and report.relayed is not None for report in known)
    parts: list[HoldStatus | Report] = [mine, *known]
    held = sum(part.held or 0 for part in parts)
    first = min((part for part in parts if part.held_since), key=_wait_order, default=None)
    return replace(
        mine,
        held=held if complete or held else None,
        relayed=sum(part.relayed or 0 for part in parts) if complete else None,
        released=sum(part.released for part in parts),
        refused=sum(part.refused for part in parts),
        gone=sum(part.gone for part in parts),
        held_since=first.held_since if first else None,
        peer=first.peer if first else None,
        via=first.via if first else None,
        first_byte_at=max((part.first_byte_at for part in parts if part.first_byte_at), default=None),
        refused_by=added(part.refused_by for part in parts),
    )


def _wait_order(part: HoldStatus | Report) -> tuple[bool, float]:
    """Return a sort key: first the oldest wait that continues, then the latest wait that has ended."""
    since = part.held_since or 0.0
    return (False, since) if part.held else (True, -since)


def slowest_route(mine: RouteState, reports: Mapping[str, tuple[Report | None, float]], version: int) -> RouteState:
    """Return the route as acknowledged when the last replica had applied `version`, or with a replica that has not.

    `reports` has, by replica, the latest report and the time at which its version took effect.
    """
    if mine.acked_at is None:
        return mine
    at = mine.acked_at
    for replica, (report, since) in reports.items():
        if report is None or report.version != version:
            return replace(mine, acked_at=None, waiting_for=f"replica {replica}")
        if not report.in_force:
            return replace(mine, acked_at=None, waiting_for=f"{report.waiting_for or '?'} (of replica {replica})")
        at = max(at, since)
    return replace(mine, acked_at=at)
