"""Attacks on the gRPC port by a stranger, with a stolen name, and as a false replica; real peers are not affected."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from reconciler.core.access import PROXY, RECONCILER, StreamKind
from reconciler.core.record import State
from reconciler.server.admission import OPEN, UNIDENTIFIED, Limits
from reconciler.server.credentials.material import Server, channel
from tests.reconciler.replication.test_peers import WEB, Everything, Replica, Tls
from tests.security.grpc_port import (
    ADS,
    HOLDER,
    NAME,
    OTHER_REPLICA,
    PEER,
    PROXY_A,
    PROXY_B,
    REPLICA,
    STRANGER,
    Port,
    asks,
    dialling_from,
    ended,
    introduces,
    port,
    says,
    until,
)
from tests.xds.parts import envoy
from tproxy import wire
from xds.bootstrap.document import Tls as EnvoyTls
from xds.bootstrap.document import secrets
from xds.names import EDS

DENIED, RETRY = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE
TAKEN, INVALID = grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.INVALID_ARGUMENT
EDGE = "spiffe://zenvoy/envoy/edge-1"
STREAMS = (ADS, HOLDER, PEER)
QUICK = Limits(listing_seconds=0.2)


async def joins(at: Port, address: str, name: str, uri: str | None = PROXY.uri, method: str = ADS) -> Any:
    """Join as an entitled peer does, and return the stream once it was answered."""
    call = await at.dial(address, uri, method)
    await call.write(introduces(method, name))
    assert await asyncio.wait_for(call.read(), 60) is not grpc.aio.EOF
    return call


@pytest.mark.parametrize("method", STREAMS)
async def test_stream_without_certificate_gets_nothing(method: str) -> None:
    async with port() as at:
        call = await at.dial(PROXY_A, None, method)
        code, _ = await says(call, introduces(method, "proxy-a"))
        assert code is RETRY, "the handshake fails"
        assert not at.known and at.may_sleep


@pytest.mark.parametrize("method", STREAMS)
async def test_stream_certificate_without_role_is_refused(method: str) -> None:
    """A certificate that the same authority signed for something else."""
    async with port() as at:
        call = await at.dial(PROXY_A, "spiffe://cluster.local/ns/shop/sa/web", method)
        code, details = await says(call, introduces(method, "proxy-a"))
        assert code is DENIED
        assert "spiffe://zenvoy/proxy" in details, "the remedy"
        assert not at.known and at.may_sleep


@pytest.mark.parametrize(
    ("uri", "method"), [(PROXY.uri, PEER), (EDGE, PEER), (RECONCILER.uri, ADS), (RECONCILER.uri, HOLDER)]
)
async def test_stream_role_of_another_is_refused(uri: str, method: str) -> None:
    async with port() as at:
        for address in (PROXY_A, OTHER_REPLICA):
            code, details = await says(await at.dial(address, uri, method), introduces(method, address))
            assert code is DENIED
            assert "spiffe://zenvoy/" in details
        assert not at.known and at.may_sleep


@pytest.mark.parametrize(("uri", "method"), [(PROXY.uri, ADS), (PROXY.uri, HOLDER), (RECONCILER.uri, PEER)])
async def test_stream_address_outside_endpoints_is_asked_to_retry(uri: str, method: str) -> None:
    """A stolen certificate is of no use at an address that is not one of zenvoy's pods."""
    async with port(limits=QUICK) as at:
        for name in ("proxy-a", REPLICA, OTHER_REPLICA, STRANGER):
            code, details = await says(await at.dial(STRANGER, uri, method), introduces(method, name))
            assert code is RETRY
            assert STRANGER in details
        assert not at.known and at.may_sleep


async def test_stream_address_added_to_endpoints_is_served() -> None:
    async with port({}) as at:
        call = await at.dial(PROXY_A, PROXY.uri)
        await call.write(introduces(ADS, "proxy-a"))
        await until(lambda: at.admission._counts[UNIDENTIFIED], "the stream to wait for the endpoints")
        at.listed.proxies = {PROXY_A: "proxy-a"}
        at.admission.relisted()
        await until(lambda: at.nodes == {"proxy-a": PROXY_A}, "it joins")


@pytest.mark.parametrize("method", [ADS, HOLDER])
async def test_stream_proxy_with_name_of_another_is_refused(method: str) -> None:
    """The owner of the name keeps its stream, whether it came before or comes later."""
    async with port() as at:
        code, details = await says(await at.dial(PROXY_B, PROXY.uri, method), introduces(method, "proxy-a"))
        assert code is DENIED
        assert "proxy-b only" in details
        owner = await joins(at, PROXY_A, "proxy-a", method=method)
        code, _ = await says(await at.dial(PROXY_B, PROXY.uri, method), introduces(method, "proxy-a"))
        assert code is DENIED
        assert not owner.done()
        assert at.known == {"proxy-a"}


