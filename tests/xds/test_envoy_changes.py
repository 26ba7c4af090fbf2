"""Changes and accidents, as real Envoy takes them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.xds.conftest import Stage
from tests.xds.parts import Mode, Plane, echoes, envoy, http_get, pages, plane, until, until_async, upstream
from tests.xds.test_envoy_protocols import http, line, tcp
from xds import ir

pytestmark = pytest.mark.envoy
both = pytest.mark.parametrize("mode", ["delta", "sotw"])
NOBODYS = "192.0.2.1"
"""An address for documentation (RFC 5737): it is not this machine's, so Envoy cannot listen on it."""


async def test_envoy_server_not_open_is_served_nothing(stage: Stage) -> None:
    async with upstream(pages("a")) as a:
        await until(stage.plane.server.nodes, "Envoy")
        stage.configure(http("a"))
        stage.plane.server.route("a", (a,))
        assert stage.plane.lacking("a") == {"envoy-1"}
        with pytest.raises(OSError, match="Connect call failed"):
            await http_get(stage.http, "a")
        stage.plane.server.open()
        await stage.envoy.listens(stage.http)
        assert await http_get(stage.http, "a") == (200, "a for a")


async def test_envoy_rejects_update_keeps_the_last_good_version(stage: Stage) -> None:
    server = stage.plane.server
    async with upstream(pages("a")) as a:
        await stage.serve((http("a"), (a,)))
        bad = ir.Upstream("db", ir.ServiceProtocol.TCP, listen=ir.SocketAddress(NOBODYS, 5432))
        stage.configure(http("a"), bad)
        server.route("db", (a,))
        nack = await until(lambda: server.nodes()["envoy-1"].nack, "a NACK")
        assert nack is not None
        assert server.faults().keys() == {"db"}
        assert "cannot bind" in nack.message and NOBODYS in nack.message
        assert stage.plane.events[-1][0] == "nacked"
        assert await http_get(stage.http, "a") == (200, "a for a")

        for _ in range(5):  # other things go on, and nothing is tried again
            await stage.move("a", a, ir.SocketAddress("127.0.0.1", free_port()))
            await stage.move("a", a)
        assert server.nodes()["envoy-1"].nacks == 1

        other, port = free_port(), free_port()
        stage.configure(http("a"), bad, tcp("other", other))
        server.route("other", (a,))
        await stage.envoy.listens(other)
        assert server.nodes()["envoy-1"].nack, "accepting other resources later does not clear the rejection"
        assert server.faults().keys() == {"db"}

        stage.configure(http("a"), tcp("db", port))
        await stage.envoy.listens(port)
        await until(lambda: server.nodes()["envoy-1"].nack is None, "it is mended")
        # A state of the world has the rejected one in it too.
        assert server.nodes()["envoy-1"].nacks == (1 if stage.mode == "delta" else 2)


async def test_envoy_service_removed_and_added_again_is_served(stage: Stage) -> None:
    port = free_port()
    async with upstream(pages("a")) as a, upstream(pages("b")) as b, upstream(echoes("db")) as db:
        for _ in range(3):
            await stage.serve((http("a"), (a,)), (http("b"), (b,)), (tcp("db", port), (db,)))

            async def answers(expected: tuple[int, str] = (200, "b for b")) -> bool:
                return await http_get(stage.http, "b") == expected

            await until_async(answers, "the added service")
            await stage.envoy.listens(port)
            assert await line(port) == "db\n"
            stage.configure(http("a"))

            async def gone() -> bool:
                clusters = await stage.envoy.stats("cluster_manager.active_clusters")
                return bool(clusters["cluster_manager.active_clusters"] == 2)  # zenvoy_ads and a

            await until_async(gone, "the end of the removed clusters")
            assert (await http_get(stage.http, "b"))[0] == 404
            assert await http_get(stage.http, "a") == (200, "a for a")
    assert stage.plane.server.nodes()["envoy-1"].nacks == 0


async def test_envoy_two_services_swap_their_ports(stage: Stage) -> None:
    one, two = free_port(), free_port()
    async with upstream(echoes("a")) as a, upstream(echoes("b")) as b:
        await stage.serve((tcp("a", one), (a,)), (tcp("b", two), (b,)))
        await stage.envoy.listens(one)
        await stage.envoy.listens(two)
        assert (await line(one), await line(two)) == ("a\n", "b\n")
        stage.configure(tcp("a", two), tcp("b", one))

        async def swapped() -> bool:
            return (await line(one), await line(two)) == ("b\n", "a\n")

        await until_async(swapped, "the swap")
    assert stage.plane.server.nodes()["envoy-1"].nacks == 0


