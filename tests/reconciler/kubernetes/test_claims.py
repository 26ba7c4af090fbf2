"""Who has a host, or a port, that several ScaledServices ask for."""

from __future__ import annotations

from reconciler.adapters.kubernetes.claims import Settled, settle
from reconciler.adapters.kubernetes.entries import Entry
from reconciler.adapters.kubernetes.resources import ScaledService
from reconciler.adapters.kubernetes.wanted import Cluster, service_of, wanted
from tests.reconciler.kubernetes.objects import scaled, service


def entry(item: ScaledService, ports: str) -> Entry:
    namespace, _, name = service_of(item).partition("/")
    found = wanted(item, service(ports, name, namespace), Cluster())
    assert isinstance(found, Entry), found
    return found


def settled(*items: ScaledService, ports: str = "ports: [{port: 80}]") -> Settled:
    return settle({item.metadata.key: entry(item, ports) for item in items})


def told(found: Settled) -> dict[str, list[str]]:
    return {key: [f"{one.reason}: {one}" for one in problems] for key, problems in found.problems.items()}


HOSTS = "hosts: [shop.example.com, www.example.com]"


def test_the_older_has_the_host_and_the_younger_names_it_and_keeps_the_rest() -> None:
    found = settled(scaled("hosts: [shop.example.com, b.example]", "young", created=9), scaled(HOSTS, "old", created=1))
    assert told(found) == {
        "shop/young": [
            "HostTaken: spec.hosts: shop.example.com leads to shop/old, which is older; give it hosts of its own"
        ]
    }
    assert "shop.example.com" in found.entries["shop/old"].spec.hosts
    assert found.entries["shop/young"].spec.hosts[-1] == "b.example"
    assert "shop.example.com" not in found.entries["shop/young"].spec.hosts


def test_of_the_same_age_the_first_by_name_has_it() -> None:
    found = settled(scaled(HOSTS, "b"), scaled(HOSTS, "a"))
    assert told(found) == {
        "shop/b": [
            "HostTaken: spec.hosts: shop.example.com and www.example.com lead to shop/a, which is older; "
            "give it hosts of its own"
        ]
    }


def test_case_does_not_tell_hosts_apart() -> None:
    one, other = entry(scaled(HOSTS, "a"), "ports: [{port: 80}]"), entry(scaled("", "b"), "ports: [{port: 80}]")
    object.__setattr__(other.spec, "hosts", ("SHOP.example.com", "b"))
    assert "shop/b" in told(settle({"shop/a": one, "shop/b": other}))


def test_http_and_tls_have_hosts_of_their_own_and_h2c_shares_those_of_http() -> None:
    http, tls, h2c = (scaled(f"{{{HOSTS}, protocol: {word}}}", word) for word in ("http", "tls", "h2c"))
    assert told(settled(http, tls)) == {}
    assert list(told(settled(http, h2c))) == ["shop/http"]


def test_a_bare_name_is_lost_without_a_word() -> None:
    found = settled(scaled(namespace="a", created=1), scaled(namespace="b", created=2))
    assert told(found) == {}
    assert "web" in found.entries["a/web"].spec.hosts
    assert found.entries["b/web"].spec.hosts == ("web.b", "web.b.svc", "web.b.svc.cluster.local")


def test_a_bare_name_that_was_asked_for_is_not_lost_without_a_word() -> None:
    found = settled(scaled(namespace="a", created=1), scaled("hosts: [web]", "front", "b", created=2))
    assert list(told(found)) == ["b/front"]


def test_whoever_takes_anothers_own_name_is_told_when_younger() -> None:
    found = settled(scaled(created=1), scaled("hosts: [web.shop]", "thief", created=2))
    assert told(found) == {
        "shop/thief": ["HostTaken: spec.hosts: web.shop leads to shop/web, which is older; give it hosts of its own"]
    }


def test_two_that_stand_for_one_service_go_by_other_hosts() -> None:
    found = settled(scaled(created=1), scaled("{service: web, hosts: [admin.example]}", "admin", created=2))
    assert told(found) == {}
    assert found.entries["shop/admin"].spec.hosts == ("admin.example",)


def test_who_lost_every_host_is_not_in_force_and_is_told_why() -> None:
    found = settled(scaled(created=1), scaled("service: web", "other", created=2))
    assert list(found.entries) == ["shop/web"]
    assert told(found) == {
        "shop/other": [
            "HostTaken: spec.hosts: web.shop, web.shop.svc, web.shop.svc.cluster.local and web lead to shop/web, "
            "which is older; give it hosts of its own"
        ]
    }


def test_a_port_leads_to_one_service() -> None:
    young, old = (scaled("{listen: 5432}", name, created=age) for name, age in (("young", 9), ("old", 1)))
    found = settled(young, old)
    assert list(found.entries) == ["shop/old"]
    assert told(found) == {
        "shop/young": ["ListenTaken: spec.listen: 5432 is the port of shop/old, which is older; give it another port"]
    }


def test_the_proxys_own_ports_are_nobodys() -> None:
    found = settled(scaled("{listen: 10000}", "a"), scaled("{listen: 9901}", "b"), scaled("{listen: 10443}", "c"))
    assert not found.entries
    assert told(found) == {
        "shop/a": [
            "ListenReserved: spec.listen: 10000 is the port of the listener that http and h2c services share; "
            "give it another port"
        ],
        "shop/b": ["ListenReserved: spec.listen: 9901 is the port of Envoy's administration; give it another port"],
        "shop/c": [
            "ListenReserved: spec.listen: 10443 is the port of the listener that tls services share; "
            "give it another port"
        ],
    }
