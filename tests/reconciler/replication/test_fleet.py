"""The members that a leader misses, and when it stops missing them."""

from __future__ import annotations

from dataclasses import dataclass, field

from reconciler.core.reasons import Reason
from reconciler.replication.fleet import UNLISTED_SECONDS, FleetLedger, FollowerState, ReplicaContext
from reconciler.replication.messages import Fleet

ME, OTHER = "10.0.0.1", "10.0.0.2"


@dataclass
class Surroundings:
    """A clock, and the replicas that are listed."""

    now: float = 1000.0
    listed: frozenset[str] = field(default_factory=lambda: frozenset({ME, OTHER}))

    def ledger(self) -> FleetLedger:
        """Return the ledger of a settled leader with one follower and one Envoy."""
        context = ReplicaContext(
            ME, lambda: self.listed, lambda: True, lambda: self.now, lambda: self.now, settle_seconds=0
        )
        ledger = FleetLedger(context, self.now, Fleet({"envoy-1": ""}, ()))
        ledger.set_connected(ME, Fleet({"envoy-1": ""}, ()))
        ledger.followers[OTHER] = FollowerState()
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


def test_fleet_replica_that_ended_is_missed_for_seconds() -> None:
    """As in a rollout of the reconciler, whose earlier pod joined the new leader before it ended."""
    around = Surroundings()
    ledger = around.ledger()
    ledger.followers[OTHER].connected = False
    around.listed = frozenset({ME})
    assert _missing(ledger) is Reason.REPLICA_MISSING
    around.now += UNLISTED_SECONDS - 0.1
    assert _missing(ledger) is Reason.REPLICA_MISSING
    around.now += 0.1
    assert _missing(ledger) is None


def test_fleet_replica_that_is_listed_again_is_missed_anew() -> None:
    around = Surroundings()
    ledger = around.ledger()
    ledger.followers[OTHER].connected = False
    around.listed = frozenset({ME})
    assert _missing(ledger) is Reason.REPLICA_MISSING
    around.listed = frozenset({ME, OTHER})
    around.now += UNLISTED_SECONDS
    assert _missing(ledger) is Reason.REPLICA_MISSING
    around.listed = frozenset({ME})
    around.now += UNLISTED_SECONDS
    assert _missing(ledger) is Reason.REPLICA_MISSING


def test_fleet_without_itself_in_the_list_forgets_no_replica() -> None:
    around = Surroundings()
    ledger = around.ledger()
    ledger.followers[OTHER].connected = False
    around.listed = frozenset()
    ledger.forget()
    around.now += 10_000
    assert _missing(ledger) is Reason.REPLICAS_UNKNOWN
    assert OTHER in ledger.followers
