"""Parts that real Envoy rejects: the service that caused it is found and left out, and all others are served."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from tests.ports import free_port
from tests.xds.conftest import Stage
from tests.xds.parts import Plane, echoes, envoy, http_get, pages, plane, until, until_async, upstream
from tests.xds.test_envoy_protocols import http
from xds import ir
from xds.names import LDS, RDS
from xds.resources.proto import Cluster, RouteConfiguration, encode
from xds.resources.snapshot import Snapshot
from xds.resources.translation import Parts, parts
from xds.server import Node, NodeEvent, XdsServer

pytestmark = pytest.mark.envoy


def rejected(service: ir.Upstream, options: ir.ListenerOptions) -> Parts:
    """Translate a service; what Envoy gets for a name or host that begins with `bad` it rejects, and no check does."""
    made = parts(service, options)
    if service.leaving or not any(text.startswith("bad") for text in (service.name, *service.domains)):
        return made
    if "cluster" in service.name:
        cluster = Cluster.FromString(made.cluster)
        cluster.connect_timeout.seconds = 0  # all clusters fail
        return replace(made, cluster=encode(cluster))
    if "field" in service.name:
        return replace(parts(replace(service, ignore=(ir.IgnoreMatch(user_agents=("",)),))), service=service)
    twice = [f"{service.name}.twice"] * 2
    return replace(
        made,
        filter_chain=made.filter_chain * 2,
        virtual_host=with_domains(made.virtual_host, [] if service.ignore else twice),
        answering_host=with_domains(made.answering_host, twice),
    )


def with_domains(encoded: bytes, domains: list[str]) -> bytes:
    """Add domains to the virtual host of an encoded route configuration, if there is one."""
    configuration = RouteConfiguration.FromString(encoded)
    for host in configuration.virtual_hosts:
        host.domains.extend(domains)
    return encode(configuration)


def served(events: list[tuple[NodeEvent, Node]]) -> XdsServer:
    return XdsServer(on_ack=lambda *_: None, on_node=lambda *event: events.append(event), snapshot=Snapshot(rejected))


@pytest_asyncio.fixture(params=["delta", "sotw"])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    events: list[tuple[NodeEvent, Node]] = []
    async with plane(server=served(events)) as running, envoy(tmp_path, running.port, mode=request.param) as joined:
        running.events = events
        yield Stage(running, joined, request.param)


def web(*hosts: str) -> ir.Upstream:
    return ir.Upstream("web", ir.ServiceProtocol.HTTP, hosts)


def tls(name: str) -> ir.Upstream:
    return ir.Upstream(name, ir.ServiceProtocol.TLS, (f"{name}.localhost",))


async def found(stage: Stage, *services: str) -> dict[str, str]:
    """Wait until exactly these services are reported, and return what is reported of them."""
    await until(lambda: stage.plane.server.faults().keys() == {*services}, f"the report of {services}")
    return stage.plane.server.faults()


async def answers(stage: Stage, host: str, expected: tuple[int, str]) -> None:
    async def answered() -> bool:
        return await http_get(stage.http, host) == expected

    await until_async(answered, f"{expected} of {host}")


async def greeting(port: int, server_name: str) -> str:
    """Return what a TLS service says to a client that does not get as far as a handshake."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = context.wrap_bio(incoming, outgoing, server_hostname=server_name)
    with pytest.raises(ssl.SSLWantReadError):
        hello.do_handshake()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(outgoing.read())
        return (await asyncio.wait_for(reader.readline(), 60)).decode().strip()
    finally:
        writer.close()


async def greets(stage: Stage, name: str, expected: str) -> None:
    async def greeted() -> bool:
        return await greeting(stage.tls, f"{name}.localhost") == expected

    await until_async(greeted, f"{expected!r} of {name}")


async def test_envoy_rejects_hosts_others_are_served(stage: Stage) -> None:
    async with upstream(pages("page")) as page:
        names = ("a", "b", "bad-1", "c", "bad-2", "d")
        await stage.serve(*((http(name), (page,)) for name in names))
        reported = await found(stage, "bad-1", "bad-2")
        assert all(f"{name}.twice" in message for name, message in reported.items())
        for name in ("a", "b", "c", "d"):
            await answers(stage, name, (200, f"page for {name}"))
        assert (await http_get(stage.http, "bad-1"))[0] == 404
        stage.configure(http("a"), http("new"), http("bad-1"))
        stage.plane.server.route("new", (page,))
        await answers(stage, "new", (200, "page for new"))
        await found(stage, "bad-1")
        stage.configure(http("a"), http("new"))
        await found(stage)
    await until(lambda: stage.plane.server.nodes()["envoy-1"].nack is None, "nothing is rejected any more")


