"""Hosts and ports that the ScaledServices of a namespace may claim.

Pure. Two rules: the names that Kubernetes gives to a Service belong to its namespace; all other hosts, and ports of the
proxy, follow the policy of the cluster's administrator. Without a policy the oldest claim wins (`conflicts.py`).
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

import msgspec

from reconciler.core.reasons import Problem, Reason
from reconciler.core.validation import HOST_PATTERN

CLUSTER_DOMAIN = "cluster.local"
NO_NAMESPACE = ""
"""The owner of a cluster name that no namespace may claim, such as a bare name or `*.svc.cluster.local`."""
_NAMESPACES = re.compile(r"[-a-z0-9*?]{1,63}")
_PORTS = re.compile(r"([0-9]{1,5})(-([0-9]{1,5}))?")
_MAX_RULES = 1000


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Namespaces (globs) with the hosts and ports that they may claim."""

    namespaces: tuple[str, ...]
    hosts: tuple[str, ...] = ()
    """Host names, `*.` with a domain for all names below it, or `*`."""
    ports: tuple[str, ...] = ()
    """Numbers or ranges, as in `5400-5499`."""

    def covers(self, namespace: str) -> bool:
        """Return whether the rule is about this namespace."""
        return any(fnmatchcase(namespace, glob) for glob in self.namespaces)


class BadPolicy(ValueError):
    """The text is not a policy; the message has one line for each mistake."""


@dataclass(frozen=True)
class HostPolicy:
    """The policy of a cluster. Once a rule names hosts, a host needs a rule; the same for ports."""

    rules: tuple[Rule, ...] = ()
    bare_names: bool = False
    """A bare name, such as `web`, leads to the only service of that name in the cluster."""
    domain: str = CLUSTER_DOMAIN

    def host_refusal(
        self, host: str, namespace: str, service: str, namespaces: Container[str] | None = None
    ) -> Problem | None:
        """Return why a ScaledService may not have a host; None when it may.

        `service` is the name of its Service. `namespaces` are those of the cluster; None when they are not known.
        """
        name = normalize_host(host)
        if name == service and self.bare_names:
            return None
        if name == f"{service}.{namespace}" or owning_namespace(name, self.domain) == namespace:
            return None
        owner = owning_namespace(name, self.domain, namespaces)
        named = any(name in rule.hosts for rule in self.rules if rule.covers(namespace))
        if owner is not None and not (named and name.count(".") < 2):
            return _not_yours(host, name, owner, namespace, service)
        if named or "hosts" in self.ungoverned:
            return None
        if any(_matches(pattern, name) for rule in self.rules if rule.covers(namespace) for pattern in rule.hosts):
            return None
        return _host_problem(f"hostPolicy does not allow {host} for namespace {namespace}", _ASK)

    def port_refusal(self, port: int, namespace: str) -> Problem | None:
        """Return why a ScaledService may not have a port of the proxy; None when it may."""
        if "ports" in self.ungoverned:
            return None
        if any(_within(text, port) for rule in self.rules if rule.covers(namespace) for text in rule.ports):
            return None
        what = f"hostPolicy does not allow port {port} for namespace {namespace}"
        return Problem(Reason.LISTEN_NOT_ALLOWED, "spec.listen", what, _ASK)

    @cached_property
    def ungoverned(self) -> tuple[str, ...]:
        """The kinds of claims that no rule decides: hosts, ports."""
        governs = {"hosts": any(rule.hosts for rule in self.rules), "ports": any(rule.ports for rule in self.rules)}
        return tuple(kind for kind, is_governed in governs.items() if not is_governed)


_ASK = "leave it out, or ask the cluster's administrator to add it to the chart value hostPolicy"


def normalize_host(host: str) -> str:
    """Return a host in lower case, without a port and without trailing dots."""
    return re.sub(r":[0-9]*$", "", host.strip().lower()).rstrip(".")


