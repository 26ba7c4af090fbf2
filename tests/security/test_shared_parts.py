"""Settings of one service that make Envoy reject a shared listener: other services are still served."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.xds.conftest import Stage
from tests.xds.parts import Mode, Plane, echoes, envoy, plane, until, upstream
from tests.xds.test_envoy_rejections import greets, tls
from xds import ir
from xds.resources.validation import faults

pytestmark = pytest.mark.envoy
ATTACKS = (
    ("10.0.0.1", "10.0.0.1/32"),
    ("10.0.0.1", "10.0.0.1"),
    ("10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9", "10.1.2.3/8"),
    ("0.0.0.0/0", "10.0.0.1", "::/0", "::1"),
    ("::1", "0:0:0:0:0:0:0:1", "::1/128", "0::1"),
    ("FD00::/8", "fd00::/8", "fd00::1/8"),
    ("::ffff:10.0.0.1", "::ffff:a00:1/128", "10.0.0.1"),
)


def ignoring(name: str, *sources: str) -> ir.Upstream:
    return ir.Upstream(name, ir.ServiceProtocol.TLS, (f"{name}.localhost",), ignore=(ir.IgnoreMatch(sources=sources),))


@pytest.mark.parametrize("mode", ["delta", "sotw"])
async def test_tls_overlapping_sources_stop_no_other_service(tmp_path: Path, mode: Mode) -> None:
    async with (
        plane() as running,
        envoy(tmp_path, running.port, mode=mode) as joined,
        upstream(echoes("hello")) as pod,
    ):
        stage = Stage(running, joined, mode)
        attackers = [ignoring(f"attacker-{number}", *sources) for number, sources in enumerate(ATTACKS)]
        await stage.serve(*((service, (pod,)) for service in [*attackers, tls("victim")]))
        await joined.listens(stage.tls)
        await greets(stage, "victim", "hello")
        stage.configure(*attackers, tls("victim"), tls("later"))
        running.server.route("later", (pod,))
        await greets(stage, "later", "hello")
        assert running.server.nodes()["envoy-1"].nacks == 0
        assert running.server.faults() == {}


class Generator:
    """Services with settings of all kinds, whether they are right or not."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._ports = [free_port() for _ in range(3)]

    def services(self) -> Iterator[ir.Upstream]:
        for number in range(self._random.randint(1, 5)):
            yield self._service(number)

    def _service(self, number: int) -> ir.Upstream:
        protocol = self._random.choice(list(ir.ServiceProtocol))
        name = self._random.choice(["shop/", "Shop.", "s-_"]) + str(number)
        rules = tuple(self._rule(protocol) for _ in range(self._random.choice([0, 1, 1, 2])))
        if protocol is not ir.ServiceProtocol.TCP:
            domains = tuple(self._domain() for _ in range(self._random.randint(1, 3)))
            return ir.Upstream(name, protocol, domains, ignore=rules)
        hosts = ("127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1", "nowhere")
        listen = ir.SocketAddress(self._random.choice(hosts), self._random.choice(self._ports))
        return ir.Upstream(name, protocol, listen=listen, ignore=rules)

    def _domain(self) -> str:
        labels = ("a", "web", "A", "x-y", "_srv", "0", "xn--a", "a" * 63, "é", "")
        domain = ".".join(self._random.choice(labels) for _ in range(self._random.randint(1, 4)))
        odd = ("10.0.0.1", "::1", "[::1]", "*", f"*.{domain}", f"{domain}.*", f"{domain}.", f"{domain}:80", "a*b")
        return self._random.choice(odd) if self._random.random() < 0.3 else domain

    def _rule(self, protocol: ir.ServiceProtocol) -> ir.IgnoreMatch:
        sources = self._some([source for attack in ATTACKS for source in attack] + ["fe80::1%lo", "10.0.0.0/33"])
        if protocol in (ir.ServiceProtocol.TCP, ir.ServiceProtocol.TLS):
            return ir.IgnoreMatch(sources=sources)
        paths = self._some(["/", "/*", "/a", "/a*", "/%", "/a?b#c", "/\0", "/\n", "/é", "//", "/..", "/\ud800"])
        agents = self._some(["a", "kube-probe/", "\0", "\n", "é", " ", "a" * 300, "*", ""])
        body = self._random.choice(["", "x", "\0", "é", "a" * 4096, "a" * 4097, "%REQ(x)%"])
        return ir.IgnoreMatch(paths, agents, sources, self._random.choice([200, 204, 299, 404, 599, 600]), body)

    def _some(self, texts: list[str]) -> tuple[str, ...]:
        return tuple(self._random.choice(texts) for _ in range(self._random.randint(0, 3)))


def _is_settled(running: Plane) -> bool:
    [session] = running.server._sessions.values()
    return all(not sub.pending and not sub.dirty for sub in session.stream.types.values())


@pytest.mark.parametrize("seed", range(3))
async def test_envoy_accepts_all_settings_that_pass_validation(tmp_path: Path, seed: int) -> None:
    generator = Generator(seed)
    listen = ir.Listen(ir.SocketAddress("127.0.0.1", free_port()), ir.SocketAddress("127.0.0.1", free_port()))
    async with plane() as running, envoy(tmp_path, running.port):
        running.server.open()
        await until(running.server.nodes, "Envoy")
        for _ in range(25):
            services = list(generator.services())
            wrong = {*faults(listen, services)}
            running.server.configure(listen, services)
            for service in services:
                running.server.route(service.name, (ir.SocketAddress("127.0.0.1", 1),))
            await until(lambda: _is_settled(running), "the answer to all of it")
            assert running.server.nodes()["envoy-1"].nacks == 0, services
            found = running.server.faults()
            assert wrong <= found.keys()
            assert all("cannot be encoded" in found[name] for name in found.keys() - wrong)
