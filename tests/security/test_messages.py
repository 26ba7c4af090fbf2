"""Attacks by authorized peers on the gRPC port: fields out of bounds, false acknowledgements, and memory."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import grpc
import psutil
import pytest

from reconciler.core.access import PROXY, RECONCILER
from reconciler.core.record import State
from reconciler.replication import messages as peer
from tests.reconciler.replication.test_peers import WEB
from tests.security.grpc_port import (
    ADS,
    HOLDER,
    OTHER_REPLICA,
    PEER,
    PROXY_A,
    PROXY_B,
    Port,
    asks,
    introduces,
    port,
    says,
    until,
)
from tests.xds.oracle import DeltaDiscoveryRequest, DeltaDiscoveryResponse, Status
from tproxy import wire
from xds import server
from xds.names import CDS, EDS
from xds.server import MAX_MESSAGE_BYTES

INVALID, EXHAUSTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED
HUGE = 1 << 62
LONG = "x" * 1_000_000
FEW = wire.Count("", 0, 0, 0, 0, 0)


def hold_address(at: Port) -> str:
    record = at.replica.engine.services[WEB.name].record
    assert record
    return record.hold_address


async def holder(at: Port, name: str = "proxy-a", address: str = PROXY_A) -> Any:
    call = await at.dial(address, PROXY.uri, HOLDER)
    await call.write(introduces(HOLDER, name))
    first = wire.DOWN.decode(await asyncio.wait_for(call.read(), 60))
    await call.write(wire.ENCODER.encode(wire.HolderReport(acked=first.version)))
    return call


@pytest.mark.parametrize("method", [ADS, HOLDER, PEER])
async def test_message_id_of_a_megabyte_is_refused(method: str, capfd: pytest.CaptureFixture[str]) -> None:
    async with port() as at:
        where, uri = (OTHER_REPLICA, RECONCILER.uri) if method == PEER else (PROXY_A, PROXY.uri)
        code, details = await says(await at.dial(where, uri, method), introduces(method, LONG))
        assert code is INVALID
        assert len(details) < 1000
        assert not at.known and at.may_sleep
    assert len("".join(capfd.readouterr())) < 2000


@pytest.mark.parametrize("method", [ADS, HOLDER, PEER])
async def test_message_undecodable_ends_the_stream(method: str, capfd: pytest.CaptureFixture[str]) -> None:
    async with port() as at:
        where, uri = (OTHER_REPLICA, RECONCILER.uri) if method == PEER else (PROXY_A, PROXY.uri)
        code, _ = await says(await at.dial(where, uri, method), b"\xff\x1b[2Jevil")
        assert code is INVALID
        assert not at.known and at.may_sleep
    assert "evil" not in "".join(capfd.readouterr()), "nor is it in a traceback"


@pytest.mark.parametrize(
    "fields",
    [
        {"held": -1},
        {"relayed": HUGE},
        {"held_since": math.nan},
        {"first_byte_at": math.inf},
        {"held_since": -1.0},
        {"peer": "\x1b[2J"},
        {"peer": LONG},
        {"address": LONG},
        {"refused_by": {LONG: 1}},
        {"refused_by": {str(number): 1 for number in range(100)}},
        {"held": "many"},
    ],
)
async def test_message_count_out_of_bounds_ends_the_stream(fields: dict[str, Any]) -> None:
    """The holder's earlier state stays in force until it is back, and no field of the message is applied."""
    async with port() as at:
        call = await holder(at)
        named = {"address": hold_address(at), "held": 3, "relayed": 0, "released": 0, "refused": 0, "gone": 0}
        bad = [0, [list((named | fields).values())]]
        if more := {key: value for key, value in fields.items() if key not in named}:
            order = ("held_since", "peer", "first_byte_at", "refused_by")
            bad = [0, [[*named.values(), *(more.get(key, {} if key == "refused_by" else None) for key in order)]]]
        code, details = await says(call, wire.ENCODER.encode(bad))
        assert code is INVALID
        assert len(details) < 1000
        assert at.replica.state() is State.ScaledToZero


