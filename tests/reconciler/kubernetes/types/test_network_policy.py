"""Admission of connections by NetworkPolicies."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reconciler.kubernetes.types.network_policy import ClientPod, NetworkPolicy, ServerPod, admits, restricting

SERVER = ServerPod("shop", {"app": "web", "tier": "front"}, {"http": 8080})
CLIENT = ClientPod("zenvoy-system", {"app": "zenvoy"}, {"kubernetes.io/metadata.name": "zenvoy-system"}, ("10.0.1.7",))
OURS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "zenvoy-system"}}}


def policy(namespace: str = "shop", **spec: Any) -> NetworkPolicy:
    """Return a policy for all pods of its namespace, unless the spec selects some."""
    whole = {"metadata": {"name": "policy", "namespace": namespace}, "spec": {"podSelector": {}, **spec}}
    return msgspec.convert(whole, NetworkPolicy)


def is_admitted(*rules: dict[str, Any], port: int | str = 8080, client: ClientPod = CLIENT) -> bool:
    return admits([policy(ingress=list(rules))], client, SERVER, port)


@pytest.mark.parametrize(
    "one",
    [
        policy("elsewhere"),
        policy(policyTypes=["Egress"]),
        policy(podSelector={"matchLabels": {"app": "db"}}),
        policy(podSelector={"matchLabels": {"app": "web", "canary": "true"}}),
        policy(podSelector={"matchExpressions": [{"key": "app", "operator": "In", "values": ["db", "cache"]}]}),
        policy(podSelector={"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}),
        policy(podSelector={"matchExpressions": [{"key": "canary", "operator": "Exists"}]}),
        policy(podSelector={"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}),
    ],
)
def test_policy_of_other_pods_does_not_restrict(one: NetworkPolicy) -> None:
    assert restricting([one], SERVER) == []


@pytest.mark.parametrize(
    "one",
    [
        policy(),
        policy(policyTypes=["Ingress", "Egress"]),
        policy(podSelector={"matchLabels": {"app": "web"}}),
        policy(podSelector={"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}),
        policy(podSelector={"matchExpressions": [{"key": "canary", "operator": "NotIn", "values": ["true"]}]}),
        policy(podSelector={"matchExpressions": [{"key": "app", "operator": "Exists"}]}),
        policy(podSelector={"matchExpressions": [{"key": "canary", "operator": "DoesNotExist"}]}),
    ],
)
def test_policy_of_the_pods_restricts(one: NetworkPolicy) -> None:
    assert restricting([one], SERVER) == [one]


def test_policy_without_rules_admits_nothing() -> None:
    assert not is_admitted()


def test_policies_add_up() -> None:
    assert admits([policy(), policy(ingress=[{}])], CLIENT, SERVER, 8080)


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ({"namespaceSelector": {}}, True),
        (OURS, True),
        ({"namespaceSelector": {"matchLabels": {"team": "edge"}}}, False),
        ({"podSelector": {}}, False),
        ({"podSelector": {"matchLabels": {"app": "zenvoy"}}}, False),
        ({**OURS, "podSelector": {"matchLabels": {"app": "zenvoy"}}}, True),
        ({**OURS, "podSelector": {"matchLabels": {"app": "ingress"}}}, False),
        ({"namespaceSelector": {"matchLabels": {"team": "edge"}}, "podSelector": {}}, False),
        ({"ipBlock": {"cidr": "10.0.0.0/16"}}, True),
        ({"ipBlock": {"cidr": "10.0.1.0/16"}}, True),
        ({"ipBlock": {"cidr": "10.0.0.0/16", "except": ["10.0.1.0/24"]}}, False),
        ({"ipBlock": {"cidr": "192.168.0.0/16"}}, False),
        ({"ipBlock": {"cidr": "::/0"}}, False),
    ],
)
def test_peer_admits_what_it_selects(peer: dict[str, Any], expected: bool) -> None:
    assert is_admitted({"from": [peer]}) is expected
    assert is_admitted({"from": [{"podSelector": {}}, peer]}) is expected


def test_pod_selector_alone_means_the_policys_namespace() -> None:
    neighbour = ClientPod("shop", {"app": "zenvoy"}, {})
    assert is_admitted({"from": [{"podSelector": {"matchLabels": {"app": "zenvoy"}}}]}, client=neighbour)


def test_pod_without_address_is_in_every_block() -> None:
    starting = ClientPod("zenvoy-system", {}, {})
    assert is_admitted({"from": [{"ipBlock": {"cidr": "192.168.0.0/16"}}]}, client=starting)


@pytest.mark.parametrize(
    ("ports", "port", "expected"),
    [
        ([{"port": 8080}], 8080, True),
        ([{"port": 8081}], 8080, False),
        ([{"port": 8081}, {"port": 8080}], 8080, True),
        ([{"protocol": "UDP", "port": 8080}], 8080, False),
        ([{"protocol": "UDP"}], 8080, False),
        ([{"protocol": "TCP"}], 8080, True),
        ([{"port": "http"}], 8080, True),
        ([{"port": 8080}], "http", True),
        ([{"port": "http"}], 9000, False),
        ([{"port": "metrics"}], 8080, False),
        ([{"port": "metrics"}], "metrics", True),
        ([{"port": 8000, "endPort": 8080}], 8080, True),
        ([{"port": 8080, "endPort": 8090}], 8080, True),
        ([{"port": 8000, "endPort": 8079}], 8080, False),
        ([{"port": 8081, "endPort": 8090}], 8080, False),
    ],
)
def test_ports_admit_names_numbers_and_ranges(ports: list[dict[str, Any]], port: int | str, expected: bool) -> None:
    assert is_admitted({"ports": ports}, port=port) is expected


def test_peer_and_port_must_be_of_one_rule() -> None:
    assert not is_admitted({"from": [OURS], "ports": [{"port": 1}]}, {"from": [{"podSelector": {}}]})
    assert is_admitted({"from": [OURS], "ports": [{"port": 8080}]})
