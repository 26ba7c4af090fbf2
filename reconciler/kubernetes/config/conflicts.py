"""Conflicts over hosts and ports of the proxy: the older ScaledService owns it, the younger one reports a problem.

Pure. A service that loses its port or some hosts keeps the rest; one that loses everything is not in force. If several
ScaledServices name one Service, the younger ones lose its names without a problem as long as they have other hosts.
Counterpart: `host_policy.py`, which decides what a namespace may claim at all.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field, replace

from reconciler.core.reasons import Problem, Reason
from reconciler.core.spec import Protocol, Spec
from reconciler.core.text import join_words
from reconciler.kubernetes.config.host_policy import HostPolicy, normalize_host
from reconciler.kubernetes.config.service_config import ServiceConfig


def reserved_ports(
    http: int = 10000, tls: int = 10443, diverted: range = range(0), captured: range = range(0)
) -> Mapping[int, str]:
    """Return the ports that no service may listen on, with what they are.

    `http` and `tls` are those of the shared listeners; `diverted` are those that a rule of mode tproxy diverts, and
    `captured` those that are assigned to captured Services.
    """
    return {
        **dict.fromkeys(captured, "captured Services"),
        **dict.fromkeys(diverted, "the hold addresses"),
        http: "the listener that http, h2c, and auto services share",
        tls: "the listener that tls services share",
        9901: "Envoy's administration",
        9902: "Envoy's statistics",
        18001: "the holder",
        18081: "the holder's metrics",
    }


RESERVED_PORTS = reserved_ports()


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """The rules for claims, in addition to the age of the ScaledServices."""

    reserved: Mapping[int, str]
    """Ports of the proxy's own, with what they are."""
    policy: HostPolicy
    namespaces: Container[str] | None
    """Those of the cluster, kept current by the caller; None if they are unknown."""


@dataclass(slots=True)
class Resolution:
    """The services in force, and the problems of those that lost a claim."""

    entries: dict[str, ServiceConfig] = field(default_factory=dict)
    problems: dict[str, tuple[Problem, ...]] = field(default_factory=dict)


def resolve_conflicts(asked: Mapping[str, ServiceConfig], rules: ClaimRules) -> Resolution:
    """Assign each host and port to the oldest ScaledService that may claim it; at equal age, to the first by name."""
    settled, owners = Resolution(), _Owners(asked, rules)
    for key in sorted(asked, key=lambda key: (asked[key].created, key)):
        problems: list[Problem] = []
        if entry := owners.claim(asked[key], problems):
            settled.entries[key] = entry
        if problems:
            settled.problems[key] = tuple(problems)
    return settled


class _Owners:
    """The owner of each host and port; the oldest must come first."""

    def __init__(self, asked: Mapping[str, ServiceConfig], rules: ClaimRules) -> None:
        self._rules = rules
        self._ports: dict[int, str] = {}
        self._hosts: dict[tuple[bool, str], ServiceConfig] = {}
        self._services: dict[str, set[str]] = {}
        """By name, the namespaces with a service of that name; empty if bare names are not routed."""
        if rules.policy.bare_names:
            for entry in asked.values():
                self._services.setdefault(entry.service, set()).add(entry.target.namespace)

    def claim(self, entry: ServiceConfig, problems: list[Problem]) -> ServiceConfig | None:
        """Return the configuration with the hosts and the port that the service gets; None if nothing leads to it."""
        spec, has_port = entry.spec, bool(entry.spec.listen)
        if has_port and (problem := self._port_problem(entry)):
            problems.append(problem)
            entry, has_port = replace(entry, spec=replace(spec, listen=None)), False
        if spec.protocol is Protocol.TCP:
            return entry if has_port else None
        hosts = self._hosts_of(entry, problems)
        if hosts == spec.hosts:
            return entry
        return replace(entry, spec=replace(entry.spec, hosts=hosts)) if hosts or has_port else None

    def _port_problem(self, entry: ServiceConfig) -> Problem | None:
        """Return why a service does not get its port; None if it gets it."""
        port, where, remedy = listen_port(entry.spec), "spec.listen", "give it another port"
        if port != entry.capture.port:
            if reserved := self._rules.reserved.get(port):
                return Problem(Reason.LISTEN_RESERVED, where, f"{port} is the port of {reserved}", remedy)
            if refusal := self._rules.policy.port_refusal(port, entry.target.namespace):
                return refusal
        owner = self._ports.setdefault(port, entry.spec.name)
        if owner != entry.spec.name:
            return Problem(Reason.LISTEN_TAKEN, where, f"{port} is the port of {owner}, which is older", remedy)
        return None

    def _permitted(self, entry: ServiceConfig, problems: list[Problem]) -> Iterator[str]:
        """Yield the permitted hosts. A bare name that several services have is left out without a problem."""
        policy, namespaces = self._rules.policy, self._rules.namespaces
        for host in entry.spec.hosts:
            if refusal := policy.host_refusal(host, entry.target.namespace, entry.service, namespaces):
                problems.append(refusal)
            elif host != entry.service or len(self._services[host]) == 1:
                yield host

    def _hosts_of(self, entry: ServiceConfig, problems: list[Problem]) -> tuple[str, ...]:
        tls, asked = entry.spec.protocol is Protocol.TLS, tuple(self._permitted(entry, problems))
        owners = {host: self._hosts.setdefault((tls, normalize_host(host)), entry) for host in asked}
        lost = {host: owner for host, owner in owners.items() if owner is not entry}
        left = tuple(host for host in asked if host not in lost)
        reported = {host: owner for host, owner in lost.items() if not left or not _is_own_name(host, entry, owner)}
        for owner in {owner.spec.name: owner for owner in reported.values()}.values():
            names = [host for host, has in reported.items() if has is owner]
            what = f"{join_words(names, 'and')} {'lead' if names[1:] else 'leads'} to {owner.spec.name}, which is older"
            problems.append(Problem(Reason.HOST_TAKEN, "spec.hosts", what, "give it hosts of its own"))
        return left


