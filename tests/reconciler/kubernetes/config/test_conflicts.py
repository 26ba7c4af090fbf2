"""Conflicts over a host or a port between ScaledServices."""

from __future__ import annotations

from reconciler.kubernetes.config.conflicts import (
    RESERVED_PORTS,
    ClaimRules,
    Resolution,
    reserved_ports,
    resolve_conflicts,
)
from reconciler.kubernetes.config.host_policy import HostPolicy, Rule
from reconciler.kubernetes.config.resolve import ClusterConfig, resolve, service_of
from reconciler.kubernetes.config.service_config import ServiceConfig
from reconciler.kubernetes.types.scaled_service import ScaledService
from tests.reconciler.kubernetes.objects import scaled, service

NAMESPACES = ("a", "b", "shop")
FIRST_COME = HostPolicy()


def entry(item: ScaledService, ports: str, policy: HostPolicy = FIRST_COME) -> ServiceConfig:
    namespace, _, name = service_of(item).partition("/")
    found = resolve(item, service(ports, name, namespace), ClusterConfig(policy=policy))
    assert isinstance(found, ServiceConfig), found
    return found


def settled(*items: ScaledService, ports: str = "ports: [{port: 80}]", policy: HostPolicy = FIRST_COME) -> Resolution:
    asked = {item.metadata.key: entry(item, ports, policy) for item in items}
    return resolve_conflicts(asked, ClaimRules(RESERVED_PORTS, policy, NAMESPACES))


def reported(found: Resolution) -> dict[str, list[str]]:
    return {key: [f"{one.reason}: {one}" for one in problems] for key, problems in found.problems.items()}


HOSTS = "hosts: [shop.example.com, www.example.com]"


def test_conflict_older_keeps_host_younger_keeps_rest() -> None:
    found = settled(scaled("hosts: [shop.example.com, b.example]", "young", created=9), scaled(HOSTS, "old", created=1))
    assert reported(found) == {
        "shop/young": [
            "HostTaken: spec.hosts: shop.example.com leads to shop/old, which is older; give it hosts of its own"
        ]
    }
    assert "shop.example.com" in found.entries["shop/old"].spec.hosts
    assert found.entries["shop/young"].spec.hosts[-1] == "b.example"
    assert "shop.example.com" not in found.entries["shop/young"].spec.hosts


def test_conflict_same_age_is_resolved_by_name() -> None:
    found = settled(scaled(HOSTS, "b"), scaled(HOSTS, "a"))
    assert reported(found) == {
        "shop/b": [
            "HostTaken: spec.hosts: shop.example.com and www.example.com lead to shop/a, which is older; "
            "give it hosts of its own"
        ]
    }


def test_conflict_hosts_ignore_case() -> None:
    one, other = entry(scaled(HOSTS, "a"), "ports: [{port: 80}]"), entry(scaled("", "b"), "ports: [{port: 80}]")
    object.__setattr__(other.spec, "hosts", ("SHOP.example.com", "b"))
    found = resolve_conflicts({"shop/a": one, "shop/b": other}, ClaimRules(RESERVED_PORTS, FIRST_COME, None))
    assert "shop/b" in reported(found)


def test_conflict_http_and_tls_hosts_are_separate() -> None:
    http, tls, *others = (scaled(f"{{{HOSTS}, protocol: {word}}}", word) for word in ("http", "tls", "h2c", "auto"))
    assert reported(settled(http, tls)) == {}
    for other in others:
        assert list(reported(settled(http, other))) == ["shop/http"]


def test_conflict_http_port_with_tcp_keeps_hosts_of_younger() -> None:
    own = "{protocol: http, listen: 5432}"
    found = settled(scaled("{protocol: tcp, listen: 5432}", "db", created=1), scaled(own, "web", created=2))
    assert reported(found) == {
        "shop/web": ["ListenTaken: spec.listen: 5432 is the port of shop/db, which is older; give it another port"]
    }
    web = found.entries["shop/web"].spec
    assert (web.listen, "web.shop" in web.hosts) == (None, True)
    found = settled(scaled("{protocol: tcp, listen: 5432}", "db", created=2), scaled(own, "web", created=1))
    assert (list(reported(found)), list(found.entries)) == (["shop/db"], ["shop/web"])
    assert found.entries["shop/web"].spec.listen == "0.0.0.0:5432"


