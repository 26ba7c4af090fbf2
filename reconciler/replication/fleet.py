"""The replicas, Envoys and holders that a leader knows, and whether they allow putting services to sleep. No I/O.

A member that disconnected may still act on the last message it received. So it counts as missing, and nothing is put
to sleep, until it is back, has ended for certain, or, if it is an Envoy or a holder, has been gone for
`forget_seconds`. A replica that is listed but never connected is missing as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from reconciler.core.reasons import Reason, Unknown
from reconciler.ports.clock import Clock
from reconciler.replication.messages import Fleet, Report

FORGET_SECONDS = 300.0
"""Time after which a disconnected Envoy or holder is no longer missing."""
RETURN_SECONDS = 45.0
"""Time that a leader without knowledge of any Envoy waits for Envoys; Envoy reconnects within 30 s."""


class Members(Protocol):
    """The members that should exist, replicas or proxies, and those that have ended."""

    def names(self) -> frozenset[str]:
        """Return the members that should exist."""

    def ended(self, name: str, /) -> bool:
        """Return whether a member that is disconnected has certainly ended."""


class NoMembers:
    """A list without members, of which none is known to have ended."""

    def names(self) -> frozenset[str]:
        return frozenset()

    def ended(self, name: str) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class ReplicaContext:
    """This replica's identity, environment and time limits."""

    me: str
    """IP address of this replica."""
    replicas: Members
    """The replicas, by IP address."""
    valid: Callable[[], bool]
    """True while this replica holds the Lease."""
    clock: Clock
    """Its monotonic seconds include the time that the machine was suspended."""
    settle_seconds: float
    """Time during which a new leader puts nothing to sleep."""
    proxies: Members = field(default_factory=NoMembers)
    """The proxy's pods, which are Envoys and holders of the same name."""
    forget_seconds: float = FORGET_SECONDS
    return_seconds: float = RETURN_SECONDS


class Presence:
    """Connected members by replica, and members that disconnected and may return.

    A member that is connected to any replica is not away.
    """

    def __init__(self, ticks: Callable[[], float], forget_seconds: float, members: Members) -> None:
        self._ticks, self._forget_seconds, self._members = ticks, forget_seconds, members
        self._at: dict[str, frozenset[str]] = {}
        self._away: dict[str, float] = {}
        self.connected: frozenset[str] = frozenset()

    def set_connected(self, replica: str, names: Iterable[str]) -> None:
        """Record that exactly these members are connected to the replica."""
        self._at[replica] = frozenset(names)
        before, self.connected = self.connected, frozenset().union(*self._at.values())
        self._away.update(dict.fromkeys(before - self.connected, self._ticks()))
        for name in self.connected & self._away.keys():
            del self._away[name]

    def remember(self, names: Iterable[str]) -> None:
        """Record members that an earlier leader knew."""
        now = self._ticks()
        self._away.update({name: now for name in names if name not in self.connected})

    def forget(self) -> bool:
        """Drop the members that have ended or have been away for too long. Return True if there were any."""
        now, before = self._ticks(), len(self._away)
        missed = {name: at for name, at in self._away.items() if now - at < self._forget_seconds}
        self._away = {name: at for name, at in missed.items() if not self._members.ended(name)}
        return len(self._away) < before

    def where(self) -> dict[str, str]:
        """Return the replica of each connected member."""
        return {name: replica for replica, names in self._at.items() for name in names}

    @property
    def away(self) -> frozenset[str]:
        return frozenset(self._away)

    @property
    def known(self) -> frozenset[str]:
        return self.connected | self._away.keys()


@dataclass(slots=True)
class FollowerState:
    """One follower as the leader knows it."""

    connected: bool = True
    reports: dict[str, Report] = field(default_factory=dict)
    in_force_since: dict[str, float] = field(default_factory=dict)
    """By service, the time at which the version of the latest report took effect (seconds since the epoch)."""
    faults: dict[str, str] = field(default_factory=dict)
    """By service, the error with which the follower's Envoys reject it."""

    def add_report(self, report: Report, now: float) -> None:
        """Record a report; remember since when its version is in force."""
        before = self.reports.get(report.service)
        self.reports[report.service] = report
        if not before or before.version != report.version or not before.in_force:
            self.in_force_since[report.service] = now