async def test_envoy_new_service_is_never_partial(stage: Stage) -> None:
    """It is unknown (404), then it answers (200): never a route to a cluster that Envoy does not have (503)."""
    async with upstream(pages("web")) as web:
        services = [(http("a"), (web,))]
        await stage.serve(*services)
        for number in range(20):
            name = f"new-{number}"
            services.append((http(name), (web,)))
            stage.configure(*(service for service, _ in services))
            stage.plane.server.route(name, (web,))
            seen = {404}
            while 200 not in seen:
                seen.add((await http_get(stage.http, name))[0])
            assert seen == {404, 200}


async def test_envoy_service_protocol_changes_is_served(stage: Stage) -> None:
    """Envoy warms a changed cluster with endpoints that did not change; until then the old one serves."""

    async def old_fashioned(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        preface = await reader.readuntil(b"\r\n")
        text = b"HTTP/2" if preface == b"PRI * HTTP/2.0\r\n" else b"HTTP/1"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n" + text)
        writer.close()
        spoken.append(text.decode())

    spoken: list[str] = []
    async with upstream(old_fashioned) as a:
        await stage.serve((http("a"), (a,)))
        for protocol, expected in ((ir.ServiceProtocol.H2C, "HTTP/2"), (ir.ServiceProtocol.HTTP, "HTTP/1")) * 2:
            stage.configure(ir.Upstream("a", protocol, ("a",)))

            async def spoke(expected: str = expected) -> bool:
                await http_get(stage.http, "a")
                return spoken[-1] == expected

            await until_async(spoke, f"{expected} to the service", timeout=60)
            await stage.plane.everywhere("a")


@both
async def test_envoy_server_gone_continues_and_reconnects(mode: Mode, tmp_path: Path) -> None:
    port, http_port, db_port = (free_port() for _ in range(3))
    listen = ir.Listen(http=ir.SocketAddress("127.0.0.1", http_port))
    services = [http("a"), tcp("db", db_port)]
    async with (
        upstream(pages("a")) as a,
        upstream(pages("hold")) as hold,
        upstream(echoes("db")) as db,
        envoy(tmp_path, port, mode=mode) as joined,
    ):
        for first in (True, False):
            async with plane(port) as running:
                running.server.configure(listen, services)
                running.server.route("a", (a,))
                running.server.route("db", (db,))
                running.server.open()
                await running.everywhere("a", "db")
                if first:
                    await joined.listens(http_port)
                    await joined.listens(db_port)
                running.server.route("a", (hold,))
                await running.everywhere("a")
                assert await http_get(http_port, "a") == (200, "hold for a")
            assert await http_get(http_port, "a") == (200, "hold for a")
            assert await line(db_port) == "db\n"


@both
async def test_envoy_reconnect_equal_resources_are_not_changed(mode: Mode, tmp_path: Path) -> None:
    """Wakes and sleeps keep connections only as long as no listener, route or cluster is made anew."""
    port, http_port, db_port = (free_port() for _ in range(3))
    listen = ir.Listen(http=ir.SocketAddress("127.0.0.1", http_port))
    changes = "listener_manager|cluster_manager|membership_change|config_reload"
    before: dict[str, object] = {}
    async with upstream(pages("a")) as a, upstream(echoes("db")) as db, envoy(tmp_path, port, mode=mode) as joined:
        for _ in range(3):
            async with plane(port) as running:
                running.server.configure(listen, [http("a"), tcp("db", db_port)])
                running.server.route("a", (a,))
                running.server.route("db", (db,))
                running.server.open()
                await running.everywhere("a", "db")

                async def settled(running: Plane = running) -> bool:
                    [node] = running.server.nodes().values()
                    return all(node.versions.values()) and len(node.versions) == 4

                await until_async(settled, "all is acknowledged")
                await joined.listens(http_port)
                await joined.listens(db_port)
                now = await joined.stats(changes)
                assert now["listener_manager.listener_added"] >= 2
                assert now["cluster_manager.cluster_added"] >= 2
                assert now == (before or now)
                before = now


@both
async def test_acked_two_envoys_needs_both_until_one_is_gone(mode: Mode, tmp_path: Path) -> None:
    async with (
        plane() as running,
        upstream(pages("a")) as a,
        envoy(tmp_path, running.port, mode=mode, node="one"),
        envoy(tmp_path, running.port, mode=mode, node="two") as two,
    ):
        running.server.configure(ir.Listen(http=ir.SocketAddress("127.0.0.1", free_port())), [http("a")])
        running.server.route("a", (a,))
        await until(lambda: len(running.server.nodes()) == 2, "both Envoys")
        assert running.lacking("a") == {"one", "two"}
        running.server.open()
        await running.everywhere("a", envoys=2)
        two.process.kill()
        await until(lambda: set(running.server.nodes()) == {"one"}, "the end of the second")
        assert running.having("a") == {"one"}
