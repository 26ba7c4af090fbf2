"""EndpointSlices that change by hand, with a real API server between the test and the backend."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.cluster.stage import Stage, endpoint, entry, own_address

HERE = own_address()
UNREACHABLE = "192.0.2.1"
"""TEST-NET-1 of RFC 5737: nothing answers there."""


@pytest.fixture
async def stage(stage: Stage) -> Stage:
    await stage.deploy("web", 3)
    return stage


@pytest.fixture
def ports() -> Iterator[tuple[int, int]]:
    """Provide two ports of a server that accepts connections."""
    with socket.create_server((HERE, 0)) as one, socket.create_server((HERE, 0)) as two:
        yield one.getsockname()[1], two.getsockname()[1]


async def test_endpoints_of_several_slices_come_and_go(stage: Stage, ports: tuple[int, int]) -> None:
    stage.configure(entry("web", stage.namespace))
    await stage.until("web", lambda running: running.replicas == 3)
    first, second = (f"{HERE}:{port}" for port in ports)
    await stage.slice("web-a", "web", [endpoint(HERE, "one")], ports[0])
    await stage.until("web", lambda running: running.endpoints == (first,))
    await stage.slice("web-b", "web", [endpoint(HERE, "two")], ports[1])
    await stage.until("web", lambda running: running.endpoints == tuple(sorted((first, second))))
    await stage.delete("endpointslices", "web-a", "discovery.k8s.io/v1")
    await stage.until("web", lambda running: running.endpoints == (second,))
    await stage.slice("web-b", "web", [endpoint(HERE, "two", ready=False)], ports[1])
    await stage.until("web", lambda running: running.endpoints == ())
    await stage.slice("web-b", "web", [endpoint(HERE, "two")], ports[1])
    await stage.until("web", lambda running: running.endpoints == (second,))


async def test_endpoints_terminating_serve_until_replaced(stage: Stage, ports: tuple[int, int]) -> None:
    """As with a rollout of the strategy Recreate."""
    await stage.slice("web-a", "web", [endpoint(HERE, "one")], ports[0])
    stage.configure(entry("web", stage.namespace))
    await stage.until("web", lambda running: running.endpoints)
    await stage.slice("web-a", "web", [endpoint(HERE, "one", ready=False, serving=True, terminating=True)], ports[0])
    await stage.slice("web-b", "web", [endpoint(HERE, "two")], ports[1])
    await stage.until("web", lambda running: running.endpoints == (f"{HERE}:{ports[1]}",))
    assert all(running.endpoints for running in stage.all("web"))


async def test_endpoints_named_port_differs_by_slice(stage: Stage, ports: tuple[int, int]) -> None:
    await stage.slice("web-a", "web", [endpoint(HERE, "one")], ports[0], "http")
    await stage.slice("web-b", "web", [endpoint(HERE, "two")], ports[1], "http")
    await stage.slice("web-c", "web", [endpoint(HERE, "one")], 9, "metrics")
    stage.configure(entry("web", stage.namespace, port="http"))
    expected = tuple(sorted(f"{HERE}:{port}" for port in ports))
    await stage.until("web", lambda running: running.endpoints == expected)


async def test_endpoints_of_other_services_are_ignored(stage: Stage, ports: tuple[int, int]) -> None:
    await stage.slice("other-a", "other", [endpoint(HERE, "one")], ports[0])
    stage.configure(entry("web", stage.namespace))
    running = await stage.until("web", lambda running: running.replicas == 3)
    assert running.endpoints == ()
    stage.configure(entry("web", stage.namespace, service="other"))
    await stage.until("web", lambda running: running.endpoints)


async def test_endpoints_at_start_are_trusted_and_new_ones_dialled(stage: Stage, ports: tuple[int, int]) -> None:
    with socket.socket() as later:
        later.bind((HERE, 0))
        port = later.getsockname()[1]
        await stage.slice("web-a", "web", [endpoint(UNREACHABLE, "one")], ports[0])
        stage.configure(entry("web", stage.namespace))
        await stage.until("web", lambda running: running.endpoints == (f"{UNREACHABLE}:{ports[0]}",))
        await stage.slice("web-b", "web", [endpoint(HERE, "two")], port)
        await stage.scale("web", 4)
        running = await stage.until("web", lambda running: running.replicas == 4)
        assert f"{HERE}:{port}" not in running.endpoints, "ready is not reachable"
        later.listen()
        await stage.until("web", lambda running: f"{HERE}:{port}" in running.endpoints)
