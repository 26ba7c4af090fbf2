"""IR to resources, as bytes: what Envoy must know of one service, and of all of them together.

Pure. The meaning is in `messages.py`; this is the quick way to the same bytes. What services of one protocol share was
encoded ahead of time (`shared.py`); each service's names and addresses are written beside it (`wire.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from xds import ignoring, ir, names, shared
from xds.types import CDS, LDS, RDS
from xds.wire import field, number, text

_CLUSTERS = {
    ir.Protocol.HTTP: shared.CLUSTER_HTTP,
    ir.Protocol.H2C: shared.CLUSTER_H2C,
    ir.Protocol.TCP: shared.CLUSTER_TCP,
    ir.Protocol.TLS: shared.CLUSTER_TLS,
}


@dataclass(frozen=True, slots=True)
class Parts:
    """What one service adds to Envoy's configuration; empty where it adds nothing. Endpoints are not part of it."""

    service: ir.Service
    cluster: bytes
    virtual_host: bytes = b""
    filter_chain: bytes = b""
    listener: bytes = b""
    ignored_cluster: bytes = b""
    answering_host: bytes = b""

    @property
    def clusters(self) -> dict[str, bytes]:
        """The clusters, by name."""
        own = {self.service.name: self.cluster}
        return {**own, names.ignored(self.service.name): self.ignored_cluster} if self.ignored_cluster else own


class Shared(Enum):
    """A resource that has parts of many services, by its type and its name."""

    HOSTS = (RDS, names.ROUTES)
    ANSWERS = (RDS, names.ANSWERS)
    CHAINS = (LDS, names.TLS_LISTENER)

    @property
    def type_url(self) -> str:
        return self.value[0]

    @property
    def resource(self) -> str:
        """The name of the resource."""
        return self.value[1]

    def part(self, parts: Parts) -> bytes:
        """Return the part of a service; empty when it has none in this resource."""
        if self is Shared.HOSTS:
            return parts.virtual_host
        return parts.answering_host if self is Shared.ANSWERS else parts.filter_chain


@dataclass(frozen=True, slots=True)
class Translation:
    """The resources of a whole configuration, but for endpoints: type, then name, then encoded message."""

    resources: dict[str, dict[str, bytes]]
    clusters_used: frozenset[str]
    """Clusters that listeners and routes name."""
    routes_used: frozenset[str]
    """Route configurations that listeners name."""


def parts(service: ir.Service) -> Parts:
    """Translate one service."""
    common = _CLUSTERS[service.protocol]
    cluster = text(1, service.name) + common
    if "." in service.name:
        cluster += text(28, names.stat_name(service.name))
    if service.leaving:
        return Parts(service, cluster)
    ignored = ignoring.cluster(service, common) if service.ignore else b""
    if service.protocol is ir.Protocol.TCP:
        assert service.listen is not None, "check.py lets no such service through"
        return Parts(service, cluster, listener=_tcp_listener(service, service.listen), ignored_cluster=ignored)
    if service.protocol is ir.Protocol.TLS:
        return Parts(service, cluster, filter_chain=_filter_chains(service), ignored_cluster=ignored)
    answers = ignoring.answering_host(service, _domains(service)) if service.ignore else b""
    host = _virtual_host(service)
    return Parts(service, cluster, virtual_host=host, ignored_cluster=ignored, answering_host=answers)


def translation(listen: ir.Listen, services: Iterable[Parts]) -> Translation:
    """Put the services' parts together."""
    all_parts = tuple(services)
    clusters = {name: cluster for part in all_parts for name, cluster in part.clusters.items()}
    own = ((part.service.listen, part.listener) for part in all_parts)
    listeners = {names.tcp_listener_name(address): listener for address, listener in own if address and listener}
    routes: dict[str, bytes] = {}
    used = {name for p in all_parts if p.listener for name in p.clusters}
    if listen.http:
        listeners[names.HTTP_LISTENER] = shared.HTTP_LISTENER + field(2, _address(listen.http))
        hosts = [p for p in all_parts if p.virtual_host]
        routes[names.ROUTES] = _route_configuration(hosts)
        used.update(name for p in hosts for name in p.clusters)
        if answers := [p.answering_host for p in hosts if p.answering_host]:
            listeners[names.ANSWERS] = shared.ANSWERS_LISTENER
            routes[names.ANSWERS] = _answers(answers)
    chains = [p for p in all_parts if p.filter_chain]
    if listen.tls and chains:
        encoded = (p.filter_chain for p in chains)
        listeners[names.TLS_LISTENER] = b"".join((shared.TLS_LISTENER, field(2, _address(listen.tls)), *encoded))
        used.update(name for p in chains for name in p.clusters)
    resources = {CDS: clusters, LDS: listeners, RDS: routes}
    return Translation(resources, frozenset(used), frozenset(routes))


