"""Translation from the IR to resources: the part of one service, and the resources of all services."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter
from types import MappingProxyType

from xds import ir, names
from xds.names import CDS, LDS, RDS
from xds.resources import clusters, listeners, routes

_DEFAULTS = ir.ListenerOptions()
Resources = Mapping[str, Mapping[str, bytes]]
"""Encoded messages by type and name."""
_NONE: Resources = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Parts:
    """A service's part of Envoy's configuration, without its endpoints; empty where it has none."""

    service: ir.Upstream
    cluster: bytes
    own: Resources
    """Its own listeners, and their routes."""
    virtual_host: bytes = b""
    filter_chain: bytes = b""
    ignored_cluster: bytes = b""
    answering_host: bytes = b""

    @property
    def clusters(self) -> dict[str, bytes]:
        """The clusters by name."""
        named = {self.service.name: self.cluster}
        return {**named, names.ignored(self.service.name): self.ignored_cluster} if self.ignored_cluster else named

    @property
    def answers(self) -> str:
        """The name of the listener inside Envoy that answers ignored requests while it is held; empty if none does."""
        if (name := names.own_answers_name(self.service.name)) in self.own.get(LDS, ()):
            return name
        return names.ANSWERS if self.answering_host else ""


class SharedResource(Enum):
    """A resource that contains parts of many services, by its type and its name."""

    HOSTS = RDS, names.ROUTES, attrgetter("virtual_host")
    ANSWERS = RDS, names.ANSWERS, attrgetter("answering_host")
    CHAINS = LDS, names.TLS_LISTENER, attrgetter("filter_chain")

    def __init__(self, type_url: str, resource: str, part: Callable[[Parts], bytes]) -> None:
        """`part` returns a service's part of this resource; empty if it has none."""
        self.type_url, self.resource, self.part = type_url, resource, part


def parts(service: ir.Upstream, options: ir.ListenerOptions = _DEFAULTS) -> Parts:
    """Translate one service. Raises `ValueError` for text that cannot be encoded."""
    name, protocol = service.name, service.protocol
    cluster = clusters.cluster(name, protocol, options.keepalive_seconds)
    if service.leaving:
        return Parts(service, cluster, _NONE)
    past = clusters.ignored_cluster(name, protocol, options.keepalive_seconds) if service.ignore else b""
    own = _own(service, service.listen, options) if service.listen else _NONE
    if protocol is ir.ServiceProtocol.TCP:
        return Parts(service, cluster, own, ignored_cluster=past)
    if protocol is ir.ServiceProtocol.TLS:
        return Parts(service, cluster, _NONE, filter_chain=listeners.tls_filter_chains(service), ignored_cluster=past)
    domains = [*service.distinct_domains, *(["*"] if _is_default(service, options) else [])]
    answers = routes.answering_host(service, domains) if service.ignore and not service.listen else b""
    host = routes.virtual_host(service, domains) if domains else b""
    return Parts(service, cluster, own, host, ignored_cluster=past, answering_host=answers)


def _own(service: ir.Upstream, address: ir.SocketAddress, options: ir.ListenerOptions) -> Resources:
    own = {names.own_listener_name(address): listeners.own_listener(service, address, options)}
    if not service.protocol.is_http:
        return {LDS: own}
    name = names.own_routes_name(service.name)
    every_host = [routes.virtual_host(service, ["*"])]
    all_routes = {name: routes.route_configuration(every_host, has_any_domain=True, name=name)}
    if service.ignore:
        name = names.own_answers_name(service.name)
        own[name] = listeners.answers_listener(name)
        all_routes[name] = routes.answering_configuration([routes.answering_host(service, ["*"])], name)
    return {LDS: own, RDS: all_routes}


def translation(listen: ir.Listen, services: Iterable[Parts]) -> dict[str, dict[str, bytes]]:
    """Join the services' parts; return all resources without endpoints, encoded, by type and name."""
    everything = tuple(services)
    all_clusters = {name: cluster for part in everything for name, cluster in part.clusters.items()}
    alone = [part for part in everything if part.own]
    all_listeners = {name: listener for part in alone for name, listener in part.own[LDS].items()}
    all_routes = {name: encoded for part in alone for name, encoded in part.own.get(RDS, {}).items()}
    if listen.http:
        hosts = [part for part in everything if part.virtual_host]
        all_listeners[names.HTTP_LISTENER] = listeners.http_listener(listen.http, listen.options)
        all_routes[names.ROUTES] = _routes(hosts, listen.options)
        if answers := [part.answering_host for part in hosts if part.answering_host]:
            all_listeners[names.ANSWERS] = listeners.answers_listener(names.ANSWERS)
            all_routes[names.ANSWERS] = routes.answering_configuration(answers)
    chains = [part.filter_chain for part in everything if part.filter_chain]
    if listen.tls and chains:
        all_listeners[names.TLS_LISTENER] = listeners.tls_listener(listen.tls, chains, listen.options)
    return {CDS: all_clusters, LDS: all_listeners, RDS: all_routes}


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