def test_conflict_http_port_not_allowed_or_reserved_keeps_hosts() -> None:
    policy = HostPolicy((Rule(("shop",), ports=("8100",)),))
    own = {port: scaled(f"{{protocol: http, listen: {port}}}") for port in (8100, 8101, 10000)}
    found = {port: settled(item, policy=policy) for port, item in own.items()}
    assert [[line.partition(":")[0] for line in reported(one).get("shop/web", [])] for one in found.values()] == [
        [],
        ["ListenNotAllowed"],
        ["ListenReserved"],
    ]
    assert [one.entries["shop/web"].spec.listen for one in found.values()] == ["0.0.0.0:8100", None, None]


def test_conflict_http_service_without_hosts_keeps_its_port() -> None:
    one = scaled("service: web", "one", created=1)
    other = scaled("{service: web, protocol: http, listen: 8100}", "other", created=2)
    found = settled(one, other)
    spec = found.entries["shop/other"].spec
    assert (spec.hosts, spec.listen) == ((), "0.0.0.0:8100")


BARE = HostPolicy(bare_names=True)
OWN = ("web.b", "web.b.svc", "web.b.svc.cluster.local")


def test_bare_name_default_is_not_served() -> None:
    found = settled(scaled(namespace="b"))
    assert reported(found) == {}
    assert found.entries["b/web"].spec.hosts == OWN


def test_bare_name_allowed_leads_to_the_only_service() -> None:
    assert settled(scaled(namespace="b"), policy=BARE).entries["b/web"].spec.hosts == (*OWN, "web")


def test_bare_name_of_two_services_is_not_served() -> None:
    found = settled(scaled(namespace="a", created=1), scaled(namespace="b", created=2), policy=BARE)
    assert reported(found) == {}
    assert found.entries["a/web"].spec.hosts[-1] == "web.a.svc.cluster.local"
    assert found.entries["b/web"].spec.hosts == OWN


def test_bare_name_of_another_service_is_rejected() -> None:
    for policy in (FIRST_COME, BARE):
        found = settled(scaled("hosts: [web, shop.example.com]", "front", "b"), policy=policy)
        assert reported(found) == {
            "b/front": [
                "HostNotAllowed: spec.hosts: web is a bare name, which belongs to no namespace; leave it out; front.b "
                "leads here without it, and the cluster's administrator can allow web for b in the chart value "
                "hostPolicy"
            ]
        }
        assert "web" not in found.entries["b/front"].spec.hosts
        assert "shop.example.com" in found.entries["b/front"].spec.hosts


def test_host_of_another_namespace_is_rejected() -> None:
    tenant = scaled("hosts: [web.shop, web.shop.svc, WEB.shop.svc.cluster.local., db.shop]", "thief", "b", created=1)
    found = settled(tenant, scaled(created=2))
    assert [line.partition(" is a name of namespace shop")[0] for line in reported(found)["b/thief"]] == [
        f"HostNotAllowed: spec.hosts: {host}"
        for host in ("web.shop", "web.shop.svc", "WEB.shop.svc.cluster.local.", "db.shop")
    ]
    assert found.entries["b/thief"].spec.hosts == ("thief.b", "thief.b.svc", "thief.b.svc.cluster.local")
    assert "web.shop" in found.entries["shop/web"].spec.hosts


def test_tls_host_of_another_namespace_is_rejected() -> None:
    tenant = scaled("{hosts: [web.shop], protocol: tls}", "thief", "b", created=1)
    found = settled(tenant, scaled("protocol: tls", created=2))
    assert list(reported(found)) == ["b/thief"]
    assert "web.shop" in found.entries["shop/web"].spec.hosts


