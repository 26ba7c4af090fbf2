"""Routes by xDS: what Envoys are told, and what they have acknowledged. Counterparts: `reconciler.ports.router`, `xds`.

An Envoy that went away may go on routing by what it last knew, so for a while it still counts as one that must
acknowledge and must be in a sample; one that comes back under its node id takes its own place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import grpc

from reconciler.core.entitlement import StreamKind
from reconciler.core.spec import Spec
from reconciler.ports.router import Report, RouteState
from xds import ir
from xds.names import service_name
from xds.server import CLAIMED_NODE, GRPC_OPTIONS, AckedVersion, Node, NodeEvent, ResourceAck, XdsServer
from xds.types import LDS

__all__ = ["CLAIMS", "GRPC_OPTIONS", "XdsRouter", "grpc_options", "service_of_stat"]


MOST_CONNECTIONS = 10_240
"""Connections of one port of a gRPC server: two for each of 5,000 nodes, and more.

One that never begins a TLS handshake takes 60 kB for 10 s, whoever opens it: 600 MB in all.
"""


def grpc_options(open_files: int) -> tuple[tuple[str, int], ...]:
    """Return options of a gRPC server in a process that may have so many files open: half of them are for wakes."""
    return (*GRPC_OPTIONS, ("grpc.max_allowed_incoming_connections", min(MOST_CONNECTIONS, open_files // 2)))


FORGET_SECONDS = 300.0
"""How long an Envoy may be away before it no longer counts."""


CLAIMS = {method: (StreamKind.XDS, claimed) for method, claimed in CLAIMED_NODE.items()}
"""By method, the kind of stream and how to get the node id from its first message."""
service_of_stat = service_name
"""The service of a name in Envoy's statistics."""


def address(text: str) -> ir.SocketAddress:
    """`ip:port`, IPv6 in brackets, as an address."""
    host, _, port = text.rpartition(":")
    return ir.SocketAddress(host.strip("[]"), int(port))


def service(spec: Spec) -> ir.Upstream:
    """A spec in the words of xDS."""
    listen = address(spec.listen) if spec.listen else None
    ignore = tuple(
        ir.IgnoreMatch(rule.paths, rule.user_agents, rule.sources, rule.status, rule.body) for rule in spec.ignore
    )
    return ir.Upstream(spec.name, ir.ServiceProtocol(spec.protocol.value), spec.hosts, listen, ignore)


