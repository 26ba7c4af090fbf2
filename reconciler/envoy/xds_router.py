"""The router port by xDS: sends routes to Envoys and reports acknowledgements.

Counterparts: `reconciler.ports.router`, `xds`. An Envoy that disconnected may continue to route by its last state, so
for `forget_seconds` it must still acknowledge and be in each sample, unless it reconnects with the same node id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace

from reconciler.core.access import StreamKind
from reconciler.core.address import Address, join_address, split_address
from reconciler.core.spec import Spec
from reconciler.ports.clock import FORGET_SECONDS
from reconciler.ports.router import ProxySettings, Report, RouteState
from xds import ir
from xds.server import CLAIMED_NODE, GRPC_OPTIONS, Node, NodeEvent, XdsServer

MAX_CONNECTIONS = 10_240
"""The limit on connections of a gRPC port: two for each of 5,000 nodes, and a few more.

A connection that never begins a TLS handshake takes 60 kB for 10 s: at most 600 MB in total.
"""
DEFAULT_PROXY = ProxySettings()
CLAIMS = {method: (StreamKind.XDS, claimed) for method, claimed in CLAIMED_NODE.items()}
"""By method, the kind of stream, and how to read the node id from its first message."""


def grpc_options(open_files: int) -> tuple[tuple[str, int], ...]:
    """Return options of a gRPC server, which uses at most half of the process's open files: wakes need the rest."""
    return (*GRPC_OPTIONS, ("grpc.max_allowed_incoming_connections", min(MAX_CONNECTIONS, open_files // 2)))


def address(text: str) -> ir.SocketAddress:
    """Parse `ip:port`, with IPv6 in brackets."""
    return ir.SocketAddress(*split_address(text))


def options(proxy: ProxySettings, http: str | None) -> ir.ListenerOptions:
    """Translate settings to the same ones of xDS; `http` is the address of the HTTP listener."""
    return ir.ListenerOptions(**asdict(proxy) | {"trusted_hops": _trusted_hops(proxy.trusted_hops, http)})


def _trusted_hops(hops: int | None, listener: str | None) -> int:
    """Return the number of proxies in front of a listener: by default one if only this machine can connect to it."""
    if hops is not None:
        return hops
    return int(listener is not None and Address.parse(listener).ip.is_loopback)


def service(spec: Spec, proxy: ProxySettings = DEFAULT_PROXY) -> ir.Upstream:
    """Translate a spec to the model of xDS."""
    listen = address(spec.listen) if spec.listen else None
    said = proxy.trusted_hops if spec.trusted_hops is None else spec.trusted_hops
    hops = _trusted_hops(said, spec.listen) if spec.listen and spec.protocol.is_http else 0
    ignore = tuple(
        ir.IgnoreMatch(rule.paths, rule.user_agents, rule.sources, rule.status, rule.body) for rule in spec.ignore
    )
    protocol = ir.ServiceProtocol(spec.protocol.value)
    return ir.Upstream(spec.name, protocol, spec.hosts, listen, ignore, trusted_hops=hops)


class XdsRouter:
    """The routes of all Envoys.

    `rejected` is called for each NACK, with the node id and Envoy's message; `acked` for each acknowledgement; `joined`
    when an Envoy connects or disconnects, before any route is reported; `faults` when the errors of services change,
    including rejections by Envoys, by service. With 0 for `forget_seconds`, another replica may serve the Envoy: the
    caller then decides whether it counts.
    """

    def __init__(
        self,
        report: Report,
        rejected: Callable[[str, str], None],
        acked: Callable[[str], None],
        joined: Callable[[], None] = lambda: None,
        forget_seconds: float = FORGET_SECONDS,
        faults: Callable[[Mapping[str, str]], None] = lambda _: None,
    ) -> None:
        self._report, self._rejected, self._acked = report, rejected, acked
        self._joined, self._forget_seconds = joined, forget_seconds
        self._gone: dict[str, asyncio.TimerHandle] = {}
        """By node id of a disconnected Envoy that still counts, the timer that ends this."""
        self._known: dict[str, tuple[Spec, ir.Upstream]] = {}
        self._proxy = DEFAULT_PROXY
        """The settings with which they were translated."""
        self._routed: set[str] = set()
        self.server = XdsServer(on_ack=self._on_ack, on_node=self._on_node, on_faults=faults)
        """Open it when all routes are known, and close it before the gRPC server stops."""

    def configure(
        self,
        http: str | None,
        tls: str | None,
        specs: Iterable[Spec],
        leaving: Iterable[Spec] = (),
        proxy: ProxySettings = DEFAULT_PROXY,
    ) -> None:
        """Replace the services. A service that cannot be served is left out, and is among the faults.

        Services in `leaving` receive no new connections; requests in flight continue.
        Raises `ValueError` if no service can be served.
        """
        listen = ir.Listen(address(http) if http else None, address(tls) if tls else None, options(proxy, http))
        if proxy != self._proxy:
            self._known, self._proxy = {}, proxy
        present = [self._translated(spec) for spec in specs]
        services = [entry for _, entry in present] + [replace(service(spec), leaving=True) for spec in leaving]
        self.server.configure(listen, services)
        self._known = {spec.name: (spec, entry) for spec, entry in present}
        self._routed &= {entry.name for entry in services}

    def _translated(self, spec: Spec) -> tuple[Spec, ir.Upstream]:
        """Return a spec with its translation, which is reused if the spec did not change: there may be 10,000."""
        known = self._known.get(spec.name)
        return known if known and (known[0] is spec or known[0] == spec) else (spec, service(spec, self._proxy))

    def route(self, service: str, endpoints: tuple[str, ...], held: bool) -> RouteState:
        self._routed.add(service)
        self.server.route(service, tuple(address(endpoint) for endpoint in endpoints), held)
        return self._state(service)

    def envoys(self) -> frozenset[str]:
        return frozenset(self.server.nodes()) | self.away()

    def stats(self) -> Mapping[str, str]:
        """Return the address of each connected Envoy's statistics, as `ip:port`, by node id; empty without a port.

        The IP address is that of its stream and only the port comes from its node metadata: an Envoy cannot point to
        another host.
        """
        return {node.id: _stats_address(node) for node in self.server.nodes().values()}

    def away(self) -> frozenset[str]:
        """Return the node ids of disconnected Envoys that still count."""
        return frozenset(self._gone)

    def _on_ack(self, node: str, services: tuple[str, ...]) -> None:
        self._acked(node)
        for service in services:
            if service in self._routed:
                self._report(self._state(service))

    def _on_node(self, event: NodeEvent, node: Node) -> None:
        if event == "nacked":
            if node.nack:
                self._rejected(node.id, node.nack.message)
            return
        if event == "connected":
            if node.id in self._gone:
                self._gone.pop(node.id).cancel()
        elif self._forget_seconds:
            loop = asyncio.get_running_loop()
            self._gone[node.id] = loop.call_later(self._forget_seconds, self._forget, node.id)
        self._report_all()

    def _forget(self, node: str) -> None:
        del self._gone[node]
        self._report_all()

    def _report_all(self) -> None:
        """Report all routes: the Envoys that must acknowledge have changed."""
        self._joined()
        for name in list(self._routed):
            self._report(self._state(name))

    def _state(self, service: str) -> RouteState:
        acked = self.server.acked(service)
        if pending := sorted({node for node, (_, at) in acked.items() if at is None} | self.away()):
            return RouteState(service, None, f"Envoy {', '.join(pending)}")
        if not acked:
            return RouteState(service, None, "no Envoy is connected")
        return RouteState(service, max(at for _, at in acked.values() if at is not None), "")


def _stats_address(node: Node) -> str:
    port = node.stats.rpartition(":")[2]
    if not (node.address and port.isascii() and port.isdecimal() and len(port) <= 5):
        return ""
    return join_address(node.address, int(port))
