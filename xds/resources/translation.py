"""Translation from the IR to resources: the part of one service, and the resources of all services."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from xds import ir
from xds.names import ANSWERS, HTTP_LISTENER, ROUTES, TLS_LISTENER, ignored, tcp_listener_name
from xds.resources import clusters, listeners, routes
from xds.types import CDS, LDS, RDS

_DEFAULTS = ir.ListenerOptions()


@dataclass(frozen=True, slots=True)
class Parts:
    """A service's part of Envoy's configuration, without its endpoints; empty where it has none."""

    service: ir.Upstream
    cluster: bytes
    virtual_host: bytes = b""
    filter_chain: bytes = b""
    listener: bytes = b""
    ignored_cluster: bytes = b""
    answering_host: bytes = b""

    @property
    def clusters(self) -> dict[str, bytes]:
        """The clusters by name."""
        own = {self.service.name: self.cluster}
        return {**own, ignored(self.service.name): self.ignored_cluster} if self.ignored_cluster else own


class SharedResource(Enum):
    """A resource that contains parts of many services, by its type and its name."""

    HOSTS = (RDS, ROUTES)
    ANSWERS = (RDS, ANSWERS)
    CHAINS = (LDS, TLS_LISTENER)

    @property
    def type_url(self) -> str:
        """The type of the resource."""
        return self.value[0]

    @property
    def resource(self) -> str:
        """The name of the resource."""
        return self.value[1]

    def part(self, parts: Parts) -> bytes:
        """Return a service's part of this resource; empty if it has none."""
        if self is SharedResource.HOSTS:
            return parts.virtual_host
        return parts.answering_host if self is SharedResource.ANSWERS else parts.filter_chain


@dataclass(frozen=True, slots=True)
class Translation:
    """The resources of a whole configuration without endpoints: encoded messages by type and name."""

    resources: dict[str, dict[str, bytes]]
    clusters_used: frozenset[str]
    """Clusters that listeners and routes name."""
    routes_used: frozenset[str]
    """Route configurations that listeners name."""


def parts(service: ir.Upstream, options: ir.ListenerOptions = _DEFAULTS) -> Parts:
    """Translate one service. Raises `ValueError` for text that cannot be encoded."""
    name, protocol = service.name, service.protocol
    cluster = clusters.cluster(name, protocol, options.keepalive_seconds)
    if service.leaving:
        return Parts(service, cluster)
    past = clusters.ignored_cluster(name, protocol, options.keepalive_seconds) if service.ignore else b""
    if protocol is ir.ServiceProtocol.TCP:
        assert service.listen is not None, "validation requires it"
        listener = listeners.tcp_listener(service, service.listen, options)
        return Parts(service, cluster, listener=listener, ignored_cluster=past)
    if protocol is ir.ServiceProtocol.TLS:
        return Parts(service, cluster, filter_chain=listeners.tls_filter_chains(service), ignored_cluster=past)
    domains = [*service.distinct_domains, *(["*"] if _is_default(service, options) else [])]
    answers = routes.answering_host(service, domains) if service.ignore else b""
    host = routes.virtual_host(service, domains)
    return Parts(service, cluster, virtual_host=host, ignored_cluster=past, answering_host=answers)


def translation(listen: ir.Listen, services: Iterable[Parts]) -> Translation:
    """Join the services' parts."""
    everything = tuple(services)
    all_clusters = {name: cluster for part in everything for name, cluster in part.clusters.items()}
    tcp = [part for part in everything if part.listener]
    all_listeners = {tcp_listener_name(part.service.listen): part.listener for part in tcp if part.service.listen}
    all_routes: dict[str, bytes] = {}
    used = {name for part in tcp for name in part.clusters}
    if listen.http:
        hosts = [part for part in everything if part.virtual_host]
        all_listeners[HTTP_LISTENER] = listeners.http_listener(listen.http, listen.options)
        all_routes[ROUTES] = _routes(hosts, listen.options)
        used.update(name for part in hosts for name in part.clusters)
        if answers := [part.answering_host for part in hosts if part.answering_host]:
            all_listeners[ANSWERS] = listeners.answers_listener()
            all_routes[ANSWERS] = routes.answering_configuration(answers)
    chains = [part for part in everything if part.filter_chain]
    if listen.tls and chains:
        encoded = (part.filter_chain for part in chains)
        all_listeners[TLS_LISTENER] = listeners.tls_listener(listen.tls, encoded, listen.options)
        used.update(name for part in chains for name in part.clusters)
    resources = {CDS: all_clusters, LDS: all_listeners, RDS: all_routes}
    return Translation(resources, frozenset(used), frozenset(all_routes))


def trial(kind: SharedResource, services: Iterable[Parts]) -> bytes:
    """Encode a listener inside Envoy that contains these services' parts of a shared resource; no traffic reaches it.

    Envoy validates the parts as it does in the resource itself, and rejects the listener instead.
    """
    present = [part for part in services if kind.part(part)]
    if kind is SharedResource.CHAINS:
        return listeners.trial_of_chains(part.filter_chain for part in present)
    if kind is SharedResource.HOSTS:
        return listeners.trial_of_routes(_routes(present, _DEFAULTS))
    return listeners.trial_of_routes(routes.answering_configuration(part.answering_host for part in present))


def _is_default(service: ir.Upstream, options: ir.ListenerOptions) -> bool:
    """Return whether a service receives the requests to unknown hosts, and its domains do not name them already."""
    return service.name == options.default_service and "*" not in service.domains


def _routes(hosts: list[Parts], options: ir.ListenerOptions) -> bytes:
    has_any_domain = any("*" in part.service.domains or _is_default(part.service, options) for part in hosts)
    return routes.route_configuration((part.virtual_host for part in hosts), has_any_domain=has_any_domain)
