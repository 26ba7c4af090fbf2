"""Acknowledgements by real xDS clients that connect, disconnect and stay away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import pytest

from reconciler.core.spec import Spec
from reconciler.envoy.xds_router import XdsRouter, options, service
from reconciler.ports.router import ProxySettings, RouteState
from tests.reconciler.replication.test_peers import POD, WEB, Envoy, until
from xds.server import GRPC_OPTIONS

SHORT_SECONDS = 0.3


@dataclass
class Reconciler:
    """A router behind a real gRPC server, and its reports."""

    address: str
    router: XdsRouter
    states: list[RouteState]


@pytest.fixture
async def reconciler() -> AsyncIterator[Reconciler]:
    states: list[RouteState] = []
    router = XdsRouter(states.append, lambda *_: None, lambda _: None, forget_seconds=SHORT_SECONDS)
    router.configure("127.0.0.1:10000", None, [WEB])
    router.server.open()
    server = grpc.aio.server(options=GRPC_OPTIONS)
    server.add_generic_rpc_handlers((router.server.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield Reconciler(f"127.0.0.1:{port}", router, states)
    await router.server.close()
    await server.stop(0)


async def test_router_reports_a_route_once_an_envoy_is_forgotten(reconciler: Reconciler) -> None:
    here, gone = Envoy("here", WEB.name), Envoy("gone", WEB.name)
    reconciler.router.route(WEB.name, (POD,), held=False)
    await here.joins(reconciler)
    await gone.joins(reconciler)
    await until(lambda: reconciler.states[-1].acked_at is not None, "both to acknowledge")
    known = len(reconciler.states)
    await gone.leaves()
    await until(lambda: "Envoy gone" in [state.waiting_for for state in reconciler.states[known:]], "it to be missed")
    await until(lambda: reconciler.states[-1].acked_at is not None, "it to be removed without a query")
    assert reconciler.router.away() == frozenset()
    await here.leaves()


async def test_router_returns_the_state_of_a_new_route(reconciler: Reconciler) -> None:
    assert reconciler.router.route(WEB.name, (POD,), held=False) == RouteState(WEB.name, None, "no Envoy is connected")
    assert reconciler.states == [], "only later changes are reported"


@pytest.mark.parametrize(
    ("address", "hops", "trusted"),
    [
        ("127.0.0.1:80", None, 1),
        ("[::1]:80", None, 1),
        ("0.0.0.0:80", None, 0),
        (None, None, 0),
        ("127.0.0.1:80", 0, 0),
    ],
)
def test_options_unset_hops_trust_this_machine(address: str | None, hops: int | None, trusted: int) -> None:
    assert options(ProxySettings(trusted_hops=hops), address).trusted_hops == trusted


@pytest.mark.parametrize(
    ("listen", "own", "shared", "trusted"),
    [
        ("127.0.0.1:80", None, None, 1),
        ("0.0.0.0:80", None, None, 0),
        ("127.0.0.1:80", None, 2, 2),
        ("0.0.0.0:80", 3, 2, 3),
        ("127.0.0.1:80", 0, None, 0),
        (None, None, 2, 0),
    ],
)
def test_service_unset_hops_are_those_of_its_own_address(
    listen: str | None, own: int | None, shared: int | None, trusted: int
) -> None:
    proxy, spec = ProxySettings(trusted_hops=shared), Spec(name="web", listen=listen, trusted_hops=own)
    assert service(spec, proxy).trusted_hops == trusted