async def test_named_envoy_has_its_own_name_only() -> None:
    async with port() as at:
        for name in ("proxy-a", "edge-2"):
            code, _ = await says(await at.dial(STRANGER, EDGE), introduces(ADS, name))
            assert code is DENIED
        await joins(at, STRANGER, "edge-1", EDGE)
        assert at.nodes == {"edge-1": STRANGER}


@pytest.mark.parametrize("method", [ADS, HOLDER])
async def test_second_address_does_not_displace_the_first(method: str) -> None:
    async with port() as at:
        first = await joins(at, STRANGER, "edge-1", EDGE, method)
        code, _ = await says(await at.dial("127.0.0.67", EDGE, method), introduces(method, "edge-1"))
        assert code is TAKEN
        assert not first.done()
        second = await joins(at, STRANGER, "edge-1", EDGE, method)
        await ended(first)
        assert not second.done(), "at the same address it takes the place of its old stream"


async def test_stream_replica_with_address_of_another_is_refused() -> None:
    async with port() as at:
        code, details = await says(await at.dial(OTHER_REPLICA, RECONCILER.uri, PEER), introduces(PEER, "127.0.0.99"))
        assert code is DENIED
        assert OTHER_REPLICA in details
        assert not at.known and at.may_sleep
        await joins(at, OTHER_REPLICA, OTHER_REPLICA, RECONCILER.uri, PEER)
        assert at.known == {OTHER_REPLICA}


async def test_stolen_node_id_does_not_acknowledge(tmp_path: Path) -> None:
    """A pod claims to be an Envoy that has not acknowledged a route yet, and acknowledges it."""
    async with port() as at, dialling_from(PROXY_A, at.number) as dialled:
        files = at.authority.write(tmp_path / "tls", PROXY.uri)
        given = EnvoyTls(str(files / "tls.crt"), str(files / "tls.key"), str(files / "ca.crt"), NAME, str(tmp_path))
        for name, content in secrets(given).items():
            (tmp_path / name).write_text(yaml.safe_dump(content))
        async with envoy(tmp_path, dialled, node="proxy-a", tls=given):
            router = at.replica.router
            await until(lambda: at.nodes == {"proxy-a": PROXY_A}, "the Envoy joins")
            since = router.server.nodes()["proxy-a"].since
            has = {WEB.name: router.server.version(WEB.name)}
            claim = asks("proxy-a", EDS, WEB.name, initial_resource_versions=has)
            code, _ = await says(await at.dial(PROXY_B, PROXY.uri), claim)
            assert code is DENIED
            assert router.server.nodes()["proxy-a"].since == since, "the real one was not disturbed"


async def test_stranger_wakes_nothing() -> None:
    async with port(limits=QUICK) as at:
        record = at.replica.engine.services[WEB.name].record
        assert record
        held = wire.Count(record.hold_address, 5, 0, 0, 0, 0)
        hello = introduces(HOLDER, "proxy-a", held)
        for address, uri in ((STRANGER, PROXY.uri), (PROXY_B, PROXY.uri), (PROXY_A, RECONCILER.uri), (PROXY_A, EDGE)):
            await says(await at.dial(address, uri, HOLDER), hello)
        assert at.replica.state() is State.ScaledToZero
        await (await at.dial(PROXY_A, PROXY.uri, HOLDER)).write(hello)
        await until(lambda: at.replica.state() is State.Waking, "the entitled one wakes it")


@pytest.mark.parametrize("forged", ["", NAME], ids=["proxy", "proxy-with-common-name"])
async def test_proxy_certificate_cannot_play_leader(forged: str) -> None:
    """A follower that is led to a proxy's port refuses its certificate, and hears nothing."""
    async with port() as at:
        false = at.authority.material(PROXY.uri, common_name=forged or "proxy")
        shared = Everything({OTHER_REPLICA, REPLICA}, holder=REPLICA)
        tls = Tls(Server(lambda: false).credentials, lambda: channel(false), NAME)
        leader = Replica(REPLICA, shared, [WEB], 30.0, (), tls)
        own = at.authority.material(RECONCILER.uri, (NAME,))
        follower = Replica(
            OTHER_REPLICA, shared, [WEB], 30.0, (), Tls(Server(lambda: own).credentials, lambda: channel(own), NAME)
        )
        for replica in (leader, follower):
            await replica.start()
        try:
            leader.runs(1, "10.0.0.1:80")
            leader.leads()
            follower.follows(leader)
            await until(lambda: follower.lost >= 2, "it tries in vain")
            assert not follower.peers.synced
            assert not follower.peers.replication.updates.latest
        finally:
            await follower.stop()
            await leader.stop()