def listen_port(spec: Spec) -> int:
    """Return the port of a service with a listener of its own."""
    return int((spec.listen or "").rpartition(":")[2])


def _is_own_name(host: str, entry: ServiceConfig, owner: ServiceConfig) -> bool:
    """Return whether the host is a name of the Service that both ScaledServices name."""
    own = host == entry.service or host.startswith(f"{entry.service}.{entry.target.namespace}")
    return own and owner.service_key == entry.service_key


class EffectiveConfig:
    """The configuration in force, settled again only if a claim changed.

    A ScaledService that requests a host or port that it cannot have keeps its earlier ones, as long as no older
    ScaledService requests them.
    """

    def __init__(self, rules: ClaimRules) -> None:
        self._rules = rules
        self.asked: dict[str, ServiceConfig] = {}
        """The latest request of each ScaledService; only `request` changes it."""
        self._had: dict[str, ServiceConfig] = {}
        """The request of each service in force that was granted."""
        self._entries: dict[str, ServiceConfig] = {}
        self._problems: dict[str, tuple[Problem, ...]] = {}
        self._changed: set[str] = set()
        """Services that changed without changing their claim."""
        self._outdated = False

    def request(self, key: str, entry: ServiceConfig | None) -> None:
        """Replace the request of a ScaledService; None withdraws it."""
        before = self.asked.pop(key, None)
        if entry:
            self.asked[key] = entry
        if before and entry and _claim(before) == _claim(entry) and self._had.get(key) is before:
            self._had[key] = entry
            self._changed.add(key)
        else:
            self._outdated = True

    def invalidate(self) -> None:
        """Settle everything again, because the namespaces of the cluster changed."""
        self._outdated = True

    def resolve(self) -> tuple[dict[str, ServiceConfig], dict[str, tuple[Problem, ...]]]:
        """Return the configurations in force, and the problems of lost claims. Callers must not change them."""
        if self._outdated:
            self._settle()
        elif self._changed:
            self._entries = self._entries | {key: self._with_claims(key) for key in self._changed}
        self._changed, self._outdated = set(), False
        return self._entries, self._problems

    def _settle(self) -> None:
        first = resolve_conflicts(self.asked, self._rules)
        lost = {key for key, asked in self.asked.items() if _has_lost(first.entries.get(key), asked)}
        kept = {key: self._had[key] for key in lost if _has_other(self._had.get(key), self.asked[key])}
        second = resolve_conflicts({**self.asked, **kept}, self._rules) if kept else first
        self._had = {key: kept.get(key, self.asked[key]) for key in second.entries}
        self._entries = second.entries
        self._problems = second.problems | {key: first.problems[key] for key in kept}

    def _with_claims(self, key: str) -> ServiceConfig:
        """Return the requested configuration with the hosts and the port that the service owns."""
        asked, owned = self.asked[key], self._entries[key].spec
        if (asked.spec.hosts, asked.spec.listen) == (owned.hosts, owned.listen):
            return asked
        return replace(asked, spec=replace(asked.spec, hosts=owned.hosts, listen=owned.listen))


def _claim(entry: ServiceConfig) -> tuple[object, ...]:
    """Return the parts of a configuration that `resolve_conflicts` depends on."""
    spec = entry.spec
    return spec.protocol is Protocol.TLS, spec.listen, spec.hosts, entry.created, entry.service_key


def _has_lost(entry: ServiceConfig | None, asked: ServiceConfig) -> bool:
    """Return whether a service lost everything that leads to it, or its port."""
    return entry is None or entry.spec.listen != asked.spec.listen


def _has_other(had: ServiceConfig | None, asked: ServiceConfig) -> bool:
    return had is not None and had.uid == asked.uid and _claim(had) != _claim(asked)