def owning_namespace(host: str, domain: str = CLUSTER_DOMAIN, namespaces: Container[str] | None = None) -> str | None:
    """Return the namespace that a normalized host belongs to; None when it is not a name of the cluster.

    `a.b` may be Service a of namespace b or a domain of the internet: it is a name of the cluster when the namespace
    exists, or when the namespaces are not known.
    """
    labels = host.split(".")
    covered = host.removeprefix("*.")
    if host == "*" or host.endswith(".*") or (host != covered and f".svc.{domain}".endswith(f".{covered}")):
        return NO_NAMESPACE
    if host == domain or host.endswith(f".{domain}"):
        inside = labels[: -domain.count(".") - 1]
        return inside[-2] if len(inside) > 2 and inside[-1] in ("svc", "pod") else NO_NAMESPACE
    if host == "*.svc" or len(labels) == 1:
        return NO_NAMESPACE
    if len(labels) == 2:
        return labels[1] if namespaces is None or labels[1] in namespaces else None
    return labels[-2] if labels[-1] == "svc" else None


def parse_policy(text: str, bare_names: bool = False, domain: str = CLUSTER_DOMAIN) -> HostPolicy:
    """Read a policy, a list in JSON. Raises `BadPolicy` with every mistake."""
    if domain.startswith("*.") or not HOST_PATTERN.fullmatch(domain):
        raise BadPolicy(f"{domain!r} is not a domain; use for example {CLUSTER_DOMAIN}")
    try:
        rules = msgspec.json.decode(text, type=tuple[Rule, ...])
    except (msgspec.DecodeError, RecursionError) as error:
        example = '[{"namespaces": ["shop"], "hosts": ["*.shop.example.com"], "ports": ["5432"]}]'
        raise BadPolicy(f"hostPolicy: {error}; use for example {example}") from None
    if mistakes := list(_mistakes(rules)):
        raise BadPolicy("\n".join(mistakes))
    return HostPolicy(rules, bare_names, domain)


def _mistakes(rules: tuple[Rule, ...]) -> Iterator[str]:
    if len(rules) > _MAX_RULES:
        yield f"hostPolicy: there are {len(rules)} rules; at most {_MAX_RULES} are allowed"
        return
    for number, rule in enumerate(rules):
        where = f"hostPolicy[{number}]"
        if not rule.namespaces:
            yield f"{where}.namespaces: the list is empty; name the namespaces, or use * for all"
        if not (rule.hosts or rule.ports):
            yield f"{where}: the rule allows nothing; add hosts or ports"
        for glob in rule.namespaces:
            if not _NAMESPACES.fullmatch(glob):
                yield f"{where}.namespaces: {glob!r} is not a namespace; use for example shop or team-*"
        for pattern in rule.hosts:
            if pattern != "*" and not HOST_PATTERN.fullmatch(pattern):
                yield f"{where}.hosts: {pattern!r} is not a host; use for example www.example.com or *.shop.example.com"
        for text in rule.ports:
            if not _is_port_range(text):
                yield f"{where}.ports: {text!r} is not a port; use for example 5432 or 5400-5499"


def _is_port_range(text: str) -> bool:
    found = _PORTS.fullmatch(text)
    return found is not None and 0 < int(found[1]) <= int(found[3] or found[1]) < 65536


def _within(text: str, port: int) -> bool:
    first, _, last = text.partition("-")
    return int(first) <= port <= int(last or first)


def _matches(pattern: str, host: str) -> bool:
    return pattern == "*" or pattern == host or (pattern.startswith("*.") and host.endswith(pattern[1:]))


def _not_yours(host: str, name: str, owner: str, namespace: str, service: str) -> Problem:
    right = f"leave it out; {service}.{namespace} leads here without it"
    if name.count(".") < 2:
        right += f", and the cluster's administrator can allow {host} for {namespace} in the chart value hostPolicy"
    if owner:
        return _host_problem(f"{host} is a name of namespace {owner}, which alone may have it", right)
    kind = "a name of the cluster itself" if "." in name else "a bare name, which belongs to no namespace"
    return _host_problem(f"{host} is {kind}", right)


def _host_problem(what: str, remedy: str) -> Problem:
    return Problem(Reason.HOST_NOT_ALLOWED, "spec.hosts", what, remedy)