async def test_plaintext_mode_still_checks_addresses() -> None:
    async with port(encrypted=False, limits=QUICK) as at:
        for address, method, name in (
            (STRANGER, ADS, "proxy-a"),
            (STRANGER, HOLDER, "proxy-a"),
            (PROXY_A, PEER, PROXY_A),
            (STRANGER, PEER, OTHER_REPLICA),
        ):
            code, _ = await says(await at.dial(address, None, method), introduces(method, name))
            assert code is RETRY
        code, _ = await says(await at.dial(PROXY_B, None), introduces(ADS, "proxy-a"))
        assert code is DENIED
        assert not at.known and at.may_sleep


async def test_method_without_rule_is_not_served() -> None:
    async with port() as at:
        code, _ = await says(await at.dial(PROXY_A, PROXY.uri, "/zenvoy.v1.Holder/Other"), b"")
        assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_stream_silent_is_ended() -> None:
    async with port(limits=Limits(first_message_seconds=0.2)) as at:
        code, _ = await ended(await at.dial(PROXY_A, PROXY.uri))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert not at.known and at.may_sleep


async def test_unidentified_streams_are_bounded() -> None:
    async with port({}, Limits(unidentified=2, listing_seconds=600)) as at:
        waiting = [await at.dial(STRANGER, PROXY.uri) for _ in range(2)]
        await until(lambda: at.admission._counts[UNIDENTIFIED] == 2, "both to wait")
        code, _ = await ended(await at.dial(STRANGER, PROXY.uri))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        for call in waiting:
            call.cancel()
        await until(lambda: at.admission._counts[UNIDENTIFIED] == 0, "none to be left")


async def test_silent_streams_of_one_proxy_are_bounded() -> None:
    """A proxy that names itself in none of its streams takes no place from another one."""
    async with port(limits=Limits(total=6, of_one_name=2, first_message_seconds=600)) as at:
        silent = [await at.dial(PROXY_A, PROXY.uri) for _ in range(2)]
        await until(lambda: at.admission._counts[OPEN] == 2, "both to be open")
        for _ in range(6):
            code, _ = await ended(await at.dial(PROXY_A, PROXY.uri))
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        await joins(at, PROXY_B, "proxy-b")
        assert len(silent) == 2


async def test_streams_are_bounded_in_total() -> None:
    async with port(limits=Limits(total=1)) as at:
        await joins(at, PROXY_A, "proxy-a")
        code, _ = await ended(await at.dial(PROXY_B, PROXY.uri))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_names_that_peers_choose_are_bounded() -> None:
    """Where nothing proves a name, each new one would be missed, and keep services awake, for five minutes."""
    async with port(encrypted=False, limits=Limits(chosen_names=2)) as at:
        at.listed.proxies = None
        for name in ("one", "two", "two"):
            call = await joins(at, STRANGER, name, None)
            call.cancel()
        code, _ = await says(await at.dial(STRANGER, None), introduces(ADS, "three"))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_streams_that_are_not_read_are_bounded() -> None:
    """A stream whose peer does not read cannot be ended, and counts for as long."""
    async with port(limits=Limits(of_one_name=2)) as at:
        many = asks("proxy-a", EDS, *(f"{number:0300}" for number in range(10_000)))
        for _ in range(2):
            call = await at.dial(PROXY_A, PROXY.uri)
            await call.write(many)
            await until(lambda: at.is_owed("proxy-a", 1), "a response to be on its way")
            await call.write(b"no message")
            await until(lambda: not at.nodes, "it is dismissed")
        code, _ = await says(await at.dial(PROXY_A, PROXY.uri), introduces(ADS, "proxy-a"))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert at.admission._counts[OPEN] == 2


async def test_refusals_are_counted_and_their_log_is_bounded(capfd: pytest.CaptureFixture[str]) -> None:
    """The text that a peer sends does not get into the log, and one peer gets one line."""
    name = "\x1b[2J" + "x" * 100
    async with port() as at:
        for _ in range(3):
            await says(await at.dial(PROXY_B, PROXY.uri), introduces(ADS, name))
        assert 3 <= at.admission.refused[StreamKind.XDS, "INVALID_ARGUMENT"] <= at.dialed
    said = "".join(capfd.readouterr())
    assert said.count("stream refused") == 1
    assert "\x1b[2J" not in said
    assert "xxx" not in said
    json.dumps(said)