async def test_reasons_of_refusals_are_a_fixed_set() -> None:
    """They are label values of a metric."""
    async with port() as at:
        call = await holder(at)
        invented = {f"reason {number}": 1 for number in range(10)}
        count = wire.Count(hold_address(at), 1, 0, 0, 11, 0, refused_by={**invented, "timeout": 1})
        await call.write(wire.ENCODER.encode(wire.HolderReport(counts=(count,))))
        await until(lambda: at.replica.state() is State.Waking, "the count to arrive")
        held = at.replica.engine.services[WEB.name].held
        assert held
        assert held.refused_by == {"timeout": 1, "other": 10}


async def test_time_in_the_future_is_not_known() -> None:
    async with port() as at:
        call = await holder(at)
        count = wire.Count(hold_address(at), 1, 0, 0, 0, 0, held_since=4e9, first_byte_at=4e9)
        await call.write(wire.ENCODER.encode(wire.HolderReport(counts=(count,))))
        await until(lambda: at.replica.state() is State.Waking, "the count to arrive")
        held = at.replica.engine.services[WEB.name].held
        assert held
        assert (held.held_since, held.first_byte_at) == (None, None)


async def test_acknowledgement_of_an_order_not_sent_is_refused() -> None:
    async with port() as at:
        call = await holder(at)
        code, _ = await says(call, wire.ENCODER.encode(wire.HolderReport(acked=1_000)))
        assert code is INVALID


async def test_holder_counts_are_bounded() -> None:
    async with port() as at:
        call = await holder(at)
        messages = [
            wire.ENCODER.encode(
                wire.HolderReport(counts=tuple(wire.Count(f"{part}.{n}", 1, 0, 0, 0, 0) for n in range(15_000)))
            )
            for part in range(3)
        ]
        code, _ = await says(call, *messages)
        assert code is INVALID
        await until(lambda: not at.replica.holders.known, "the stream to be forgotten")


async def test_rejection_of_five_megabytes_is_cut(capfd: pytest.CaptureFixture[str]) -> None:
    async with port() as at:
        call = await at.dial(PROXY_A, PROXY.uri)
        await call.write(asks("proxy-a", EDS, WEB.name))
        answer = DeltaDiscoveryResponse.parse(await asyncio.wait_for(call.read(), 60))
        status = Status(code=13, message="\x1b[2J" + "x" * 5_000_000)
        nack = DeltaDiscoveryRequest(type_url=EDS, response_nonce=answer.nonce, error_detail=status)
        await call.write(bytes(nack))
        await until(lambda: at.replica.router.server.nodes()["proxy-a"].nack, "the rejection")
        said = at.replica.router.server.nodes()["proxy-a"].nack
        assert said
        assert len(said.message) <= 4096
        assert "\x1b" not in said.message


async def test_subscription_is_bounded() -> None:
    async with port() as at:
        call = await at.dial(PROXY_A, PROXY.uri)
        parts = [asks("proxy-a", EDS, *(f"{part}-{n}" for n in range(15_000))) for part in range(2)]
        code, details = await says(call, *parts)
        assert code is INVALID
        assert "20000" in details


