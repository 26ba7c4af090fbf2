"""Tests of hold addresses: each has one service, because its connections go to that service's pods."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.core.record import Record, State
from reconciler.core.spec import Spec
from reconciler.core.traffic import Pace
from reconciler.engine.engine import Adapters, Engine
from reconciler.engine.hold_addresses import AnyIp
from reconciler.ports.backend import WorkloadStatus
from reconciler.ports.clock import Clock
from tests.fakes.listener import NoListener
from tests.fakes.simulation.world import World

NOW = 1_000_000.0
SINCE = NOW - 60


def asleep(address: str, since: float = SINCE, zeroed: bool = True) -> Record:
    return Record(State.ScaledToZero, since, "idle", 1, address, zeroed=zeroed)


@dataclass(frozen=True)
class SmallRange(AnyIp):
    """The first `size` addresses of the range."""

    size: int = 100


class Place:
    """An engine with the ports of a replica from `World`."""

    def __init__(self, saved: dict[str, Record], leads: bool, addresses: int = 100) -> None:
        ports = World(Spec(name="web"), (0.0, 0.0)).replica
        self.store = ports.store
        ports.world.records.saved |= saved
        self.engine = Engine(Clock(lambda: NOW), Pace(3.0), SmallRange(1, addresses), NoListener())
        self.engine.start(Adapters(ports.backend, ports.streams, ports.streams, ports.arm, self.store, lambda at: None))
        if not leads:
            self.engine.follow()

    def configure(self, *names: str) -> None:
        self.engine.configure([Spec(name=name) for name in names])

    def addresses(self) -> list[str]:
        return [one.record.hold_address for one in self.engine.services.values() if one.record]


def test_hold_address_of_two_records_is_changed_for_one() -> None:
    place = Place({"web": asleep("127.64.0.7:1"), "api": asleep("127.64.0.7:1")}, leads=True)
    place.configure("web", "api")
    assert place.addresses()[0] == "127.64.0.7:1"
    assert len(set(place.addresses())) == 2
    assert place.store.unsaved["api"].hold_address == place.addresses()[1]


def test_hold_address_of_two_adopted_records_is_changed() -> None:
    place = Place({"web": asleep("127.64.0.7:1"), "api": asleep("127.64.0.7:1")}, leads=False)
    place.configure("web", "api")
    place.engine.lead(NOW)
    assert len(set(place.addresses())) == 2


def test_hold_address_in_use_is_not_reused() -> None:
    place = Place({"web": asleep("127.64.0.2:1")}, leads=True, addresses=4)
    place.configure("web", "a", "b", "c")
    for name in "abc":
        place.engine.ran(WorkloadStatus(name, 0))
    assert sorted(place.addresses()) == [f"127.64.0.{number}:1" for number in range(4)]
    place.configure("web", "a", "c", "d")
    place.engine.ran(WorkloadStatus("d", 0))
    assert sorted(place.addresses()) == [f"127.64.0.{number}:1" for number in range(4)]


def test_hold_addresses_exhausted_delay_new_service() -> None:
    place = Place({}, leads=True, addresses=2)
    place.configure("a", "b", "c")
    for name in "abc":
        place.engine.ran(WorkloadStatus(name, 1))
    record = place.engine.services["c"].record
    assert record is None
    place.configure("b", "c")
    assert place.engine.services["c"].record is not None
    assert len(set(place.addresses())) == 2


def test_record_from_the_future_starts_now() -> None:
    place = Place({"web": asleep("127.64.0.7:1", since=NOW + 1e9)}, leads=True)
    place.configure("web")
    record = place.engine.services["web"].record
    assert record is not None and record.since == NOW
    assert place.store.unsaved == {"web": record}


def test_service_configured_after_election_stays_awake() -> None:
    place = Place({"web": asleep("127.64.0.7:1", zeroed=False)}, leads=False)
    place.configure()
    place.engine.lead(NOW)
    place.configure("web")
    record = place.engine.services["web"].record
    assert record is not None and record.state is State.Active


def test_detached_follower_skips_invalid_hold_address() -> None:
    place = Place({"web": asleep("rubbish"), "api": asleep("127.64.0.7:1")}, leads=False)
    place.configure("web", "api")
    place.engine.detach()
    assert place.addresses() == ["127.64.0.7:1"]
