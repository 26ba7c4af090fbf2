"""The reconciler's end of the holder streams, with real gRPC clients as holders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import msgspec
import pytest

from reconciler.core.reasons import Diagnosis
from reconciler.core.spec import Protocol, Spec
from reconciler.ports.holders import HoldOrder, HoldStatus
from reconciler.server.holders import HolderStreams, assigned
from tests.xds.oracle import MESSAGES
from tproxy import wire
from xds import ir
from xds.names import CDS
from xds.resources.clusters import cluster

PATIENCE_SECONDS = 60.0
WEB, DB = "127.64.0.1:18001", "127.64.0.2:18001"


def order(name: str = "web", address: str = WEB, release_to: tuple[str, ...] = ()) -> HoldOrder:
    return HoldOrder(Spec(name=name, protocol=Protocol.HTTP), address, release_to, None)


class Reconciler:
    """The adapter behind a real gRPC server, and its latest reports."""

    def __init__(self, forget_seconds: float) -> None:
        self.held: dict[str, HoldStatus] = {}
        self.reports: list[HoldStatus] = []
        self._changed = asyncio.Event()
        self.now = 100.0
        self.faults = 0
        """The number of reports that will fail."""
        self.streams = HolderStreams(self._report, lambda: self.now, forget_seconds)

    def _report(self, held: HoldStatus) -> None:
        if self.faults:
            self.faults -= 1
            raise RuntimeError("a fault of the callback")
        self.held[held.service] = held
        self.reports.append(held)
        self._changed.set()

    async def until(self, service: str, wanted: Callable[[HoldStatus], bool]) -> HoldStatus:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while service not in self.held or not wanted(self.held[service]):
                self._changed.clear()
                await self._changed.wait()
        return self.held[service]

    async def missed(self, holder: Holder) -> None:
        """Let a holder leave, and wait until its counts were unknown, which may be over."""
        known = len(self.reports)
        await holder.leave()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not any(held.relayed is None for held in self.reports[known:]):
                self._changed.clear()
                await self._changed.wait()


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
    """A holder at the level of messages."""

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


def count(address: str = WEB, **figures: Any) -> wire.Count:
    return wire.Count(address, **{"held": 0, "relayed": 0, "released": 0, "refused": 0, "gone": 0} | figures)


async def test_holder_first_message_is_full_then_changes() -> None:
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


async def test_order_is_acknowledged_once_in_force_everywhere() -> None:
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


async def test_order_with_another_detail_is_in_force_at_once() -> None:
    """Holders get the class of a reason only, so they have nothing to acknowledge."""

    def exited(detail: str) -> HoldOrder:
        return replace(order(), diagnosis=Diagnosis.of("Exited", detail))

    async with reconciler() as (subject, target):
        assert subject.streams.order("web", exited("code 3 after 0.0 s")) == HoldStatus("web", None, None)
        holder = Holder(target)
        await holder.say(wire.HolderReport(acked=(await holder.hello()).version))
        await subject.until("web", lambda held: held.acked_at is not None)
        assert subject.streams.order("web", exited("code 3 after 0.1 s")) == subject.held["web"]
        assert subject.held["web"].acked_at == 100.0
        changed = subject.streams.order("web", order(release_to=("127.0.0.1:8080",)))
        assert changed and changed.acked_at is None
        await holder.leave()


async def test_counts_are_added_and_name_the_oldest_connection() -> None:
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


async def test_counts_missing_holder_makes_them_unknown() -> None:
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


async def test_holder_disconnected_for_long_no_longer_counts() -> None:
    async with reconciler(forget_seconds=0.2) as (subject, target):
        subject.streams.order("web", order())
        here, gone = Holder(target, "here"), Holder(target, "gone")
        version = (await here.hello(count(held=1))).version
        await here.say(wire.HolderReport(acked=version))
        await gone.hello(count(relayed=1))
        await subject.until("web", lambda held: held.relayed == 1)
        await subject.missed(gone)
        alone = await subject.until("web", lambda held: held.relayed == 0)
        assert (alone.held, alone.acked_at) == (1, 100.0)
        await here.leave()


async def test_holder_reconnected_in_time_is_not_forgotten() -> None:
    async with reconciler(forget_seconds=0.2) as (subject, target):
        subject.streams.order("web", order())
        first = Holder(target)
        await first.hello()
        await subject.missed(first)
        again, later = Holder(target), Holder(target, "later")
        await again.hello(count(held=1))
        await later.hello()
        await subject.missed(later)
        await subject.until("web", lambda held: held.relayed == 0)
        assert subject.streams.connected == ["one"]
        await again.leave()


async def test_stream_ends_when_its_reports_are_not_read() -> None:
    """Otherwise its holder would look connected while its counts are lost."""
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


async def test_holder_whose_report_fails_is_not_connected() -> None:
    async with reconciler() as (subject, target):
        subject.streams.order("web", order())
        holder = Holder(target)
        subject.faults = 1
        await holder.say(wire.HolderReport(hello=wire.HolderHello("one", "anyip")))
        assert await asyncio.wait_for(holder._call.code(), PATIENCE_SECONDS) is grpc.StatusCode.UNKNOWN
        assert subject.streams.connected == []


async def test_holder_rules_changed_are_recorded() -> None:
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


async def test_stream_without_hello_is_refused() -> None:
    async with reconciler() as (_, target):
        stranger = Holder(target)
        await stranger.say(wire.HolderReport(acked=1))
        try:
            await stranger.hear()
        except (grpc.aio.AioRpcError, AssertionError):
            pass
        assert await stranger._call.code() is grpc.StatusCode.INVALID_ARGUMENT
        await stranger.leave()


async def test_holders_with_one_id_replace_each_other() -> None:
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


async def test_counts_restarted_holder_starts_at_zero() -> None:
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


async def test_counts_of_unknown_addresses_are_not_kept() -> None:
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


async def test_counts_before_the_order_are_reported_with_it() -> None:
    async with reconciler() as (subject, target):
        holder = Holder(target)
        await holder.hello(count(held=1))
        subject.streams.order("web", order())
        await holder.say(wire.HolderReport(acked=(await holder.hear()).version))
        await subject.until("web", lambda held: held.held == 1)
        await holder.leave()


async def test_refusals_are_added_by_reason_where_reported() -> None:
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
def test_assignment_has_header_where_envoy_sends_one(protocol: Protocol) -> None:
    made = MESSAGES[CDS].parse(cluster("web", ir.ServiceProtocol(protocol), keepalive_seconds=60))
    said = assigned(HoldOrder(Spec(name="web", protocol=protocol), WEB, (), None))
    assert said.has_header == bool(made.transport_socket_matches)


async def test_holder_disconnected_keeps_counts_of_services_only() -> None:
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