def trial(kind: Shared, services: Iterable[Parts]) -> bytes:
    """Encode a listener inside of Envoy that has these services' parts of a shared resource, and nothing leads to.

    Envoy checks the parts as it does in the resource itself, and rejects the listener instead.
    """
    present = [p for p in services if kind.part(p)]
    if kind is Shared.CHAINS:
        return b"".join((shared.TLS_LISTENER, *(p.filter_chain for p in present), shared.TRIAL_CHAINS))
    routes = _route_configuration(present) if kind is Shared.HOSTS else _answers([p.answering_host for p in present])
    manager = shared.TRIAL_MANAGER + field(4, routes + shared.TRIAL_ROUTES)
    filters = field(3, shared.TRIAL_FILTER + field(4, shared.TRIAL_TYPE + field(2, manager)))
    return shared.TRIAL_LISTENER + field(3, filters)


def load_assignment(name: str, endpoints: Iterable[ir.Address], held: bool = False) -> bytes:
    """Encode a service's endpoints; neither order nor repetition matters, so neither is kept.

    `held` says that they are its hold address.
    """
    metadata = shared.HELD if held else b""
    encoded = b"".join(
        field(2, field(1, field(1, _address(endpoint))) + metadata)
        for endpoint in sorted(set(endpoints), key=lambda address: (address.host, address.port))
    )
    return text(1, name) + (field(2, encoded) if encoded else b"")


def _address(address: ir.Address) -> bytes:
    compatible = number(6, 1) if address.host == "::" else b""
    return field(1, text(2, address.host) + number(3, address.port) + compatible)


def _virtual_host(service: ir.Service) -> bytes:
    route = shared.ROUTE_MATCH + field(2, text(1, service.name) + shared.ROUTE_ACTION)
    domains = b"".join(text(2, domain) for domain in _domains(service))
    return text(1, service.name) + domains + ignoring.routes(service) + field(3, route) + shared.VIRTUAL_HOST


def _domains(service: ir.Service) -> Iterable[str]:
    return dict.fromkeys(domain.lower() for domain in service.domains)


def _route_configuration(hosts: list[Parts]) -> bytes:
    encoded = [field(2, p.virtual_host) for p in hosts]
    if not any("*" in p.service.domains for p in hosts):
        encoded.append(field(2, shared.UNKNOWN_HOST))
    return shared.ROUTES + b"".join(encoded)


def _answers(hosts: Iterable[bytes]) -> bytes:
    return shared.ANSWERS_ROUTES + b"".join(field(2, host) for host in hosts)


def _tcp_listener(service: ir.Service, address: ir.Address) -> bytes:
    chains = field(3, field(3, _tcp_proxy(service.name)))
    if sources := ignoring.source_match(service):
        chains += field(3, field(1, sources) + field(3, _tcp_proxy(names.ignored(service.name))))
    return text(1, names.tcp_listener_name(address)) + field(2, _address(address)) + chains


def _filter_chains(service: ir.Service) -> bytes:
    """Encode a TLS service's filter chains, as fields of the listener."""
    match = b"".join(text(11, domain) for domain in _domains(service))
    chains = field(3, field(1, match) + field(3, _tcp_proxy(service.name)) + text(7, service.name))
    if sources := ignoring.source_match(service):
        name = names.ignored(service.name)
        chains += field(3, field(1, sources + match) + field(3, _tcp_proxy(name)) + text(7, name))
    return chains


def _tcp_proxy(name: str) -> bytes:
    config = field(2, text(2, name) + shared.TCP_PROXY)
    return shared.TCP_PROXY_FILTER + field(4, shared.TCP_PROXY_TYPE + config)
