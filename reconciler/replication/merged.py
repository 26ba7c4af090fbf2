"""All replicas as one: what the leader's engine is told of routes and holders, and when nothing may be put to sleep.

It stands between the engine and this replica's own router and holders, and is the engine's `Router`, `Holders` and
`Replicas`. While this replica follows, the engine is told of its own Envoys and holders only, and so is the leader.
A replica without any Envoy (or holder) has nothing to wait for there; that there is one somewhere is asked of all.
No I/O here: `server` and `client` carry words and reports. A replica that vanished, or that should be there and is
not, makes all usage unknown, which keeps services awake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from reconciler.core.reasons import Reason, Unknown
from reconciler.core.record import Record
from reconciler.ports.holders import Holders, HoldOrder, HoldStatus
from reconciler.ports.replicas import Connected, Standing
from reconciler.ports.router import Router, RouteState
from reconciler.replication.ledger import Follower, Ledger, Terms
from reconciler.replication.sums import held_by_all, route_of_all
from reconciler.replication.wire import MOST_REASON, Fleet, Report, Word


class Engine(Protocol):
    """What is told of the world, and asked what came of a word."""

    def routed(self, state: RouteState, /) -> None: ...

    def held(self, held: HoldStatus, /) -> None: ...

    def standing(self, name: str) -> Standing | None: ...


class Merged:
    """One replica's, in either role; it follows at first."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self.leads = False
        self.fleet = Fleet()
        """This replica's own Envoys and holders."""
        self.memory = Fleet()
        """Whom the leader last said that there are."""
        self.ledger = Ledger(terms, 0.0, Fleet())
        """As leader."""
        self._version = 0
        self.words: dict[str, Word] = {}
        """As leader: what was said; as follower: what was heard."""
        self._routes: dict[str, RouteState] = {}
        self._helds: dict[str, HoldStatus] = {}
        self._routed_at: dict[str, float] = {}
        """When a service's route changed: since then a replica without Envoys has it in force."""
        self._ordered_at: dict[str, float] = {}
        """The same, of orders and holders."""
        self._told_route: dict[str, RouteState] = {}
        self._told_held: dict[str, HoldStatus] = {}
        self.on_word: Callable[[str], None] = lambda service: None
        """The leader's word on a service is new: followers are to be told."""
        self.on_report: Callable[[str], None] = lambda service: None
        """What has come of a service is new: the leader is to be told."""
        self.on_fleet: list[Callable[[], None]] = []
        """Who is connected has changed."""
        self.own_faults: Mapping[str, str] = {}
        """What this replica's own Envoys reject of services, by service."""
        self.on_faults: list[Callable[[], None]] = []
        """What Envoys reject has changed."""

    def attach(self, engine: Engine, own_router: Router, own_holders: Holders) -> None:
        """Must come before anything else."""
        self._engine, self._own_router, self._own_holders = engine, own_router, own_holders

    # The engine's ports

    def route(self, service: str, endpoints: tuple[str, ...], held: bool) -> None:
        self._routed_at[service] = self._terms.now()
        self._told_route.pop(service, None)  # whatever is said next is news
        self._own_router.route(service, endpoints, held)
        self._tell_route(service)

    def order(self, service: str, order: HoldOrder | None) -> None:
        self._told_held.pop(service, None)
        if order is None:
            for known in (self._routes, self._helds, self._routed_at, self._ordered_at, self._told_route):
                known.pop(service, None)
            self._own_holders.order(service, None)
        else:
            self._ordered_at[service] = self._terms.now()
            self._own_holders.order(service, order)
            self._tell_held(service)

    def envoys(self) -> frozenset[str]:
        """Node ids of all that must be in a sample for it to be complete."""
        return self.ledger.envoys.known if self.leads else frozenset(self.fleet.envoys)

    def away(self) -> frozenset[str]:
        """Those of them that are connected nowhere."""
        return self.ledger.envoys.away if self.leads else frozenset()

    def share(self, service: str, record: Record | None, fence: bool, cause: str = "") -> RouteState | None:
        self._version += 1
        if record is None:
            self.words.pop(service, None)
        else:
            self.words[service] = Word(service, self._version, record, fence, cause)
        self.on_word(service)
        if record is None or not self.ledger.followers:
            return None
        state = self._told_route[service] = self._route(service)
        return state

    def unknown(self) -> Unknown | None:
        if not self.leads or not self._terms.valid():
            return Unknown(Reason.NOT_LEADER, "this replica does not lead")
        return self.ledger.unknown()

    def forget(self) -> None:
        """As leader: count those no longer that are gone for good. Call it regularly."""
        if self.leads and self._terms.valid() and self.ledger.forget():
            for told in self.on_fleet:  # the next leader would wait for them again
                told()
            self._tell_all()

    def faults(self) -> Mapping[str, str]:
        """Return what Envoys reject of services, by service; as leader, of the Envoys of all replicas."""
        followers = self.ledger.followers.values() if self.leads else ()
        theirs = {
            name: message for follower in followers if follower.connected for name, message in follower.faults.items()
        }
        return {**theirs, **self.own_faults}

    def stats(self) -> Mapping[str, str]:
        """Where the statistics of each connected Envoy can be read, by node id; of those that said so."""
        return self.ledger.stats()

    def connected(self) -> Connected:
        """Who is connected, as far as is known here: the leader knows of all."""
        if self.leads:
            return Connected(self.ledger.envoys.where(), self.ledger.holders.where())
        me = self._terms.me
        return Connected(dict.fromkeys(self.fleet.envoys, me), dict.fromkeys(self.fleet.holders, me))

    # This replica's own router and holders

    def routed(self, state: RouteState) -> None:
        """This replica's router says how far a route has got."""
        self._routes[state.service] = state
        self._tell_route(state.service)

    def held(self, held: HoldStatus) -> None:
        """This replica's holders say who waits."""
        self._helds[held.service] = held
        self._tell_held(held.service)

    def found(self, faults: Mapping[str, str]) -> None:
        """Take what this replica's own Envoys reject of services, by service."""
        self.own_faults = faults
        self._tell_faults()

    def found_by(self, replica: str, follower: Follower, faults: dict[str, str]) -> None:
        """Take what the Envoys of a follower reject."""
        if self.ledger.followers.get(replica) is follower:
            follower.faults = faults
            self._tell_faults()

    def _tell_faults(self) -> None:
        for told in self.on_faults:
            told()

    def came_or_went(self, envoys: Mapping[str, str], connected_holders: Iterable[str]) -> None:
        """All Envoys (with the address of their statistics) and holders that are connected here; said before what they
        report."""
        fleet = Fleet(dict(envoys), tuple(sorted(connected_holders)))
        if fleet == self.fleet:
            return
        self.fleet = fleet
        self._counts(self._terms.me, fleet)

    # Roles

    def lead(self, since: float) -> None:
        """This replica has the lease since then (`ticks`); comes before the engine is told to lead."""
        self.leads = True
        self.words.clear()
        self.ledger = Ledger(self._terms, since, self.memory)
        self._counts(self._terms.me, self.fleet)
        self._tell_all()
        self._tell_faults()

    def follow(self) -> None:
        """This replica does not have the lease; comes before the engine is told to follow."""
        if self.leads:
            self.memory = self.ledger.fleet()
        self.leads = False
        self.words.clear()
        self._tell_all()

    # As leader: what followers say

    def joined(self, replica: str, fleet: Fleet) -> Follower:
        """A follower's stream begins; it takes the place of its old one."""
        follower = self.ledger.followers[replica] = Follower()
        self._counts(replica, fleet)
        self._tell_all()
        return follower

    def left(self, replica: str, follower: Follower) -> None:
        """That stream ended."""
        if self.leads and self.ledger.followers.get(replica) is follower:
            follower.connected = False
            follower.reports.clear()
            self._counts(replica, Fleet())
            self._tell_all()
            self._tell_faults()

    def has(self, replica: str, follower: Follower, fleet: Fleet) -> None:
        """A follower's Envoys and holders are these now."""
        if self.ledger.followers.get(replica) is follower:
            self._counts(replica, fleet)

    def reported(self, replica: str, follower: Follower, report: Report) -> None:
        """Take a follower's report on a word; ignore one on a word that was not given."""
        if report.service not in self.words or report.version > self._version:
            return
        if self.ledger.followers.get(replica) is follower:
            follower.says(report, self._terms.now())
            self._tell_held(report.service)
            self._tell_route(report.service)

    # As follower: what the leader says

    def heard(self, word: Word) -> None:
        """Comes before the engine adopts it; nothing that was in force before is by this version, until it has."""
        self.words[word.service] = word
        self.on_report(word.service)

    def waited_for(self, service: str) -> bool:
        """Whether somebody waits for it here."""
        return bool(self._own_held(service).held)

    def report(self, service: str) -> Report | None:
        """What this replica has come to with the word that it heard last."""
        word, standing = self.words.get(service), self._engine.standing(service)
        if word is None or standing is None:
            return None
        held = self._own_held(service)
        return Report(
            service,
            word.version,
            standing.in_force,
            standing.waiting_for[:MOST_REASON],
            held.held,
            held.relayed,
            held.released,
            held.refused,
            held.gone,
            held.held_since,
            held.peer,
            held.first_byte_at,
            dict(held.refused_by),
            held.via,
        )

    # Inside

    def _counts(self, replica: str, fleet: Fleet) -> None:
        news = self.ledger.counts(replica, fleet) if self.leads else True
        for told in self.on_fleet:
            told()
        if news:
            self._tell_all()

    def _tell_all(self) -> None:
        for service in list(self._routed_at):
            self._tell_held(service)
            self._tell_route(service)

    def _tell_route(self, service: str) -> None:
        """Tell the engine, if it is news; and the leader."""
        if service not in self._routed_at:
            return
        state = self._route(service)
        if self._told_route.get(service) != state:
            self._told_route[service] = state
            self._engine.routed(state)
        if not self.leads:
            self.on_report(service)

    def _tell_held(self, service: str) -> None:
        if service not in self._ordered_at:
            return
        held = self._held(service)
        if self._told_held.get(service) != held:
            self._told_held[service] = held
            self._engine.held(held)
        if not self.leads:
            self.on_report(service)

    def _own_route(self, service: str) -> RouteState:
        if not self.fleet.envoys:
            return RouteState(service, self._routed_at.get(service), "")
        return self._routes.get(service) or RouteState(service, None, "an Envoy")

    def _own_held(self, service: str) -> HoldStatus:
        if not self.fleet.holders:
            return HoldStatus(service, 0, 0, self._ordered_at.get(service))
        return self._helds.get(service) or HoldStatus(service, None, None)

    def _route(self, service: str) -> RouteState:
        mine = self._own_route(service)
        if not self.leads:
            return mine
        known, away = self.ledger.envoys.known, self.ledger.envoys.away
        if not known or away:
            return RouteState(service, None, f"Envoy {', '.join(sorted(away))}" if away else "no Envoy is connected")
        word, followers = self.words.get(service), self.ledger.followers
        if not followers or word is None:
            return mine
        return route_of_all(mine, {name: one.said(service) for name, one in followers.items()}, word.version)

    def _held(self, service: str) -> HoldStatus:
        mine = self._own_held(service)
        if not self.leads:
            return mine
        reports = [follower.reports.get(service) for follower in self.ledger.followers.values()]
        complete = bool(self.ledger.holders.connected) and not self.ledger.holders.away
        return mine if complete and not reports else held_by_all(mine, reports, complete)
