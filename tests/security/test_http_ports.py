"""Attacks on the HTTP ports: idle connections, and invalid headers."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import psutil
import pytest

from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, Zenvoy, quick, request
from tests.ports import free_port

pytestmark = pytest.mark.envoy

FEW = 1024
FEW_FILES = ("sh", "-c", f'ulimit -n {FEW} && exec "$@"', "sh")
"""The usual soft limit, as the hard one: it cannot be raised."""
STRANGERS, AT_ONCE = 1100, 32
"""So few at once that the kernel's queue of a port has room for them."""
LOG_BYTES = 1_000_000
ODD = (
    "application/openmetrics-text; version=one",
    "text/plain; version=1.0.0.0.x; escaping=~",
    "application/openmetrics-text;version=1.0.0\t;=;",
    ",;=,;;",
    "x" * 5000,
)


class Ports:
    """One zenvoy, and where it serves HTTP."""

    def __init__(self, start: Start) -> None:
        self.metrics, self.holder, self.grpc = free_port(), free_port(), free_port()
        options = ("--metrics", f"{LOCAL}:{self.metrics}", "--holder-metrics", f"{LOCAL}:{self.holder}")
        self.zenvoy: Zenvoy = start(
            {"name": "web", "command": quick("http")},
            options=(*options, "--grpc", f"{LOCAL}:{self.grpc}"),
            prefix=FEW_FILES,
        )


@pytest.fixture(scope="module")
def ports(shared_zenvoy: Start) -> Ports:
    return Ports(shared_zenvoy)


@pytest.fixture
def crowd() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def flood(crowd: ExitStack, port: int, begun: bytes, count: int) -> None:
    """Open connections that send the beginning of a request, and keep them."""
    for _ in range(count):
        sock = crowd.enter_context(closing(socket.socket()))
        sock.setblocking(False)
        sock.connect_ex((LOCAL, port))
        with suppress(OSError):  # not connected yet: one that sends nothing at all
            sock.send(begun)


def process_of(z: Zenvoy, word: str) -> psutil.Process:
    assert z.process
    return next(one for one in psutil.Process(z.process.pid).children() if word in one.cmdline())


@pytest.mark.parametrize(("which", "word"), [("metrics", "reconcile"), ("holder", "tproxy"), ("grpc", "reconcile")])
def test_port_idle_connections_leave_wakes_and_probes(ports: Ports, crowd: ExitStack, which: str, word: str) -> None:
    z = ports.zenvoy
    z.wait_state("web", "ScaledToZero")
    before, process, most = z.log_path.stat().st_size, process_of(z, word), 0
    port = getattr(ports, which)
    begun = b"" if which == "grpc" else b"GET /metrics HTTP/1.1\r\nHost: x\r\n"
    for _ in range(0, STRANGERS, AT_ONCE):
        flood(crowd, port, begun, AT_ONCE)
        if which != "grpc":  # answered once all that came before was accepted
            assert request(port, "x", "/healthz").status == 200
        most = max(most, process.num_fds())
    assert most < 3 * FEW // 4, "descriptors are left for wakes"
    wakes = z.wakes("web")
    assert request(z.http_port, "web").status == 200
    assert z.wakes("web") == wakes + 1
    assert z.log_path.stat().st_size - before < LOG_BYTES


@pytest.mark.parametrize("accept", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("which", ["metrics", "holder"])
def test_port_odd_accept_header_is_served(ports: Ports, which: str, accept: str) -> None:
    reply = request(getattr(ports, which), "x", "/metrics", headers={"Accept": accept})
    assert reply.status == 200
    assert accept not in reply.headers["content-type"]


def test_port_unfinished_headers_are_given_up(ports: Ports) -> None:
    """After ten seconds, however slowly more of them comes. It takes as long as that."""
    began = time.monotonic()
    with (
        socket.create_connection((LOCAL, ports.metrics), timeout=30) as metrics,
        socket.create_connection((LOCAL, ports.holder), timeout=30) as holder,
    ):
        for sock in (metrics, holder):
            sock.sendall(b"GET /metrics HTTP/1.1\r\n")
        for sock in (metrics, holder):
            assert sock.recv(1) == b""
            assert time.monotonic() - began < 25, "no other part closes it before"


def test_port_of_up_explains_nothing(ports: Ports) -> None:
    assert request(ports.metrics, "x", "/v1/services").status == 404
