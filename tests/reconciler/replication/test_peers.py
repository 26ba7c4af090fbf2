"""Two replicas over real sockets: real engines, xDS servers, holder streams and peer streams; clients in the place of
Envoys and holders, and a cluster that is a few fields."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import grpc
import pytest

from reconciler.app.admin import EngineOperations
from reconciler.core.events import SleepCommanded, WakeCommanded
from reconciler.core.reasons import Reason, Unknown
from reconciler.core.record import Record, State
from reconciler.core.spec import Spec
from reconciler.core.traffic import EnvoyReading, Pace, Sample
from reconciler.engine.engine import Adapters, Engine
from reconciler.engine.hold_addresses import AnyIp
from reconciler.envoy.xds_router import XdsRouter
from reconciler.plan import AtLeast, Deadline, Scale, Zero
from reconciler.ports.backend import WorkloadStatus
from reconciler.ports.clock import Clock
from reconciler.replication.fleet import ReplicaContext
from reconciler.replication.peers import Peers
from reconciler.server.holders import HolderStreams
from tests.fakes.listener import NoListener
from tests.fakes.member_list import MemberList
from tests.ports import free_port
from tests.xds.oracle import DeltaDiscoveryRequest, DeltaDiscoveryResponse, core_v3
from tproxy import wire
from xds.names import CDS, EDS
from xds.server import GRPC_OPTIONS

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
PATIENCE_SECONDS = 60.0
POD = "10.0.0.1:80"
WEB = Spec(name="shop/web", hosts=("web.shop",), idle_after=3600, drain_timeout=3600, wake_timeout=3600)


async def until(condition: Callable[[], Any], what: str) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)
    assert condition(), what


def message(unknown: Unknown | None) -> str | None:
    """Return the reason why usage is unknown, or None."""
    return unknown.message if unknown else None


@dataclass(frozen=True)
class Tls:
    """A replica's ends of mutual TLS, and the name in the certificates of all."""

    server: grpc.ServerCredentials
    client: Callable[[], grpc.ChannelCredentials]
    name: str


@dataclass
class Everything:
    """The state that replicas share: expected proxies, the lease, records."""

    listed: set[str] = field(default_factory=set)
    holder: str = "one"
    saved: dict[str, Record] = field(default_factory=dict)
    indexes: int = 0
    ended: set[str] = field(default_factory=set)
    """Envoys and holders whose pods are gone."""


class Reconciler(Protocol):
    """A reconciler that Envoys join."""

    @property
    def address(self) -> str: ...

    @property
    def router(self) -> XdsRouter: ...


