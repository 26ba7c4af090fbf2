"""NetworkPolicies, and whether they admit a connection to a pod. Pure.

Policies only add up: a pod that no policy selects accepts every connection, and any other pod those that a rule of a
policy that selects it admits. https://kubernetes.io/docs/concepts/services-networking/network-policies/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

import msgspec

from reconciler.kubernetes.types.objects import ObjectMeta, Struct

INGRESS = "Ingress"


class Requirement(Struct, frozen=True):
    """An entry of `matchExpressions`."""

    key: str = ""
    operator: str = ""
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case _:
                return self.key not in labels


class LabelSelector(Struct, frozen=True):
    """A label selector; an empty one matches everything."""

    match_labels: dict[str, str] = msgspec.field(default_factory=dict)
    match_expressions: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return self.match_labels.items() <= labels.items() and all(
            one.matches(labels) for one in self.match_expressions
        )


class IpBlock(Struct, frozen=True):
    cidr: str = ""
    exclusions: tuple[str, ...] = msgspec.field(default=(), name="except")

    def contains(self, address: str) -> bool:
        ip = ip_address(address)
        return ip in ip_network(self.cidr, False) and not any(ip in ip_network(one, False) for one in self.exclusions)


class PolicyPeer(Struct, frozen=True):
    """An entry of `from`. Without a namespace selector, the pods are those of the policy's namespace."""

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IpBlock | None = None


class PolicyPort(Struct, frozen=True):
    """An entry of `ports`; without a port, all of the protocol. A name is that of a container's port."""

    protocol: str = "TCP"
    port: int | str | None = None
    end_port: int | None = None


class PolicyRule(Struct, frozen=True):
    """An entry of `ingress`. Without peers it admits everyone, and without ports to all ports."""

    peers: tuple[PolicyPeer, ...] = msgspec.field(default=(), name="from")
    ports: tuple[PolicyPort, ...] = ()


class NetworkPolicySpec(Struct, frozen=True):
    pod_selector: LabelSelector = LabelSelector()
    policy_types: tuple[str, ...] = (INGRESS,)
    ingress: tuple[PolicyRule, ...] = ()


class NetworkPolicy(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: NetworkPolicySpec = NetworkPolicySpec()


@dataclass(frozen=True, slots=True)
class ClientPod:
    """A pod that opens connections."""

    namespace: str
    labels: Mapping[str, str]
    namespace_labels: Mapping[str, str]
    addresses: tuple[str, ...] = ()
    """Empty if they are not known yet; every address block then contains them."""


@dataclass(frozen=True, slots=True)
class ServerPod:
    """A pod that accepts connections."""

    namespace: str
    labels: Mapping[str, str]
    ports: Mapping[str, int] = field(default_factory=dict)
    """The numbers of its named ports."""


def restricting(policies: Iterable[NetworkPolicy], server: ServerPod) -> list[NetworkPolicy]:
    """Return the policies that restrict the connections to a pod."""
    return [
        policy
        for policy in policies
        if policy.metadata.namespace == server.namespace
        and INGRESS in policy.spec.policy_types
        and policy.spec.pod_selector.matches(server.labels)
    ]


def admits(policies: Iterable[NetworkPolicy], client: ClientPod, server: ServerPod, port: int | str) -> bool:
    """Return whether a client may connect to a TCP port; `policies` are those of `restricting`, at least one."""
    return any(
        (not rule.peers or any(_is_peer(peer, policy, client) for peer in rule.peers))
        and (not rule.ports or any(_has_port(one, server, port) for one in rule.ports))
        for policy in policies
        for rule in policy.spec.ingress
    )


def _is_peer(peer: PolicyPeer, policy: NetworkPolicy, client: ClientPod) -> bool:
    if block := peer.ip_block:
        return not client.addresses or any(map(block.contains, client.addresses))
    if peer.namespace_selector is None:
        in_namespace = policy.metadata.namespace == client.namespace
    else:
        in_namespace = peer.namespace_selector.matches(client.namespace_labels)
    return in_namespace and (peer.pod_selector is None or peer.pod_selector.matches(client.labels))


def _has_port(admitted: PolicyPort, server: ServerPod, port: int | str) -> bool:
    if admitted.protocol != "TCP":
        return False
    if admitted.port is None:
        return True
    first, wanted = (server.ports.get(one, one) if isinstance(one, str) else one for one in (admitted.port, port))
    if isinstance(first, int) and isinstance(wanted, int):
        return first <= wanted <= (admitted.end_port or first)
    return first == wanted