async def test_asking_without_acknowledging_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question for the same resource is a response that is remembered until it is answered."""
    monkeypatch.setattr(server, "MAX_UNANSWERED", 20)
    async with port() as at:
        call = await at.dial(PROXY_A, PROXY.uri)
        code, details = await says(call, *[asks("proxy-a", EDS, WEB.name)] * 1000)
        assert code is INVALID
        assert "not acknowledged" in details


@pytest.mark.parametrize("method", [ADS, HOLDER])
async def test_messages_of_30_megabytes_leave_no_memory(method: str) -> None:
    """Each is refused before it is in memory as a whole, and nothing of it stays."""
    async with port() as at:
        payload = introduces(method, "proxy-a") + bytes(30_000_000)
        before = psutil.Process().memory_info().rss
        for _ in range(8):
            code, _ = await says(await at.dial(PROXY_A, PROXY.uri, method), payload)
            assert code is EXHAUSTED
        assert psutil.Process().memory_info().rss - before < 120_000_000, "half of what was sent"
        assert not at.known and at.may_sleep


async def test_envoy_reconnects_with_10000_services_of_longest_names() -> None:
    """The bound on messages follows from this one."""
    names = [f"{number:05d}{'n' * 58}/{'s' * 253}" for number in range(10_000)]
    message = asks("proxy-a", EDS, *names, initial_resource_versions=dict.fromkeys(names, "0123456789abcdef"))
    assert 6_000_000 < len(message) < MAX_MESSAGE_BYTES
    async with port() as at:
        call = await at.dial(PROXY_A, PROXY.uri)
        await call.write(message)
        await until(lambda: "proxy-a" in at.nodes, "it joins")
        await call.write(asks("proxy-a", CDS))
        await until(lambda: at.replica.router.server.acked(WEB.name), "the request to be read")


@pytest.mark.parametrize(
    "report",
    [
        {"held": -1},
        {"released": HUGE},
        {"held_since": math.nan},
        {"via": LONG},
        {"peer": "\x1b"},
    ],
)
async def test_report_of_a_replica_out_of_bounds_ends_its_stream(report: dict[str, Any]) -> None:
    async with port() as at:
        call = await at.dial(OTHER_REPLICA, RECONCILER.uri, PEER)
        await call.write(introduces(PEER, OTHER_REPLICA))
        await asyncio.wait_for(call.read(), 60)
        bad = peer.FollowerMessage(reports=(peer.Report(WEB.name, 1, **report),))
        code, _ = await says(call, peer.ENCODER.encode(bad))
        assert code is INVALID


async def test_report_on_what_was_not_sent_is_ignored() -> None:
    """A version that is yet to come, or a service that there is not, changes nothing and is not kept."""
    async with port() as at:
        call = await at.dial(OTHER_REPLICA, RECONCILER.uri, PEER)
        await call.write(introduces(PEER, OTHER_REPLICA))
        follower = at.replica.peers.members.ledger.followers
        await until(lambda: OTHER_REPLICA in follower, "it follows")
        reports = [peer.Report(WEB.name, 1 << 50, in_force=True), peer.Report("shop/none", 1, held=7)]
        good = peer.Report(WEB.name, 1, held=1, via="v" * 10, waiting_for="w" * 5000)
        await call.write(peer.ENCODER.encode(peer.FollowerMessage(reports=(*reports, good))))
        await until(lambda: follower[OTHER_REPLICA].reports, "the reports")
        assert follower[OTHER_REPLICA].reports.keys() == {WEB.name}
        kept = follower[OTHER_REPLICA].reports[WEB.name]
        assert (kept.version, len(kept.waiting_for)) == (1, peer.MAX_TEXT_LENGTH)


async def test_replica_cannot_redirect_statistics_of_another() -> None:
    """It claims an Envoy that is connected to the leader, with its own address as that of the statistics."""
    async with port() as at:
        ours = {"proxy-a": f"{PROXY_A}:9902"}
        members = at.replica.peers.members
        members.came_or_went(ours, ())
        call = await at.dial(OTHER_REPLICA, RECONCILER.uri, PEER)
        claim = peer.Fleet({"proxy-a": f"{OTHER_REPLICA}:9902", "proxy-b": f"{PROXY_B}:9902"})
        await call.write(peer.ENCODER.encode(peer.FollowerMessage(peer.FollowerHello(OTHER_REPLICA), claim)))
        await until(lambda: "proxy-b" in members.ledger.stats(), "its fleet")
        assert members.ledger.stats() == ours | {"proxy-b": f"{PROXY_B}:9902"}