def test_host_outside_policy_is_removed() -> None:
    policy = HostPolicy((Rule(("shop",), ("*.shop.example.com",)),))
    found = settled(scaled("hosts: [a.shop.example.com, www.example.com]"), policy=policy)
    assert reported(found) == {
        "shop/web": [
            "HostNotAllowed: spec.hosts: hostPolicy does not allow www.example.com for namespace shop; leave it out, "
            "or ask the cluster's administrator to add it to the chart value hostPolicy"
        ]
    }
    assert found.entries["shop/web"].spec.hosts[-1] == "a.shop.example.com"


def test_port_outside_policy_is_rejected() -> None:
    policy = HostPolicy((Rule(("a",), ports=("5400-5499",)),))
    found = settled(
        scaled("{listen: 5432}", "db", "b", created=1), scaled("{listen: 5432}", "db", "a", created=2), policy=policy
    )
    assert list(found.entries) == ["a/db"]
    assert reported(found) == {
        "b/db": [
            "ListenNotAllowed: spec.listen: hostPolicy does not allow port 5432 for namespace b; leave it out, or ask "
            "the cluster's administrator to add it to the chart value hostPolicy"
        ]
    }


def test_conflict_own_name_taken_by_older_is_reported() -> None:
    found = settled(scaled(created=1), scaled("hosts: [web.shop]", "thief", created=2))
    assert reported(found) == {
        "shop/thief": ["HostTaken: spec.hosts: web.shop leads to shop/web, which is older; give it hosts of its own"]
    }


def test_conflict_same_service_needs_other_hosts() -> None:
    found = settled(scaled(created=1), scaled("{service: web, hosts: [admin.example]}", "admin", created=2))
    assert reported(found) == {}
    assert found.entries["shop/admin"].spec.hosts == ("admin.example",)


def test_conflict_all_hosts_lost_is_not_in_force() -> None:
    found = settled(scaled(created=1), scaled("service: web", "other", created=2))
    assert list(found.entries) == ["shop/web"]
    assert reported(found) == {
        "shop/other": [
            "HostTaken: spec.hosts: web.shop, web.shop.svc and web.shop.svc.cluster.local lead to shop/web, "
            "which is older; give it hosts of its own"
        ]
    }


def test_conflict_port_belongs_to_the_older() -> None:
    young, old = (scaled("{listen: 5432}", name, created=age) for name, age in (("young", 9), ("old", 1)))
    found = settled(young, old)
    assert list(found.entries) == ["shop/old"]
    assert reported(found) == {
        "shop/young": ["ListenTaken: spec.listen: 5432 is the port of shop/old, which is older; give it another port"]
    }


def test_conflict_diverted_port_is_reserved() -> None:
    items = [scaled("{listen: 20005}", "a"), scaled("{listen: 19999}", "b")]
    asked = {item.metadata.key: entry(item, "ports: [{port: 80}]") for item in items}
    reserved = reserved_ports(diverted=range(20_000, 20_010))
    found = resolve_conflicts(asked, ClaimRules(reserved, FIRST_COME, None))
    assert list(found.entries) == ["shop/b"]
    assert reported(found) == {
        "shop/a": ["ListenReserved: spec.listen: 20005 is the port of the hold addresses; give it another port"]
    }


def test_conflict_proxy_ports_are_reserved() -> None:
    found = settled(scaled("{listen: 10000}", "a"), scaled("{listen: 9901}", "b"), scaled("{listen: 10443}", "c"))
    assert not found.entries
    assert reported(found) == {
        "shop/a": [
            "ListenReserved: spec.listen: 10000 is the port of the listener that http, h2c, and auto services share; "
            "give it another port"
        ],
        "shop/b": ["ListenReserved: spec.listen: 9901 is the port of Envoy's administration; give it another port"],
        "shop/c": [
            "ListenReserved: spec.listen: 10443 is the port of the listener that tls services share; "
            "give it another port"
        ],
    }