class Replica:
    """One reconciler, as the wiring makes it, but for its backend, alarm and store, which are here."""

    def __init__(
        self,
        name: str,
        shared: Everything,
        specs: list[Spec],
        alone_after_seconds: float,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        tls: Tls | None = None,
    ) -> None:
        self.name, self.shared, self.specs = name, shared, specs
        self._interceptors, self._tls = interceptors, tls
        self.scales: dict[str, Scale] = {}
        self.address = f"127.0.0.1:{free_port()}"
        self.lost = 0
        self.engine = Engine(Clock(), Pace(3600.0), AnyIp(1), NoListener())
        terms = ReplicaContext(
            name,
            MemberList(shared.listed, shared.ended),
            lambda: shared.holder == name,
            Clock(),
            settle_seconds=0.0,
            proxies=MemberList((), shared.ended),
            forget_seconds=300.0,
            return_seconds=0.0,
            alone_after_seconds=alone_after_seconds,
        )
        client, authority = (tls.client, tls.name) if tls else (None, None)
        self.peers = Peers(terms, self._lost, client, authority)
        replication = self.peers.replication
        self.router = XdsRouter(
            replication.router.routed,
            lambda *_: None,
            lambda _: None,
            self._joined,
            forget_seconds=0,
        )
        self.holders = HolderStreams(
            self.peers.replication.holders.held, time.time, forget_seconds=0, joined=self._joined
        )
        replication.attach(self.engine, self.router, self.holders)

    def _lost(self) -> None:
        self.lost += 1

    def _joined(self) -> None:
        nodes = self.router.server.nodes() if hasattr(self, "router") else {}
        connected = self.holders.connected if hasattr(self, "holders") else []
        self.peers.members.came_or_went({node: one.stats for node, one in nodes.items()}, connected)

    async def start(self) -> None:
        replication = self.peers.replication
        router, holders = replication.router, replication.holders
        self.engine.start(Adapters(self, router, holders, self.arm, self, lambda _: None, replication))
        self.peers.follow(None)
        self.router.configure("127.0.0.1:10000", None, self.specs)
        self.engine.configure(self.specs)
        self.server = grpc.aio.server(options=GRPC_OPTIONS, interceptors=self._interceptors)
        handlers = (self.router.server.handler(), self.holders.handler(), self.peers.server.handler())
        self.server.add_generic_rpc_handlers(handlers)
        if self._tls:
            self.server.add_secure_port(self.address, self._tls.server)
        else:
            self.server.add_insecure_port(self.address)
        await self.server.start()
        self.peers_run = asyncio.create_task(self.peers.run())

    async def stop(self) -> None:
        self.peers_run.cancel()
        await self.peers.close()
        await self.router.server.close()
        await self.server.stop(0)

    def leads(self) -> None:
        self.shared.holder = self.name
        self.peers.lead(time.monotonic())
        self.router.server.open()

    def follows(self, leader: Replica | None) -> None:
        self.peers.follow(leader.address if leader else None)
        self.router.server.open()

    def runs(self, replicas: int, *endpoints: str) -> None:
        for spec in self.specs:
            self.engine.ran(WorkloadStatus(spec.name, replicas, endpoints))

    def state(self, service: str = WEB.name) -> State | None:
        record = self.engine.services[service].record
        return record.state if record else None

    def waiting_for(self) -> str | None:
        seen = self.engine.services[WEB.name].seen
        return None if seen.route_acked_at else seen.waiting_for

    def sample(self) -> None:
        """A complete one that shows nothing."""
        readings = {node: EnvoyReading(1e6, {}) for node in self.peers.members.envoys()}
        self.engine.sampled(Sample(time.time(), readings))

    async def quiet(self) -> None:
        """Time enough for what was acknowledged to count, and two samples."""
        await asyncio.sleep(0.15)
        self.sample()
        await asyncio.sleep(0.01)
        self.sample()

    # Ports

    def converge(self, service: str, scale: Scale) -> None:
        self.scales[service] = scale

    def arm(self, service: str, deadline: Deadline | None) -> None: ...

    def records(self) -> dict[str, Record]:
        return dict(self.shared.saved)

    def save(self, service: str, record: Record) -> None:
        self.shared.saved[service] = record

    def forget(self, service: str) -> None: ...

    def paused(self) -> frozenset[str]:
        return frozenset()

    def pause(self, service: str, paused: bool) -> None: ...

    def next_index(self) -> int:
        self.shared.indexes += 1
        return self.shared.indexes

    async def close(self) -> None: ...


class Envoy:
    """An xDS client that accepts every response, unless it is slow."""

    def __init__(self, node: str, *services: str) -> None:
        self._node, self._services = node, services
        self.quick = asyncio.Event()
        self.quick.set()
        self._task: asyncio.Task[None] | None = None

    async def joins(self, reconciler: Reconciler) -> None:
        await self.leaves()
        self._task = asyncio.create_task(self._run(reconciler.address))
        await until(lambda: self._node in reconciler.router.server.nodes(), "the Envoy")

    async def leaves(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, address: str) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            call = channel.stream_stream(ADS)()
            for type_url, names in ((CDS, ()), (EDS, self._services)):
                node = core_v3.Node(id=self._node)
                request = DeltaDiscoveryRequest(node=node, type_url=type_url, resource_names_subscribe=list(names))
                await call.write(bytes(request))
            async for data in call:
                answer = DeltaDiscoveryResponse.parse(data)
                await self.quick.wait()
                said = DeltaDiscoveryRequest(type_url=answer.type_url, response_nonce=answer.nonce)
                await call.write(bytes(said))