class XdsRouter:
    """All Envoys. `ticks` are seconds that nobody can set; `rejected` is told of each NACK, by node id and Envoy's
    words, `acked` of each acknowledgement, and `joined` of an Envoy that came or went, before any route is reported.

    One that is away for `forget_seconds` no longer counts; with 0 it is somebody else's to tell away from elsewhere.
    `faults` receives what is wrong with services, or was rejected of them, by service, whenever that changes.
    """

    def __init__(
        self,
        report: Report,
        ticks: Callable[[], float],
        rejected: Callable[[str, str], None],
        acked: Callable[[str], None],
        joined: Callable[[], None] = lambda: None,
        forget_seconds: float = FORGET_SECONDS,
        faults: Callable[[Mapping[str, str]], None] = lambda _: None,
    ) -> None:
        self._report, self._ticks, self._rejected, self._acked = report, ticks, rejected, acked
        self._joined, self._forget_seconds = joined, forget_seconds
        self._gone: dict[str, float] = {}
        self._known: dict[str, tuple[Spec, ir.Upstream]] = {}
        self._routed: set[str] = set()
        self._server = XdsServer(on_change=self._changed, on_node=self._node, on_faults=faults)

    def configure(self, http: str | None, tls: str | None, specs: Iterable[Spec], leaving: Iterable[Spec] = ()) -> None:
        """These are all services from now on. A service that cannot be served is among the faults, and left out.

        Raises `ValueError` when none can be served.

        No new connection gets to those that are `leaving`; what is in flight there goes on.
        """
        listen = ir.Listen(address(http) if http else None, address(tls) if tls else None)
        present = [self._translated(spec) for spec in specs]
        services = [entry for _, entry in present] + [replace(service(spec), leaving=True) for spec in leaving]
        self._server.configure(listen, services)
        self._known = {spec.name: (spec, entry) for spec, entry in present}
        self._routed &= {entry.name for entry in services}

    def _translated(self, spec: Spec) -> tuple[Spec, ir.Upstream]:
        """One that did not change is not translated again, of which there may be ten thousand."""
        known = self._known.get(spec.name)
        return known if known and (known[0] is spec or known[0] == spec) else (spec, service(spec))

    def open(self) -> None:
        """Answer Envoys from now on; before, a route may be missing."""
        self._server.open()

    async def close(self) -> None:
        """Say good-bye to Envoys; to be awaited before the gRPC server stops."""
        await self._server.close()

    def handler(self) -> grpc.GenericRpcHandler:
        """To be added to the gRPC server."""
        return self._server.handler()

    def route(self, service: str, endpoints: tuple[str, ...], held: bool) -> None:
        self._routed.add(service)
        self._server.route(service, tuple(address(endpoint) for endpoint in endpoints), held)
        self._report(self._state(service))

    def envoys(self) -> frozenset[str]:
        return frozenset(self._server.nodes()) | self.away()

    def nodes(self) -> Mapping[str, Node]:
        """Connected Envoys by node id, for people."""
        return self._server.nodes()

    def stats(self) -> Mapping[str, str]:
        """Return where the statistics of each connected Envoy can be read, as `ip:port`, by node id.

        The IP address is that of its stream. The metadata of its node names the port and nothing else: an Envoy cannot
        lead to another host. Empty where it names none.
        """
        return {node.id: _stats_address(node) for node in self._server.nodes().values()}

    def faults(self) -> Mapping[str, str]:
        """Return what is wrong with services, or was rejected of them, by service."""
        return self._server.faults()

    def has(self, service: str) -> Mapping[str, AckedVersion]:
        """What each connected Envoy has of a service's route, by node id, for people."""
        return self._server.has(service)

    def version(self, service: str) -> str:
        """The version of a service's present route, for people."""
        return self._server.version(service)

    def serves(self, node: str) -> bool:
        """Whether an Envoy has its listeners."""
        envoy = self._server.nodes().get(node)
        return envoy is not None and bool(envoy.versions.get(LDS))

    def away(self) -> frozenset[str]:
        """Node ids of the Envoys that went away, and still count."""
        return frozenset(self._gone)

    def _changed(self, ack: ResourceAck) -> None:
        self._acked(ack.node)
        for service in ack.services:
            if service in self._routed:
                self._report(self._state(service))

    def _node(self, event: NodeEvent) -> None:
        """Who has to acknowledge has changed, and so has every route's state."""
        if event.kind == "nacked":
            if event.node.nack:
                self._rejected(event.node.id, event.node.nack.message)
            return
        if event.kind == "connected":
            self._gone.pop(event.node.id, None)
        elif self._forget_seconds:
            self._gone[event.node.id] = self._ticks()
            self._forget_later(event.node.id, self._forget_seconds)
        self._report_all()

    def _forget_later(self, node: str, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._forget, node)

    def _forget(self, node: str) -> None:
        """Its time may be over; after it came back and went again, that is later."""
        if (at := self._gone.get(node)) is None:
            return
        if (left := at + self._forget_seconds - self._ticks()) > 0:
            self._forget_later(node, left)
        else:
            del self._gone[node]
            self._report_all()

    def _report_all(self) -> None:
        """Who has to acknowledge is another now."""
        self._joined()
        for name in list(self._routed):
            self._report(self._state(name))

    def _state(self, service: str) -> RouteState:
        acked = self._server.acked(service)
        pending = sorted(acked.missing | self.away())
        if pending:
            return RouteState(service, None, f"Envoy {', '.join(pending)}")
        if not acked.nodes:
            return RouteState(service, None, "no Envoy is connected")
        return RouteState(service, acked.at, "")


def _stats_address(node: Node) -> str:
    port = node.stats.rpartition(":")[2]
    if not (node.address and port.isascii() and port.isdecimal() and len(port) <= 5):
        return ""
    return f"[{node.address}]:{port}" if ":" in node.address else f"{node.address}:{port}"
