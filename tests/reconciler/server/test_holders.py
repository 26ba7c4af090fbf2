"""The reconciler's end of the holder stream, spoken to by real gRPC clients in the holder's place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import msgspec
import pytest

from reconciler.core.spec import Protocol, Spec
from reconciler.ports.holders import HoldOrder, HoldStatus
from reconciler.server.holders import HolderStreams, assigned
from tests.xds.oracle import MESSAGES
from tproxy import wire
from xds import ir
from xds.resources.clusters import cluster
from xds.types import CDS

PATIENCE_SECONDS = 20.0
WEB, DB = "127.64.0.1:18001", "127.64.0.2:18001"


def order(name: str = "web", address: str = WEB, release_to: tuple[str, ...] = ()) -> HoldOrder:
    return HoldOrder(Spec(name=name, protocol=Protocol.HTTP), address, release_to, None)


class Reconciler:
    """The adapter behind a real gRPC server, and all that it reported last."""

    def __init__(self, forget_seconds: float) -> None:
        self.held: dict[str, HoldStatus] = {}
        self._changed = asyncio.Event()
        self.now = 100.0
        self.faults = 0
        """How many reports are yet to fail."""
        self.streams = HolderStreams(self._report, lambda: self.now, forget_seconds)

    def _report(self, held: HoldStatus) -> None:
        if self.faults:
            self.faults -= 1
            raise RuntimeError("a fault of whoever is told")
        self.held[held.service] = held
        self._changed.set()

    async def until(self, service: str, wanted: Callable[[HoldStatus], bool]) -> HoldStatus:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while service not in self.held or not wanted(self.held[service]):
                self._changed.clear()
                await self._changed.wait()
        return self.held[service]


@asynccontextmanager
async def reconciler(forget_seconds: float = 300.0) -> AsyncIterator[tuple[Reconciler, str]]:
    subject = Reconciler(forget_seconds)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((subject.streams.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield subject, f"127.0.0.1:{port}"
    await server.stop(0)


class Holder:
    """A holder as the wire sees it."""

    def __init__(self, target: str, name: str = "one") -> None:
        self._channel = grpc.aio.insecure_channel(target)
        call = self._channel.stream_stream(wire.METHOD, wire.ENCODER.encode, wire.DOWN.decode)
        self._call, self._name = call(), name

    async def hello(self, *counts: wire.Count) -> wire.AssignmentUpdate:
        await self.say(wire.HolderReport(counts=counts, hello=wire.HolderHello(self._name, "anyip")))
        return await self.hear()

    async def say(self, up: wire.HolderReport) -> None:
        await self._call.write(up)

    async def hear(self) -> wire.AssignmentUpdate:
        down = await asyncio.wait_for(self._call.read(), PATIENCE_SECONDS)
        assert isinstance(down, wire.AssignmentUpdate)
        return down

    async def leave(self) -> None:
        self._call.cancel()
        await self._channel.close()


def count(address: str = WEB, **figures: int) -> wire.Count:
    return wire.Count(address, **{"held": 0, "relayed": 0, "released": 0, "refused": 0, "gone": 0} | figures)


async def test_a_holder_is_first_told_everything_then_only_what_changes() -> None:
    async with reconciler() as (subject, target):
        subject.streams.order("web", order())
        subject.streams.order("db", order("db", DB))
        holder = Holder(target)
        first = await holder.hello()
        assert first.full
        assert {a.service: a.verdict for a in first.assign} == {"web": wire.Hold(), "db": wire.Hold()}
        subject.streams.order("web", order(release_to=("127.0.0.1:8080",)))
        second = await holder.hear()
        assert not second.full
        assert [(a.service, a.verdict) for a in second.assign] == [("web", wire.Go(("127.0.0.1:8080",)))]
        subject.streams.order("db", None)
        assert (await holder.hear()).remove == (DB,)
        await holder.leave()


async def test_an_order_is_acknowledged_once_every_holder_has_it_in_force() -> None:
    async with reconciler() as (subject, target):
        subject.streams.order("web", order())
        one, two = Holder(target, "one"), Holder(target, "two")
        version = (await one.hello()).version
        await two.hello()
        await one.say(wire.HolderReport(acked=version))
        await one.say(wire.HolderReport(acked=version, counts=(count(relayed=1),)))
        assert (await subject.until("web", lambda held: held.relayed == 1)).acked_at is None
        subject.now = 200.0
        await two.say(wire.HolderReport(acked=version))
        assert (await subject.until("web", lambda held: held.acked_at is not None)).acked_at == 200.0
        subject.streams.order("web", order(release_to=("127.0.0.1:8080",)))
        await one.say(wire.HolderReport(acked=version, counts=(count(relayed=2),)))
        assert (await subject.until("web", lambda held: held.relayed == 2)).acked_at is None
        await one.leave()
        await two.leave()


async def test_counts_of_all_holders_are_added_and_the_oldest_wait_is_named() -> None:
    async with reconciler() as (subject, target):
        subject.streams.order("web", order())
        one, two = Holder(target, "one"), Holder(target, "two")
        await one.hello(wire.Count(WEB, 2, 1, 5, 0, 0, held_since=50.0, peer="10.0.0.1:1"))
        await two.hello(wire.Count(WEB, 1, 0, 1, 1, 1, held_since=40.0, peer="10.0.0.2:2"))
        held = await subject.until("web", lambda held: held.held == 3)
        assert (held.relayed, held.released, held.refused, held.gone) == (1, 6, 1, 1)
        assert (held.held_since, held.peer, held.via) == (40.0, "10.0.0.2:2", "two")
        await one.leave()
        await two.leave()


async def test_nothing_is_known_while_a_holder_is_missing_until_it_is_back() -> None:
    async with reconciler() as (subject, target):
        subject.streams.order("web", order())
        holder = Holder(target)
        version = (await holder.hello()).version
        await holder.say(wire.HolderReport(acked=version))
        await subject.until("web", lambda held: held.held == 0 and held.acked_at is not None)
        await holder.leave()
        lost = await subject.until("web", lambda held: held.held is None)
        assert (lost.relayed, lost.acked_at) == (None, None)
        again = Holder(target)
        await again.hello(count(held=1))
        assert (await subject.until("web", lambda held: held.held == 1)).acked_at is None
        await again.leave()


async def test_a_holder_that_stays_away_no_longer_counts() -> None:
    async with reconciler(forget_seconds=0.2) as (subject, target):
        subject.streams.order("web", order())
        here, gone = Holder(target, "here"), Holder(target, "gone")
        version = (await here.hello(count(held=1))).version
        await here.say(wire.HolderReport(acked=version))
        await gone.hello(count(relayed=1))
        await subject.until("web", lambda held: held.relayed == 1)
        await gone.leave()
        await subject.until("web", lambda held: held.relayed is None)
        alone = await subject.until("web", lambda held: held.relayed == 0)
        assert (alone.held, alone.acked_at) == (1, 100.0)
        await here.leave()


async def test_a_holder_that_comes_back_in_time_is_not_forgotten_for_having_been_away() -> None:
    async with reconciler(forget_seconds=0.2) as (subject, target):
        subject.streams.order("web", order())
        first = Holder(target)
        await first.hello()
        await first.leave()
        await subject.until("web", lambda held: held.held is None)
        again, later = Holder(target), Holder(target, "later")
        await again.hello(count(held=1))
        await later.hello()
        await later.leave()
        await subject.until("web", lambda held: held.relayed is None)
        await subject.until("web", lambda held: held.relayed == 0)
        assert subject.streams.connected == ["one"]
        await again.leave()


async def test_a_stream_ends_when_nobody_listens_to_it_any_more() -> None:
    """Or its holder would look connected, and nobody would hear who waits there."""
    async with reconciler() as (subject, target):
        subject.streams.order("web", order())
        holder = Holder(target)
        await holder.hello()
        subject.faults = 1
        await holder.say(wire.HolderReport(counts=(count(held=1),)))
        await subject.until("web", lambda held: held.relayed is None)
        assert await asyncio.wait_for(holder._call.code(), PATIENCE_SECONDS) is grpc.StatusCode.UNKNOWN
        again = Holder(target)
        await again.hello(count(held=1))
        await subject.until("web", lambda held: held.held == 1)
        await again.leave()


async def test_a_holder_whose_arrival_cannot_be_told_of_is_not_connected() -> None:
    async with reconciler() as (subject, target):
        subject.streams.order("web", order())
        holder = Holder(target)
        subject.faults = 1
        await holder.say(wire.HolderReport(hello=wire.HolderHello("one", "anyip")))
        assert await asyncio.wait_for(holder._call.code(), PATIENCE_SECONDS) is grpc.StatusCode.UNKNOWN
        assert subject.streams.connected == []


async def test_rules_that_come_or_go_are_known() -> None:
    async with reconciler() as (subject, target):
        holder = Holder(target)

        async def known(rules: bool | None) -> None:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while [one.rules for one in subject.streams.known] != [rules]:
                    await asyncio.sleep(0.002)

        await holder.say(wire.HolderReport(hello=wire.HolderHello("one", "tproxy")))
        await known(None)
        for rules in (False, True):
            await holder.say(wire.HolderReport(rules=rules))
            await holder.say(wire.HolderReport(acked=0))
            await known(rules)
        await holder.leave()


async def test_a_stream_that_does_not_introduce_itself_is_sent_away() -> None:
    async with reconciler() as (_, target):
        stranger = Holder(target)
        await stranger.say(wire.HolderReport(acked=1))
        try:
            await stranger.hear()
        except (grpc.aio.AioRpcError, AssertionError):
            pass
        assert await stranger._call.code() is grpc.StatusCode.INVALID_ARGUMENT
        await stranger.leave()


async def test_two_holders_with_one_id_take_turns_and_nothing_is_acknowledged_for_long() -> None:
    async with reconciler() as (subject, target):
        subject.streams.order("web", order())
        one, two = Holder(target, "same"), Holder(target, "same")
        version = (await one.hello(count(held=1))).version
        await one.say(wire.HolderReport(acked=version))
        await subject.until("web", lambda held: held.held == 1 and held.acked_at is not None)
        await two.hello()
        assert await asyncio.wait_for(one._call.code(), PATIENCE_SECONDS) is grpc.StatusCode.ALREADY_EXISTS
        assert (await subject.until("web", lambda held: held.held == 0)).acked_at is None
        again = Holder(target, "same")
        await again.hello(count(held=1))
        assert await asyncio.wait_for(two._call.code(), PATIENCE_SECONDS) is grpc.StatusCode.ALREADY_EXISTS
        assert (await subject.until("web", lambda held: held.held == 1)).acked_at is None
        assert subject.streams.connected == ["same"]
        await again.leave()


async def test_totals_that_begin_again_with_a_new_process_of_the_same_name_are_taken_as_they_are() -> None:
    async with reconciler() as (subject, target):
        subject.streams.order("web", order())
        first = Holder(target)
        await first.hello(count(released=7, relayed=2))
        await subject.until("web", lambda held: held.released == 7)
        await first.leave()
        await subject.until("web", lambda held: held.relayed is None)
        again = Holder(target)
        await again.hello(count(released=1))
        assert (await subject.until("web", lambda held: held.relayed == 0)).released == 1
        await again.leave()


async def test_what_holders_say_of_addresses_that_are_no_more_is_not_kept() -> None:
    async with reconciler() as (subject, target):
        subject.streams.order("web", order())
        subject.streams.order("db", order("db", DB))
        holder = Holder(target)
        await holder.hello(count(held=0, released=1), count(DB, relayed=1))
        subject.streams.order("db", None)
        assert (await holder.hear()).remove == (DB,)
        await holder.say(wire.HolderReport(counts=(count(DB, relayed=1),)))
        await holder.say(wire.HolderReport(counts=(count(DB, released=1), count(released=2))))
        await subject.until("web", lambda held: held.released == 2)
        assert [set(known.counts) for known in subject.streams.known] == [{WEB}]
        await holder.leave()


async def test_one_who_waits_before_its_address_is_known_is_told_of_with_the_order() -> None:
    async with reconciler() as (subject, target):
        holder = Holder(target)
        await holder.hello(count(held=1))
        subject.streams.order("web", order())
        await holder.say(wire.HolderReport(acked=(await holder.hear()).version))
        await subject.until("web", lambda held: held.held == 1)
        await holder.leave()


async def test_reasons_of_refusals_are_added_up_and_a_holder_that_does_not_tell_them_is_understood() -> None:
    async with reconciler() as (subject, target):
        subject.streams.order("web", order())
        one, two = Holder(target, "one"), Holder(target, "two")
        await one.hello(wire.Count(WEB, 0, 0, 0, 3, 0, refused_by={"timeout": 2, "max_held": 1}))
        await two.hello(wire.Count(WEB, 0, 0, 0, 1, 0, refused_by={"timeout": 1}))
        held = await subject.until("web", lambda held: held.refused == 4)
        assert held.refused_by == {"timeout": 3, "max_held": 1}
        await one.leave()
        await two.leave()
    old = msgspec.msgpack.encode((0, ((WEB, 0, 0, 0, 3, 0, None, None, None),), None))
    (understood,) = wire.UP.decode(old).counts
    assert (understood.refused, understood.refused_by) == (3, {})


@pytest.mark.parametrize("protocol", Protocol)
def test_a_header_comes_first_where_envoy_sends_one(protocol: Protocol) -> None:
    made = MESSAGES[CDS].parse(cluster("web", ir.ServiceProtocol(protocol)))
    said = assigned(HoldOrder(Spec(name="web", protocol=protocol), WEB, (), None))
    assert said.has_header == bool(made.transport_socket_matches)


async def test_holder_that_is_missed_keeps_counts_of_services_only() -> None:
    async with reconciler() as (subject, target):
        subject.streams.order("web", order())
        holder = Holder(target)
        elsewhere = (wire.Count(f"127.64.9.{n}:1", 1, 0, 0, 0, 0) for n in range(200))
        await holder.hello(count(relayed=2), *elsewhere)
        await subject.until("web", lambda held: held.relayed == 2)
        assert len(subject.streams.known[0].counts) == 201
        await holder.leave()
        await subject.until("web", lambda held: held.relayed is None)
        [missed] = subject.streams.known
        assert missed.gone
        assert missed.counts.keys() == {WEB}
        subject.streams.order("web", order(release_to=("127.0.0.1:8080",)))
        assert not missed.changed


async def test_acknowledgement_of_a_later_version_ends_the_stream() -> None:
    async with reconciler() as (subject, target):
        subject.streams.order("web", order())
        holder = Holder(target)
        version = (await holder.hello()).version
        await holder.say(wire.HolderReport(acked=version + 1))
        assert await holder._call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert subject.held["web"].acked_at is None
        await holder.leave()