class FleetLedger:
    """The members that the leader of one term knows; `memory` are those that the leader before it knew."""

    def __init__(self, context: ReplicaContext, since: float, memory: Fleet) -> None:
        """Start a term that began at `since`, in `ticks`."""
        self._context = context
        self.followers: dict[str, FollowerState] = {}
        self.envoys = Presence(context.clock.ticks, context.forget_seconds, context.proxies)
        self.holders = Presence(context.clock.ticks, context.forget_seconds, context.proxies)
        self._stats: dict[str, Mapping[str, str]] = {}
        """By replica, the addresses of the statistics of its connected Envoys."""
        self._last_stats: dict[str, str] = dict(memory.envoys)
        """The last known addresses of disconnected Envoys."""
        self.envoys.remember(memory.envoys)
        self.holders.remember(memory.holders)
        remembers = bool(memory.envoys or memory.holders)
        wait = context.settle_seconds if remembers else max(context.settle_seconds, context.return_seconds)
        self._settled_at = since + wait

    def set_connected(self, replica: str, fleet: Fleet) -> bool:
        """Record the Envoys and holders connected to a replica. Return True if that changes the set of members."""
        before = self._present()
        self._last_stats |= {node: at for node, at in self._stats.get(replica, {}).items() if node not in fleet.envoys}
        self._stats[replica] = fleet.envoys
        self.envoys.set_connected(replica, fleet.envoys)
        self.holders.set_connected(replica, fleet.holders)
        return before != self._present()

    def _present(self) -> tuple[frozenset[str], ...]:
        return self.envoys.connected, self.envoys.away, self.holders.connected, self.holders.away

    def fleet(self) -> Fleet:
        """Return all known members, connected or away."""
        envoys = {node: self._stats_of(node) for node in sorted(self.envoys.known)}
        return Fleet(envoys, tuple(sorted(self.holders.known)))

    def stats(self) -> Mapping[str, str]:
        """Return, by node id, the address of the statistics of each connected Envoy that announces one."""
        return {node: at for node in self.envoys.connected if (at := self._stats_of(node))}

    def _stats_of(self, node: str) -> str:
        """Return an Envoy's address. This replica's own knowledge comes first, so that no other can override it."""
        own = self._stats.get(self._context.me, {})
        sources = (own, *self._stats.values(), self._last_stats)
        return next((envoys[node] for envoys in sources if node in envoys), "")

    def connected(self) -> frozenset[str]:
        """Return the connected followers."""
        return frozenset(name for name, follower in self.followers.items() if follower.connected)

    def unknown(self) -> Unknown | None:
        """Return why the state of the replicas does not allow putting anything to sleep, or None."""
        if (left := self._settled_at - self._context.clock.ticks()) > 0:
            return Unknown(Reason.LEADER_NEW, f"this replica has been leading for a short time; {left:.0f} s left")
        listed = self._context.replicas.names()
        if self._context.me not in listed:
            return Unknown(Reason.REPLICAS_UNKNOWN, "the list of replicas is not known")
        missing = (listed | self.followers.keys()) - self.connected() - {self._context.me}
        if missing:
            return Unknown(Reason.REPLICA_MISSING, f"replica {', '.join(sorted(missing))} is not connected")
        return None

    def forget(self) -> bool:
        """Drop the members that are gone for good. Return True if there were any."""
        ended = self._context.replicas.ended
        gone = [name for name, follower in self.followers.items() if not follower.connected and ended(name)]
        for name in gone:
            del self.followers[name]
        changed = bool(gone) | self.envoys.forget() | self.holders.forget()
        if changed:
            self._last_stats = {node: at for node, at in self._last_stats.items() if node in self.envoys.known}
        return changed