class Holder:
    """A holder that obeys at once, and reports the counts of the test."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._task: asyncio.Task[None] | None = None
        self._call: Any = None
        self.orders: dict[str, wire.Assignment] = {}

    async def joins(self, replica: Replica) -> None:
        await self.leaves()
        self._task = asyncio.create_task(self._run(replica.address))
        await until(lambda: self._name in replica.holders.connected, "the holder")

    async def leaves(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def counts(self, address: str, held: int, relayed: int = 0) -> None:
        count = wire.Count(address, held, relayed, 0, 0, 0, held_since=time.time(), peer="192.0.2.1:5")
        await self._call.write(wire.HolderReport(counts=(count,)))

    async def _run(self, address: str) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            self._call = channel.stream_stream(wire.METHOD, wire.ENCODER.encode, wire.DOWN.decode)()
            await self._call.write(wire.HolderReport(hello=wire.HolderHello(self._name, "anyip")))
            async for down in self._call:
                self.orders |= {assignment.service: assignment for assignment in down.assign}
                await self._call.write(wire.HolderReport(acked=down.version))


@dataclass
class Scene:
    """Replica `one` leads, `two` follows; each has an Envoy and a holder."""

    shared: Everything
    one: Replica
    two: Replica
    envoys: dict[str, Envoy]
    holders: dict[str, Holder]

    @property
    def hold_address(self) -> str:
        record = self.one.engine.services[WEB.name].record
        assert record
        return record.hold_address

    def runs(self, replicas: int, *endpoints: str) -> None:
        self.one.runs(replicas, *endpoints)
        self.two.runs(replicas, *endpoints)

    async def known(self) -> None:
        """Wait until the leader knows every Envoy and holder, since it misses only known ones."""
        ledger = self.one.peers.members.ledger
        nodes, names = frozenset(f"envoy-{name}" for name in self.envoys), frozenset(self.holders)
        await until(
            lambda: (ledger.envoys.connected, ledger.holders.connected) == (nodes, names), "the leader to know all"
        )

    async def settled(self, leader: Replica) -> None:
        await until(lambda: leader.peers.members.unknown() is None, "no doubt")
        await until(lambda: leader.waiting_for() is None, "all to acknowledge")

    async def drained(self) -> None:
        """The service, that runs, is asked to sleep, and nothing stands against it."""
        await self.settled(self.one)
        await self.one.quiet()
        self.one.engine.command(WEB.name, SleepCommanded("requested by a user"))
        assert self.one.state() is State.Draining
        await self.settled(self.one)
        await self.one.quiet()


@asynccontextmanager
async def scene(
    specs: list[Spec] | None = None, replicas: int = 1, alone_after_seconds: float = 30.0
) -> AsyncIterator[Scene]:
    shared = Everything({"one", "two"})
    specs = specs or [WEB]
    one, two = (Replica(name, shared, specs, alone_after_seconds) for name in ("one", "two"))
    envoys, holders = {n: Envoy(f"envoy-{n}", WEB.name) for n in ("one", "two")}, {n: Holder(n) for n in ("one", "two")}
    async with AsyncExitStack() as stack:
        for replica in (one, two):
            await replica.start()
            stack.push_async_callback(replica.stop)
            replica.runs(replicas, *([POD] if replicas else []))
        one.leads()
        two.follows(one)
        await until(lambda: two.peers.synced, "the leader's words")
        for replica in (one, two):
            await envoys[replica.name].joins(replica)
            await holders[replica.name].joins(replica)
            stack.push_async_callback(envoys[replica.name].leaves)
            stack.push_async_callback(holders[replica.name].leaves)
        made = Scene(shared, one, two, envoys, holders)
        await made.known()
        await made.settled(one)
        yield made


async def test_a_follower_has_the_leader_s_records() -> None:
    async with scene(replicas=0) as s:
        assert s.one.state() is s.two.state() is State.ScaledToZero
        first, second = (r.engine.services[WEB.name].record for r in (s.one, s.two))
        assert first
        assert second
        assert first.hold_address == second.hold_address


async def test_demand_at_follower_wakes_there_and_reaches_the_leader() -> None:
    async with scene(replicas=0) as s:
        await s.holders["two"].counts(s.hold_address, held=1)
        await until(lambda: s.two.state() is s.one.state() is State.Waking, "both to wake")
        assert s.one.scales[WEB.name] == s.two.scales[WEB.name] == AtLeast(1)
        assert s.one.engine.services[WEB.name].seen.held == 1
        s.runs(1, POD)
        await until(lambda: s.holders["two"].orders[WEB.name].verdict == wire.Go((POD,)), "its release")
        assert s.one.state() is s.two.state() is State.Active


async def test_a_wake_needs_no_leader() -> None:
    async with scene(replicas=0) as s:
        await s.one.stop()
        await s.holders["two"].counts(s.hold_address, held=1)
        await until(lambda: s.two.state() is State.Waking, "the wake")
        assert s.two.scales[WEB.name] == AtLeast(1)
        s.two.runs(1, POD)
        await until(lambda: s.holders["two"].orders[WEB.name].verdict == wire.Go((POD,)), "its release")


async def test_sleep_waits_for_the_follower_s_envoys() -> None:
    async with scene() as s:
        await s.settled(s.one)
        await s.one.quiet()
        s.envoys["two"].quick.clear()
        s.one.engine.command(WEB.name, SleepCommanded("requested by a user"))
        await until(lambda: s.two.state() is State.Draining, "the leader's word")
        await until(lambda: "envoy-two" in (s.one.waiting_for() or ""), "to know who is slow")
        await s.one.quiet()
        assert s.one.state() is State.Draining
        s.envoys["two"].quick.set()
        await s.settled(s.one)
        await s.one.quiet()
        assert s.one.state() is State.ScaledToZero
        assert s.one.scales[WEB.name] == Zero()
        await until(lambda: s.two.state() is State.ScaledToZero, "the leader's word")
        assert s.two.scales[WEB.name] is None


async def test_connections_at_follower_keep_the_service_awake() -> None:
    async with scene() as s:
        await s.settled(s.one)
        await s.one.quiet()
        await s.holders["two"].counts(s.hold_address, held=0, relayed=2)
        await until(lambda: s.one.engine.services[WEB.name].seen.relayed == 2, "the count")
        s.one.engine.command(WEB.name, SleepCommanded("requested by a user"))
        await s.settled(s.one)
        await s.one.quiet()
        assert s.one.state() is State.Draining
        await s.holders["two"].counts(s.hold_address, held=1, relayed=2)
        await until(lambda: s.one.state() is s.two.state() is State.Active, "both to be active again")


async def test_a_follower_that_vanished_is_unknown_until_it_is_back() -> None:
    async with scene() as s:
        await s.settled(s.one)
        await s.one.quiet()
        s.one.engine.command(WEB.name, SleepCommanded("requested by a user"))
        await s.two.stop()
        await until(lambda: s.one.state() is State.Active, "doubt to keep it awake")
        assert s.one.engine.services[WEB.name].seen.held is None
        assert message(s.one.peers.members.unknown()) == "replica two is not connected"


async def test_leader_that_nobody_asks_forgets_what_has_ended() -> None:
    """An Envoy and a holder end, and nothing but samples reaches the engine: it sees the Envoy as missing in each."""
    async with scene() as s:
        members = s.one.peers.members
        s.shared.ended.update(("envoy-two", "two"))
        await s.envoys["two"].leaves()
        await s.holders["two"].leaves()
        await until(lambda: "envoy-two" not in members.ledger.envoys.connected, "the leader to hear of it")

        def forgotten() -> bool:
            readings = {node: EnvoyReading(1e6, {}) for node in members.ledger.envoys.connected}
            s.one.engine.sampled(Sample(time.time(), readings))
            return s.one.engine.unknown is None

        await until(forgotten, "a sample to be complete without it")
        assert members.envoys() == {"envoy-one"}


async def test_doubt_that_is_read_changes_nothing() -> None:
    async with scene() as s:
        members = s.one.peers.members
        s.one.peers_run.cancel()
        await s.envoys["two"].leaves()
        await until(members.away, "the leader to miss it")
        s.shared.ended.add("envoy-two")
        for _ in range(3):
            members.unknown()
        assert members.away() == {"envoy-two"}
        members.forget()
        assert members.away() == frozenset()


async def test_a_follower_is_forgotten_once_its_pod_has_ended() -> None:
    async with scene() as s:
        for name in ("one", "two"):
            await s.envoys[name].joins(s.one)
            await s.holders[name].joins(s.one)
        await s.two.stop()
        await until(lambda: message(s.one.peers.members.unknown()) == "replica two is not connected", "doubt")
        s.shared.listed.discard("two")
        s.one.peers.members.forget()
        assert message(s.one.peers.members.unknown()) == "replica two is not connected"
        s.shared.ended.add("two")
        await until(lambda: s.one.peers.members.unknown() is None, "it to be forgotten")
        await s.drained()
        assert s.one.state() is State.ScaledToZero


async def test_a_replica_that_should_be_there_and_is_not_forbids_sleep() -> None:
    async with scene() as s:
        s.shared.listed.add("three")
        s.one.engine.command(WEB.name, SleepCommanded("requested by a user"))
        assert s.one.state() is State.Draining
        await until(lambda: s.one.waiting_for() is None, "all to acknowledge")
        await s.one.quiet()
        assert s.one.state() is State.Active
        assert message(s.one.engine.unknown) == "replica three is not connected"
        s.shared.listed.discard("three")
        await s.drained()
        assert s.one.state() is State.ScaledToZero


async def test_leader_lists_the_proxies_of_all_replicas() -> None:
    async with scene() as s:

        def reported(replica: Replica) -> tuple[dict[str, Any], list[str]]:
            operations = EngineOperations(
                engine=replica.engine,
                router=replica.router,
                streams=replica.holders,
                prometheus=None,
                statistics="Envoys' statistics",
                opened=lambda: True,
                unready=lambda: None,
                connected=replica.peers.members.connected,
            )
            assert [one["id"] for one in operations.overview()["envoys"]] == [f"envoy-{replica.name}"]
            return {one["id"]: one for one in operations.envoys()}, list(operations.holders())

        (envoys, holders), (theirs, one) = reported(s.one), reported(s.two)
        assert {id_: envoy["replica"] for id_, envoy in envoys.items()} == {"envoy-one": "one", "envoy-two": "two"}
        assert envoys["envoy-one"]["since"] and envoys["envoy-two"].keys() == {"id", "replica"}
        assert holders == ["one", "two"]
        assert [envoy["replica"] for envoy in theirs.values()] == ["two"] and one == ["two"]


async def test_proxy_that_moves_to_another_replica_is_not_missed() -> None:
    async with scene() as s:
        await s.envoys["two"].joins(s.one)
        await s.holders["two"].joins(s.one)
        await s.settled(s.one)
        assert s.one.peers.members.envoys() == {"envoy-one", "envoy-two"}
        for name in ("one", "two"):
            await s.envoys[name].joins(s.two)
            await s.holders[name].joins(s.two)
        await until(lambda: len(s.two.router.server.nodes()) == 2, "both to move")
        await s.drained()
        assert s.one.state() is State.ScaledToZero


async def test_an_envoy_that_is_nowhere_is_missed() -> None:
    async with scene() as s:
        await s.envoys["two"].leaves()
        await until(lambda: s.one.waiting_for() == "Envoy envoy-two", "it to be missed")
        assert s.one.peers.members.envoys() == {"envoy-one", "envoy-two"}
        s.one.engine.sampled(Sample(time.time(), {"envoy-one": EnvoyReading(900.0, {})}))
        s.one.engine.sampled(Sample(time.time() + 1, {"envoy-one": EnvoyReading(901.0, {})}))
        assert s.one.engine.unknown and s.one.engine.unknown.code is Reason.ENVOY_AWAY


async def test_new_leader_undoes_unconfirmed_sleep_and_misses_proxies() -> None:
    async with scene() as s:
        await s.drained()
        assert s.one.state() is State.ScaledToZero
        await until(lambda: s.two.state() is State.ScaledToZero, "the leader's word")
        await until(lambda: len(s.two.peers.members.memory.envoys) == 2, "to know of all Envoys")
        await s.one.stop()
        await until(lambda: bool(s.two.lost), "to notice")
        s.two.leads()
        assert s.two.state() is State.Active
        assert message(s.two.peers.members.unknown()) == "replica one is not connected"
        assert s.two.peers.members.envoys() == {"envoy-one", "envoy-two"}


async def test_former_leader_puts_nothing_to_sleep_after_the_exchange() -> None:
    async with scene() as s:
        await s.settled(s.one)
        s.one.engine.command(WEB.name, SleepCommanded("requested by a user"))
        await until(lambda: s.two.state() is State.Draining, "the leader's word")
        s.shared.holder = "two"
        await s.one.quiet()
        assert s.one.state() is not State.ScaledToZero
        s.two.leads()
        s.one.follows(s.two)
        assert s.two.state() is State.Active
        await until(lambda: s.one.state() is State.Active, "the new leader's word")
        await s.settled(s.two)
        assert s.two.peers.members.unknown() is None


async def test_without_a_leader_for_long_a_follower_gets_on_alone() -> None:
    async with scene(alone_after_seconds=0.2) as s:
        await s.settled(s.one)
        s.one.engine.command(WEB.name, SleepCommanded("requested by a user"))
        await until(lambda: s.two.state() is State.Draining, "the leader's word")
        await s.one.stop()
        await s.holders["two"].counts(s.hold_address, held=1)
        await until(lambda: s.two.state() is State.Active, "it to give up waiting")
        await until(lambda: s.holders["two"].orders[WEB.name].verdict == wire.Go((POD,)), "its release")


async def test_a_follower_that_starts_alone_goes_by_what_was_saved() -> None:
    shared = Everything({"one", "two"}, holder="unknown")
    shared.saved[WEB.name] = Record(State.ScaledToZero, 1.0, "idle", 2, "127.64.0.9:1", zeroed=True)
    two = Replica("two", shared, [WEB], alone_after_seconds=0.2)
    await two.start()
    two.runs(0)
    assert two.state() is None
    assert not two.peers.synced
    await until(lambda: two.peers.synced, "it to give up waiting")
    assert two.state() is State.ScaledToZero
    await two.stop()


async def test_follower_applies_wake_commands_and_no_sleep_commands() -> None:
    async with scene(replicas=0) as s:
        s.two.engine.command(WEB.name, SleepCommanded("requested by a user"))
        assert s.two.state() is State.ScaledToZero
        s.two.engine.command(WEB.name, WakeCommanded("requested by a user"))
        assert s.two.state() is State.Waking
        s.runs(1, POD)
        await until(lambda: s.two.state() is s.one.state() is State.Active, "both to see it")


async def test_services_that_are_removed_and_added_reach_the_follower() -> None:
    async with scene() as s:
        more = [WEB, replace(WEB, name="shop/api", hosts=("api.shop",))]
        for replica in (s.two, s.one):
            replica.specs = more
            replica.router.configure("127.0.0.1:10000", None, more)
            replica.engine.configure(more)
            replica.runs(1, POD)
        await until(lambda: s.two.state("shop/api") is State.Active, "the leader's word")
        for replica in (s.two, s.one):
            replica.engine.configure([WEB])
        await until(lambda: "shop/api" not in s.two.peers.replication.updates.latest, "it to be dropped")


async def test_reports_precede_arrivals_and_follow_departures() -> None:
    async with scene() as s:
        said: list[str | bool] = []
        replication, members = s.one.peers.replication, s.one.peers.members
        receive = replication.receive

        def hear(follower: Any, message: Any) -> None:
            if message.fleet is not None:
                said.append("there" if "late" in message.fleet.holders else "not there")
            said.extend(report.in_force for report in message.reports)
            receive(follower, message)

        replication.receive = hear  # type: ignore[method-assign]
        late = Holder("late")
        await late.joins(s.two)
        await until(lambda: "there" in said, "the newcomer")
        assert False in said[: said.index("there")]
        await s.settled(s.one)
        said.clear()
        await late.leaves()
        await until(lambda: "late" in members.ledger.holders.away, "it to be missed")
        assert said[0] == "not there"


async def test_leader_misses_proxy_that_left_before_it_was_reported() -> None:
    async with scene() as s:
        members, there = s.one.peers.members, s.two.peers.members.fleet
        s.two.peers.members.came_or_went({**there.envoys, "late": ""}, [*there.holders, "late"])
        s.two.peers.members.came_or_went(there.envoys, there.holders)
        ledger = members.ledger
        await until(lambda: "late" in ledger.envoys.away & ledger.holders.away, "both missed")
        assert s.one.waiting_for() == "Envoy late"
        assert members.ledger.envoys.connected == {"envoy-one", "envoy-two"}
        s.shared.ended.add("late")
        await s.drained()
        assert s.one.state() is State.ScaledToZero


async def test_next_leader_misses_proxy_that_left_without_a_leader() -> None:
    async with scene() as s:
        await s.one.stop()
        await until(lambda: bool(s.two.lost), "to notice")
        there = s.two.peers.members.fleet
        s.two.peers.members.came_or_went({**there.envoys, "late": ""}, [*there.holders, "late"])
        s.two.peers.members.came_or_went(there.envoys, there.holders)
        s.two.leads()
        ledger = s.two.peers.members.ledger
        assert "late" in ledger.envoys.away and "late" in ledger.holders.away


async def test_ended_proxy_is_missed_neither_by_this_nor_next_leader() -> None:
    async with scene() as s:
        members = s.one.peers.members
        late = Holder("late")
        await late.joins(s.two)
        await until(lambda: "late" in s.two.peers.members.memory.holders, "all to know the newcomer")
        s.shared.ended.add("late")
        members.forget()
        assert "late" in members.ledger.holders.connected, "a connected holder has not ended, regardless of reports"
        s.shared.ended.clear()
        await late.leaves()
        await until(lambda: "late" in members.ledger.holders.away, "it to be missed")
        s.one.sample()
        assert s.one.engine.services[WEB.name].seen.held is None
        s.shared.ended.add("late")
        await until(lambda: not members.ledger.holders.away, "it to be forgotten")
        assert s.one.engine.services[WEB.name].seen.held == 0
        await until(lambda: "late" not in s.two.peers.members.memory.holders, "the follower to forget it too")


async def test_follower_with_failing_reports_disconnects_and_retries() -> None:
    async with scene(replicas=0) as s:
        replication, faults = s.two.peers.replication, ["a fault"]
        report = replication.report

        def fails(service: str) -> Any:
            if faults:
                raise RuntimeError(faults.pop())
            return report(service)

        replication.report = fails  # type: ignore[method-assign]
        await s.holders["two"].counts(s.hold_address, held=1)
        await until(lambda: bool(s.two.lost), "its stream to end")
        await until(lambda: s.one.state() is State.Waking, "the leader to hear of it all the same")


@pytest.mark.parametrize("first", ["garbage", "no hello"])
async def test_a_stream_that_says_no_hello_is_refused(first: str) -> None:
    async with scene() as s, grpc.aio.insecure_channel(s.one.address) as channel:
        call = channel.stream_stream("/zenvoy.v1.Peer/Stream")()
        await call.write(b"\xc1" if first == "garbage" else b"\x90")
        code = await asyncio.wait_for(call.code(), PATIENCE_SECONDS)
        assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
        assert s.one.peers.members.unknown() is None


async def test_follower_rejections_reach_the_leader_until_it_leaves() -> None:
    async with scene() as s:
        leader, follower = s.one.peers.replication.faults, s.two.peers.replication.faults
        notified: list[dict[str, str]] = []
        leader.on_change.append(lambda: notified.append(dict(leader.all())))
        follower.found({WEB.name: "duplicate domain"})
        await until(lambda: leader.all() == {WEB.name: "duplicate domain"}, "the leader to hear of it")
        assert notified[-1] == leader.all()
        leader.found({"shop/db": "cannot bind"})
        assert leader.all() == {WEB.name: "duplicate domain", "shop/db": "cannot bind"}
        assert follower.all() == {WEB.name: "duplicate domain"}
        follower.found({})
        await until(lambda: leader.all() == {"shop/db": "cannot bind"}, "the leader to hear that it is over")
        follower.found({WEB.name: "again"})
        await until(lambda: WEB.name in leader.all(), "the leader to hear of it again")
        await s.two.stop()
        await until(lambda: leader.all() == {"shop/db": "cannot bind"}, "the follower to be gone")


async def test_rejections_that_change_while_sent_reach_the_leader() -> None:
    """Each change happens when the leader receives the one before, which the follower may still be sending."""
    async with scene() as s:
        leader, follower = s.one.peers.replication.faults, s.two.peers.replication.faults
        remaining = [f"fault {number}" for number in range(100)]

        def change() -> None:
            if remaining:
                follower.found({WEB.name: remaining.pop()})

        leader.on_change.append(change)
        follower.found({WEB.name: "first"})
        await until(lambda: leader.all() == {WEB.name: "fault 0"}, "the last change")
