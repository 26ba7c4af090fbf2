"""The replicas, Envoys and holders that this replica knows, and whether they allow putting services to sleep. No I/O.

A follower knows its own Envoys and holders only; a leader, in its ledger, those of every replica.

A member that disconnected may still act on the last message it received. So it counts as missing, and nothing is put
to sleep, until it is back, has ended for certain, or, if it is an Envoy or a holder, has been gone for
`forget_seconds`. A replica that is listed but never connected is missing as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from reconciler.core.reasons import Reason, Unknown
from reconciler.ports.clock import FORGET_SECONDS, Clock
from reconciler.ports.replicas import Connected
from reconciler.replication.messages import Fleet, Report

RETURN_SECONDS = 45.0
"""Time that a leader without knowledge of any Envoy waits for Envoys; Envoy reconnects within 30 s."""


class Members(Protocol):
    """The members that should exist, replicas or proxies, and those that have ended."""

    def names(self) -> frozenset[str]:
        """Return the members that should exist."""

    def ended(self, name: str, /) -> bool:
        """Return whether a member that is disconnected has certainly ended."""


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
    proxies: Members | None = None
    """The proxy's pods, which are Envoys and holders of the same name; None: the end of such a pod is not observed."""
    forget_seconds: float = FORGET_SECONDS
    return_seconds: float = RETURN_SECONDS
    alone_after_seconds: float = 0.0
    """Time without a leader after which a follower continues alone; 0: as long as is safe with a Lease that lasts for
    `settle_seconds`."""


class Presence:
    """Connected Envoys or holders by replica, and those that disconnected and may return.

    A member that is connected to any replica is not away.
    """

    def __init__(self, context: ReplicaContext) -> None:
        self._context, self._ticks = context, context.clock.ticks
        self._at: dict[str, Mapping[str, str]] = {}
        """By replica, the addresses of its connected members by name."""
        self._away: dict[str, tuple[float, str]] = {}
        """The time at which a member disconnected, and its last address."""
        self.connected: frozenset[str] = frozenset()

    def set_connected(self, replica: str, members: Mapping[str, str]) -> None:
        """Record that exactly these members are connected to the replica, with their addresses by name."""
        left = {name: self.address(name) for name in self._at.get(replica, {}) if name not in members}
        self._at[replica] = members
        self.connected = frozenset().union(*self._at.values())
        self.remember(left)
        for name in self.connected & self._away.keys():
            del self._away[name]

    def remember(self, members: Mapping[str, str]) -> None:
        """Record members that were connected, with their addresses by name, unless they are connected now."""
        now = self._ticks()
        self._away |= {name: (now, address) for name, address in members.items() if name not in self.connected}

    def forget(self) -> bool:
        """Drop the members that have ended or have been away for too long. Return True if there were any."""
        now, before, proxies = self._ticks(), len(self._away), self._context.proxies
        missed = {name: away for name, away in self._away.items() if now - away[0] < self._context.forget_seconds}
        self._away = {name: away for name, away in missed.items() if not (proxies and proxies.ended(name))}
        return len(self._away) < before

    def where(self) -> dict[str, str]:
        """Return the replica of each connected member."""
        return {name: replica for replica, members in self._at.items() for name in members}

    def address(self, name: str) -> str:
        """Return a known member's address. This replica's knowledge comes first, so that no other can override it."""
        if name in self._away:
            return self._away[name][1]
        own = self._at.get(self._context.me, {})
        return next(members[name] for members in (own, *self._at.values()) if name in members)

    @property
    def away(self) -> frozenset[str]:
        return frozenset(self._away)

    @property
    def known(self) -> frozenset[str]:
        return self.connected | self._away.keys()