async def test_envoy_rejects_own_port_others_are_served(stage: Stage) -> None:
    bad, good = (replace(http(name), listen=ir.SocketAddress("127.0.0.1", free_port())) for name in ("bad-field", "b"))
    async with upstream(pages("page")) as page:
        await stage.serve((http("a"), (page,)), (bad, (page,)), (good, (page,)))
        await found(stage, "bad-field")
        await answers(stage, "a", (200, "page for a"))
        assert good.listen
        await stage.envoy.listens(good.listen.port)
        assert await http_get(good.listen.port, "any") == (200, "page for any")


@pytest.mark.parametrize(
    "body", ["secret", f"Proto constraint validation failed {'secret' * 600}"], ids=["short", "cut"]
)
async def test_nack_message_omits_other_services_settings(stage: Stage, body: str) -> None:
    """Envoy quotes the resource where a rule for one of its fields is broken, and cuts a long message."""
    secret = ir.Upstream("a", ir.ServiceProtocol.HTTP, ("a",), ignore=(ir.IgnoreMatch(("/secret",), body=body),))
    async with upstream(pages("page")) as page:
        await stage.serve((secret, (page,)), (http("bad-field"), (page,)), (http("b"), (page,)))
        reported = await found(stage, "bad-field")
        assert reported == {
            "bad-field": "StringMatcherValidationError.Prefix: value length must be at least 1 characters"
        }
        await answers(stage, "a", (200, "page for a"))
        await answers(stage, "b", (200, "page for b"))
        nacks = [node.nack for event, node in stage.plane.events if event == "nacked" and node.nack]
        assert nacks and not any("secret" in nack.message for nack in nacks)


async def test_stream_nack_keeps_the_last_good_version(stage: Stage) -> None:
    async with upstream(pages("page")) as page:
        await stage.serve((http("a"), (page,)), (web("one.localhost"), (page,)))
        await answers(stage, "one.localhost", (200, "page for one.localhost"))
        stage.configure(http("a"), web("one.localhost", "bad.localhost"), http("new"))
        stage.plane.server.route("new", (page,))
        await found(stage, "web")
        await answers(stage, "new", (200, "page for new"))
        assert await http_get(stage.http, "one.localhost") == (200, "page for one.localhost")
        assert (await http_get(stage.http, "bad.localhost"))[0] == 404
        stage.configure(http("a"), web("one.localhost", "two.localhost"), http("new"))
        await answers(stage, "two.localhost", (200, "page for two.localhost"))
        assert stage.plane.server.faults() == {}


async def test_envoy_kept_host_yields_to_a_valid_service(stage: Stage) -> None:
    async with upstream(pages("page")) as page, upstream(pages("other")) as other:
        await stage.serve((http("a"), (page,)), (web("one.localhost"), (page,)))
        await answers(stage, "one.localhost", (200, "page for one.localhost"))
        stage.configure(http("a"), web("bad.localhost"))
        await found(stage, "web")
        stage.configure(http("a"), web("bad.localhost"), ir.Upstream("b", ir.ServiceProtocol.HTTP, ("one.localhost",)))
        stage.plane.server.route("b", (other,))
        await answers(stage, "one.localhost", (200, "other for one.localhost"))
        await found(stage, "web")


async def test_envoy_rejects_filter_chain_others_are_served(stage: Stage) -> None:
    async with upstream(echoes("hello")) as one, upstream(echoes("later")) as two:
        await stage.serve(*((tls(name), (one,)) for name in ("a", "bad", "b")))
        reported = await found(stage, "bad")
        assert reported["bad"].startswith("filter chain 'bad' has the same matching rules defined as 'bad'")
        await stage.envoy.listens(stage.tls)
        await greets(stage, "a", "hello")
        await greets(stage, "b", "hello")
        stage.configure(tls("a"), tls("b"), tls("bad"), tls("new"))
        stage.plane.server.route("new", (two,))
        await greets(stage, "new", "later")
        await found(stage, "bad")
    stats = await stage.envoy.stats("listener_manager.total_listeners_(active|warming)")
    assert set(stats.values()) == {2, 0}, "nothing that was tried is left"


