"""What the leader knows of the other replicas: who follows, their Envoys and holders, and what that forbids. No I/O.

A follower that vanished counts as missing until it is back, or its pod is gone for a while: its Envoys may go on by
what it told them. One that should be there and never came is missing as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from reconciler.core.reasons import Reason, Unknown
from reconciler.replication.presence import Presence
from reconciler.replication.wire import Fleet, Report

FORGET_SECONDS = 300.0
"""How long an Envoy, a holder, or a replica whose pod is gone still counts."""
RETURN_SECONDS = 45.0
"""How long a leader that was told of no Envoys waits for them: Envoy tries again every 30 s at the latest."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Who we are, and for how long what counts; `me` is this replica's IP address, `replicas` are all that should be
    there, `valid` says whether the lease is ours at this very moment."""

    me: str
    replicas: Callable[[], frozenset[str]]
    valid: Callable[[], bool]
    now: Callable[[], float]
    """Seconds since the epoch."""
    ticks: Callable[[], float]
    """Seconds that nobody can set, a suspended machine's included."""
    settle_seconds: float
    """How long a new leader puts nothing to sleep."""
    ended: Callable[[str], bool] = lambda name: False
    """Whether an Envoy or a holder that is away has ended for sure, so that nobody need wait for it."""
    forget_seconds: float = FORGET_SECONDS
    return_seconds: float = RETURN_SECONDS


@dataclass(slots=True)
class Follower:
    """One other replica."""

    connected: bool = True
    unlisted_since: float | None = None
    reports: dict[str, Report] = field(default_factory=dict)
    in_force_since: dict[str, float] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    """What its Envoys reject of services, by service."""

    def says(self, report: Report, now: float) -> None:
        before = self.reports.get(report.service)
        self.reports[report.service] = report
        if not before or before.version != report.version or not before.in_force:
            self.in_force_since[report.service] = now

    def said(self, service: str) -> tuple[Report | None, float]:
        """Its latest report, and since when (seconds since the epoch) that version was in force, if it is."""
        return self.reports.get(service), self.in_force_since.get(service, 0.0)


class Ledger:
    """One reign's; `memory` is whom the leader before knew."""

    def __init__(self, terms: Terms, since: float, memory: Fleet) -> None:
        """`since`: when the lease became ours, in `ticks`."""
        self._terms = terms
        self.followers: dict[str, Follower] = {}
        self.envoys = Presence(terms.ticks, terms.forget_seconds, terms.ended)
        self.holders = Presence(terms.ticks, terms.forget_seconds, terms.ended)
        self._stats: dict[str, Mapping[str, str]] = {}
        """By replica, where the statistics of the Envoys that are connected to it can be read."""
        self._last_stats: dict[str, str] = dict(memory.envoys)
        """The same of Envoys that are connected nowhere."""
        self.envoys.remember(memory.envoys)
        self.holders.remember(memory.holders)
        remembers = bool(memory.envoys or memory.holders)
        wait = terms.settle_seconds if remembers else max(terms.settle_seconds, terms.return_seconds)
        self._calm_at = since + wait

    def counts(self, replica: str, fleet: Fleet) -> bool:
        """These Envoys and holders are connected to that replica; whether that changes who is where."""
        before = self._present()
        self._last_stats |= {node: at for node, at in self._stats.get(replica, {}).items() if node not in fleet.envoys}
        self._stats[replica] = fleet.envoys
        self.envoys.says(replica, fleet.envoys)
        self.holders.says(replica, fleet.holders)
        return before != self._present()

    def _present(self) -> tuple[frozenset[str], ...]:
        return self.envoys.connected, self.envoys.away, self.holders.connected, self.holders.away

    def fleet(self) -> Fleet:
        """All that are known."""
        envoys = {node: self._stats_of(node) for node in sorted(self.envoys.known)}
        return Fleet(envoys, tuple(sorted(self.holders.known)))

    def stats(self) -> Mapping[str, str]:
        """Where the statistics of each connected Envoy can be read, by node id; of those that said so."""
        return {node: at for node in self.envoys.connected if (at := self._stats_of(node))}

    def _stats_of(self, node: str) -> str:
        """Return what the replica says that the Envoy is connected to: this one first, so that none can overrule it."""
        own = self._stats.get(self._terms.me, {})
        told = (own, *self._stats.values(), self._last_stats)
        return next((envoys[node] for envoys in told if node in envoys), "")

    def connected(self) -> frozenset[str]:
        """The followers that are."""
        return frozenset(name for name, follower in self.followers.items() if follower.connected)

    def unknown(self) -> Unknown | None:
        """Why nothing may be put to sleep, as far as replicas are concerned."""
        if (left := self._calm_at - self._terms.ticks()) > 0:
            return Unknown(Reason.LEADER_NEW, f"this replica leads for a short time only; {left:.0f} s to go")
        listed = self._terms.replicas()
        if self._terms.me not in listed:
            return Unknown(Reason.REPLICAS_UNKNOWN, "which replicas there are is not known")
        missing = (listed | self.followers.keys()) - self.connected() - {self._terms.me}
        if missing:
            return Unknown(Reason.REPLICA_MISSING, f"replica {', '.join(sorted(missing))} is not connected")
        return None

    def forget(self) -> bool:
        """Count those no longer who are gone for good; whether there were any."""
        now, listed = self._terms.ticks(), self._terms.replicas()
        gone = []
        for name, follower in self.followers.items():
            if follower.connected or name in listed or self._terms.me not in listed:
                follower.unlisted_since = None
            elif follower.unlisted_since is None:
                follower.unlisted_since = now
            elif now - follower.unlisted_since >= self._terms.forget_seconds:
                gone.append(name)
        for name in gone:
            del self.followers[name]
        changed = bool(gone) | self.envoys.forget() | self.holders.forget()
        if changed:
            self._last_stats = {node: at for node, at in self._last_stats.items() if node in self.envoys.known}
        return changed