@dataclass(slots=True)
class FollowerState:
    """One follower as the leader knows it; `replica` is its IP address."""

    replica: str
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
        self.envoys, self.holders = Presence(context), Presence(context)
        self.envoys.remember(memory.envoys)
        self.holders.remember(dict.fromkeys(memory.holders, ""))
        remembers = bool(memory.envoys or memory.holders)
        wait = context.settle_seconds if remembers else max(context.settle_seconds, context.return_seconds)
        self._settled_at = since + wait

    def set_connected(self, replica: str, fleet: Fleet) -> bool:
        """Record the Envoys and holders connected to a replica. Return True if that changes the set of members."""
        before = self._present()
        self.envoys.set_connected(replica, fleet.envoys)
        self.holders.set_connected(replica, dict.fromkeys(fleet.holders, ""))
        return before != self._present()

    def _present(self) -> tuple[frozenset[str], ...]:
        return self.envoys.connected, self.envoys.away, self.holders.connected, self.holders.away

    def fleet(self) -> Fleet:
        """Return all known members, connected or away."""
        envoys = {node: self.envoys.address(node) for node in sorted(self.envoys.known)}
        return Fleet(envoys, tuple(sorted(self.holders.known)))

    def stats(self) -> Mapping[str, str]:
        """Return, by node id, the address of the statistics of each connected Envoy that announces one."""
        return {node: at for node in self.envoys.connected if (at := self.envoys.address(node))}

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
        return bool(gone) | self.envoys.forget() | self.holders.forget()


class Membership:
    """This replica's role, and the members that it knows in it. It starts as a follower."""

    def __init__(self, context: ReplicaContext) -> None:
        self.context = context
        self.leads = False
        self.fleet = Fleet()
        """Envoys and holders that are connected to this replica."""
        self.memory = Fleet()
        """The fleet of the last leader."""
        self.ledger = FleetLedger(context, 0.0, Fleet())
        """The fleet of this term, as leader."""
        self.on_fleet: list[Callable[[], None]] = []
        """Called when the fleet changed."""
        self.on_change: Callable[[], None] = lambda: None
        """Called after `on_fleet`, if the states of routes or held connections may have changed with the fleet."""

    def lead(self, since: float) -> None:
        """Start a term that began at `since`, in `ticks`."""
        self.leads = True
        self.ledger = FleetLedger(self.context, since, self.memory)
        self.set_connected(self.context.me, self.fleet)

    def follow(self) -> None:
        """End the term."""
        if self.leads:
            self.memory = self.ledger.fleet()
        self.leads = False

    def came_or_went(self, envoys: Mapping[str, str], holders: Iterable[str]) -> None:
        """Take all Envoys (with the addresses of their statistics) and holders connected here, before their reports."""
        fleet = Fleet(dict(envoys), tuple(sorted(holders)))
        if fleet != self.fleet:
            self.fleet = fleet
            self.set_connected(self.context.me, fleet)

    def add_follower(self, replica: str, fleet: Fleet) -> FollowerState:
        """Add a follower whose stream starts; it replaces an earlier stream of the same replica."""
        follower = self.ledger.followers[replica] = FollowerState(replica)
        self.set_connected(replica, fleet)
        self.on_change()
        return follower

    def remove_follower(self, follower: FollowerState) -> None:
        """Mark a follower whose stream ended as disconnected."""
        follower.connected = False
        follower.reports.clear()
        self.set_connected(follower.replica, Fleet())
        self.on_change()

    def set_connected(self, replica: str, fleet: Fleet) -> None:
        """Take the Envoys and holders that are connected to a replica."""
        changed = self.ledger.set_connected(replica, fleet) if self.leads else True
        self._notify_fleet()
        if changed:
            self.on_change()

    def is_current(self, follower: FollowerState) -> bool:
        """Return whether this is the latest stream of its replica."""
        return self.ledger.followers.get(follower.replica) is follower

    def forget(self) -> None:
        """Drop members that are gone for good, if this replica leads. Call it regularly."""
        if self.leads and self.context.valid() and self.ledger.forget():
            self._notify_fleet()  # the next leader would wait for them again
            self.on_change()

    def unknown(self) -> Unknown | None:
        """Return why no service may be scaled to zero now, or None if it may."""
        if not self.leads or not self.context.valid():
            return Unknown(Reason.NOT_LEADER, "this replica does not lead")
        return self.ledger.unknown()

    def envoys(self) -> frozenset[str]:
        """Return the node ids that a complete sample must have."""
        return self.ledger.envoys.known if self.leads else frozenset(self.fleet.envoys)

    def away(self) -> frozenset[str]:
        """Return those of them that are not connected to any replica."""
        return self.ledger.envoys.away if self.leads else frozenset()

    def connected(self) -> Connected:
        """Return the connected Envoys and holders: of all replicas as leader, else of this one."""
        if self.leads:
            return Connected(self.ledger.envoys.where(), self.ledger.holders.where())
        me = self.context.me
        return Connected(dict.fromkeys(self.fleet.envoys, me), dict.fromkeys(self.fleet.holders, me))

    def _notify_fleet(self) -> None:
        for notify in self.on_fleet:
            notify()