async def test_envoy_rejects_answering_host_others_are_served(stage: Stage) -> None:
    ignore = (ir.IgnoreMatch(("/healthz",), status=204),)
    async with upstream(pages("page")) as page:
        services = [ir.Upstream(name, ir.ServiceProtocol.HTTP, (name,), ignore=ignore) for name in ("a", "bad", "b")]
        await stage.serve(*((service, (page,)) for service in services))
        await found(stage, "bad")
        stage.plane.server.route("b", (ir.SocketAddress("127.0.0.1", 1),), held=True)
        await answers(stage, "a", (200, "page for a"))

        async def ignored() -> bool:
            reader, writer = await asyncio.open_connection("127.0.0.1", stage.http)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n")
            status = await reader.readline()
            writer.close()
            return b" 204 " in status

        await until_async(ignored, "the answer to what is ignored")


async def test_envoy_rejects_cluster_others_are_served(tmp_path: Path) -> None:
    """Envoy rejects the whole response for a cluster that breaks the rules of its message, and applies none of it."""
    async with (
        plane(server=served([])) as running,
        envoy(tmp_path, running.port) as joined,
        upstream(pages("page")) as page,
    ):
        stage = Stage(running, joined, "delta")
        names = ("a", "b", "bad-cluster", "c", "d")
        stage.configure(*map(http, names))
        for name in names:
            running.server.route(name, (page,))
        running.server.open()
        await found(stage, "bad-cluster")
        await joined.listens(stage.http)
        for name in ("a", "b", "c", "d"):
            await answers(stage, name, (200, f"page for {name}"))


async def test_envoy_joining_later_rejects_only_the_trial(stage: Stage, tmp_path: Path) -> None:
    """The next Envoy tries the rejected part apart from the served configuration; both Envoys reject it."""
    async with upstream(pages("page")) as page:
        await stage.serve((http("a"), (page,)), (http("bad"), (page,)))
        await found(stage, "bad")
        await answers(stage, "a", (200, "page for a"))
        async with envoy(tmp_path, stage.plane.port, mode=stage.mode, node="envoy-2"):
            await stage.plane.everywhere("a", envoys=2)
            nodes = stage.plane.server.nodes
            await until(lambda: all(nodes()["envoy-2"].versions.get(kind) for kind in (LDS, RDS)), "all of it")
            await found(stage, "bad")
            await answers(stage, "a", (200, "page for a"))
            assert nodes()["envoy-2"].nacks <= 1


async def test_envoy_server_restart_removes_nothing(tmp_path: Path) -> None:
    """It does not know any more what is rejected; Envoy serves on while it is found again."""
    port, http_port = free_port(), free_port()
    listen = ir.Listen(http=ir.SocketAddress("127.0.0.1", http_port))
    names = ("a", "b", "bad", "c")

    def is_found(running: Plane) -> bool:
        return running.server.faults().keys() == {"bad"}

    async with upstream(pages("page")) as page, envoy(tmp_path, port) as joined:
        for first in (True, False):
            async with plane(port, served([])) as running:
                running.server.configure(listen, list(map(http, names)))
                for name in names:
                    running.server.route(name, (page,))
                running.server.open()
                if first:
                    await joined.listens(http_port)
                asking = asyncio.ensure_future(_all_answer(http_port, 0 if first else 200))
                await until(partial(is_found, running), "the culprit")
                await until_async(lambda: _answers(http_port, "c"), "the others")
                await asking


async def _answers(port: int, host: str) -> bool:
    return await http_get(port, host) == (200, f"page for {host}")


async def _all_answer(port: int, times: int) -> None:
    for _ in range(times):
        assert await _answers(port, "a")


async def test_envoy_port_in_use_blames_no_service(stage: Stage) -> None:
    """The shared listener cannot be bound: no part of it is rejected, so no service is left out."""
    async with upstream(echoes("hello")) as one, upstream(echoes("another")) as taken:
        stage.tls = taken.port
        await stage.serve((http("a"), (one,)), (tls("b"), (one,)), (tls("c"), (one,)))
        await until(lambda: stage.plane.server.nodes()["envoy-1"].nack, "the rejection")
        stage.configure(http("a"), tls("b"), tls("c"), http("d"))
        stage.plane.server.route("d", (one,))
        await stage.plane.everywhere("d")
        assert stage.plane.server.faults() == {}
