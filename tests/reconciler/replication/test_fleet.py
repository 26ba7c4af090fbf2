"""Tests of the members that a leader misses, and of the end of that."""

from __future__ import annotations

from dataclasses import dataclass, field

from reconciler.core.reasons import Reason
from reconciler.ports.clock import Clock
from reconciler.replication.fleet import FleetLedger, FollowerState, ReplicaContext
from reconciler.replication.messages import Fleet
from tests.fakes.member_list import MemberList

ME, OTHER = "10.0.0.1", "10.0.0.2"


@dataclass
class Surroundings:
    """A clock, and the replicas that are listed or have ended."""

    now: float = 1000.0
    listed: set[str] = field(default_factory=lambda: {ME, OTHER})
    ended: set[str] = field(default_factory=set)

    def ledger(self) -> FleetLedger:
        """Return the ledger of a settled leader with one follower and one Envoy."""
        clock, replicas = Clock(lambda: self.now, lambda: self.now), MemberList(self.listed, self.ended)
        context = ReplicaContext(ME, replicas, lambda: True, clock, settle_seconds=0)
        ledger = FleetLedger(context, self.now, Fleet({"envoy-1": ""}, ()))
        ledger.set_connected(ME, Fleet({"envoy-1": ""}, ()))
        ledger.followers[OTHER] = FollowerState(OTHER)
        return ledger


def _missing(ledger: FleetLedger) -> Reason | None:
    ledger.forget()
    unknown = ledger.unknown()
    return unknown.code if unknown else None


def test_fleet_disconnected_replica_that_is_listed_is_missing() -> None:
    around = Surroundings()
    ledger = around.ledger()
    assert _missing(ledger) is None
    ledger.followers[OTHER].connected = False
    around.now += 10_000
    assert _missing(ledger) is Reason.REPLICA_MISSING


def test_fleet_replica_that_has_ended_is_not_missing() -> None:
    """As in a rollout of the reconciler, whose earlier pod joined the new leader before it ended."""
    around = Surroundings()
    ledger = around.ledger()
    ledger.followers[OTHER].connected = False
    around.listed.discard(OTHER)
    assert _missing(ledger) is Reason.REPLICA_MISSING
    around.ended.add(OTHER)
    assert _missing(ledger) is None


def test_fleet_connected_replica_that_is_not_listed_is_kept() -> None:
    around = Surroundings()
    ledger = around.ledger()
    around.listed.discard(OTHER)
    around.ended.add(OTHER)
    assert _missing(ledger) is None
    assert OTHER in ledger.followers


def test_fleet_without_itself_in_the_list_forgets_no_replica() -> None:
    around = Surroundings()
    ledger = around.ledger()
    ledger.followers[OTHER].connected = False
    around.listed.clear()
    ledger.forget()
    around.now += 10_000
    assert _missing(ledger) is Reason.REPLICAS_UNKNOWN
    assert OTHER in ledger.followers
