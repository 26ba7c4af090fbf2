"""Hosts and ports that a namespace may claim."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.kubernetes.config.host_policy import (
    NO_NAMESPACE,
    BadPolicy,
    HostPolicy,
    Rule,
    normalize_host,
    owning_namespace,
    parse_policy,
)
from reconciler.kubernetes.config.resolve import host_names

NAMESPACES = frozenset({"payments", "shop", "evil", "svc"})
labels = st.sampled_from(["api", "web", "payments", "shop", "svc", "pod", "cluster", "local", "com", "example"])


@pytest.mark.parametrize(
    ("host", "owner"),
    [
        ("api", NO_NAMESPACE),
        ("localhost", NO_NAMESPACE),
        ("api.payments", "payments"),
        ("api.payments.svc", "payments"),
        ("api.payments.svc.cluster.local", "payments"),
        ("db-0.db.payments.svc.cluster.local", "payments"),
        ("10-0-0-1.payments.pod.cluster.local", "payments"),
        ("*.payments.svc.cluster.local", "payments"),
        ("*.payments", "payments"),
        ("*.svc.cluster.local", NO_NAMESPACE),
        ("*.cluster.local", NO_NAMESPACE),
        ("*.local", NO_NAMESPACE),
        ("*.svc", NO_NAMESPACE),
        ("*", NO_NAMESPACE),
        ("api.*", NO_NAMESPACE),
        ("cluster.local", NO_NAMESPACE),
        ("svc.cluster.local", NO_NAMESPACE),
        ("x.cluster.local", NO_NAMESPACE),
        ("payments.svc", "svc"),
        ("example.com", None),
        ("*.example.com", None),
        ("shop.example.com", None),
        ("api.payments.example", None),
    ],
)
def test_owning_namespace_of_cluster_host_is_its_namespace(host: str, owner: str | None) -> None:
    assert owning_namespace(host, namespaces=NAMESPACES) == owner


def test_owning_namespace_of_two_labels_without_list_is_strict() -> None:
    assert owning_namespace("example.com") == "com"


def test_owning_namespace_follows_the_cluster_domain() -> None:
    assert owning_namespace("api.payments.svc.corp.example", "corp.example", NAMESPACES) == "payments"
    assert owning_namespace("api.payments.svc.cluster.local", "corp.example", NAMESPACES) is None


@pytest.mark.parametrize(
    "host", ["API.Payments", "api.payments.", "api.payments:80", "API.payments.:8080", " api.payments "]
)
def test_normalize_host_spellings_are_equal(host: str) -> None:
    assert normalize_host(host) == "api.payments"
    assert HostPolicy().host_refusal(host, "evil", "thief", NAMESPACES)


@given(st.lists(labels, min_size=1, max_size=5).map(".".join), labels, labels, st.booleans())
def test_policy_never_gives_a_host_to_another_namespace(
    host: str, service: str, namespace: str, everything: bool
) -> None:
    rules = (Rule(("*",), ("*",), ("1-65535",)),) if everything else ()
    policy = HostPolicy(rules)
    for name in host_names(service, namespace, policy):
        assert policy.host_refusal(name, namespace, service, NAMESPACES | {namespace}) is None
        assert policy.host_refusal(name, "evil", "thief", NAMESPACES | {namespace})
    refusal = policy.host_refusal(host, "evil", "thief", NAMESPACES)
    owner = owning_namespace(host, namespaces=NAMESPACES)
    assert (refusal is None) == (owner is None)


def test_policy_rule_allows_its_namespaces() -> None:
    policy = parse_policy(
        json.dumps(
            [
                {"namespaces": ["team-*"], "hosts": ["*.shop.example.com", "www.example.com"]},
                {"namespaces": ["data"], "ports": ["5432", "5400-5410"]},
            ]
        )
    )

    def may(host: str, namespace: str) -> bool:
        return policy.host_refusal(host, namespace, "web", NAMESPACES) is None

    assert may("a.shop.example.com", "team-a") and may("a.b.shop.example.com", "team-a")
    assert may("WWW.example.com.", "team-a")
    assert not may("shop.example.com", "team-a") and not may("xshop.example.com", "team-a")
    assert not may("www.example.com", "data")
    assert may("web.data", "data")
    assert [policy.port_refusal(port, "data") is None for port in (5432, 5400, 5410, 5411, 80)] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert policy.port_refusal(5432, "team-a")


def test_policy_for_hosts_leaves_ports_open() -> None:
    assert HostPolicy().ungoverned == ("hosts", "ports")
    policy = HostPolicy((Rule(("a",), ("a.example.com",)),))
    assert policy.ungoverned == ("ports",)
    assert policy.port_refusal(5432, "b") is None


def test_policy_rule_allows_named_short_host() -> None:
    policy = HostPolicy((Rule(("shop",), ("example.dev", "localhost")),))
    namespaces = NAMESPACES | {"dev"}
    assert policy.host_refusal("example.dev", "shop", "web", namespaces) is None
    assert policy.host_refusal("localhost", "shop", "web", namespaces) is None
    assert policy.host_refusal("example.dev", "evil", "web", namespaces)
    long = HostPolicy((Rule(("shop",), ("api.payments.svc", "api.payments.svc.cluster.local")),))
    assert long.host_refusal("api.payments.svc", "shop", "web", namespaces)
    assert long.host_refusal("api.payments.svc.cluster.local", "shop", "web", namespaces)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("{}", "hostPolicy: Expected `array`"),
        ("[" * 5000, "hostPolicy: "),
        ('[{"hosts": ["a.example.com"]}]', "missing required field `namespaces`"),
        ('[{"namespaces": ["a"], "host": []}]', "unknown field `host`"),
        ('[{"namespaces": [], "ports": ["1"]}]', "hostPolicy[0].namespaces: the list is empty"),
        ('[{"namespaces": ["a"]}]', "hostPolicy[0]: the rule allows nothing"),
        ('[{"namespaces": ["A"], "ports": ["1"]}]', "hostPolicy[0].namespaces: 'A' is not a namespace"),
        ('[{"namespaces": ["a"], "hosts": ["a.*.com"]}]', "hostPolicy[0].hosts: 'a.*.com' is not a host"),
        ('[{"namespaces": ["a"], "ports": ["0"]}]', "hostPolicy[0].ports: '0' is not a port"),
        ('[{"namespaces": ["a"], "ports": ["9-1"]}]', "hostPolicy[0].ports: '9-1' is not a port"),
        ('[{"namespaces": ["a"], "ports": ["65536"]}]', "hostPolicy[0].ports: '65536' is not a port"),
    ],
)
def test_parse_policy_invalid_names_the_place(text: str, mistake: str) -> None:
    with pytest.raises(BadPolicy) as caught:
        parse_policy(text)
    assert mistake in str(caught.value)


def test_parse_policy_reports_every_problem() -> None:
    with pytest.raises(BadPolicy) as caught:
        parse_policy('[{"namespaces": ["A"], "ports": ["x", "y"]}]')
    assert len(str(caught.value).splitlines()) == 3
