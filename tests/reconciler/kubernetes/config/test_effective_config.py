"""The effective configuration after single changes equals a complete resolution."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.reasons import Reason
from reconciler.core.spec import Protocol, Spec
from reconciler.kubernetes.config.conflicts import RESERVED_PORTS, ClaimRules, EffectiveConfig
from reconciler.kubernetes.config.host_policy import HostPolicy
from reconciler.kubernetes.config.service_config import ServiceConfig
from reconciler.kubernetes.types.builtin import ServicePort
from reconciler.kubernetes.types.objects import Target

KEYS = ("shop/a", "shop/b", "shop/c")
HOSTS = ("a.example", "b.example", "c.example")
RULES = ClaimRules(RESERVED_PORTS, HostPolicy(), namespaces={"shop"})


@st.composite
def entries(draw: st.DrawFn, key: str) -> ServiceConfig:
    tcp = draw(st.booleans())
    protocol = Protocol.TCP if tcp else draw(st.sampled_from([Protocol.HTTP, Protocol.TLS]))
    listens = tcp or (protocol is Protocol.HTTP and draw(st.booleans()))
    spec = Spec(
        name=key,
        protocol=protocol,
        hosts=() if tcp else tuple(draw(st.lists(st.sampled_from(HOSTS), min_size=1, unique=True))),
        listen=f"0.0.0.0:{draw(st.sampled_from([5432, 5433, 10000]))}" if listens else None,
        idle_after=draw(st.sampled_from([60.0, 300.0])),
    )
    target = Target("apps/v1", "Deployment", key[-1], "shop")
    uid = f"{key}-{draw(st.integers(0, 1))}"
    return ServiceConfig(spec, target, key[-1], ServicePort(port=80), float(KEYS.index(key) % 2), uid, 1)


@st.composite
def asks(draw: st.DrawFn) -> tuple[str, ServiceConfig | None]:
    key = draw(st.sampled_from(KEYS))
    return key, draw(st.none() | entries(key))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(asks(), st.booleans()), max_size=25))
def test_effective_config_incremental_equals_full(
    said: list[tuple[tuple[str, ServiceConfig | None], bool]],
) -> None:
    quick, thorough = EffectiveConfig(RULES), EffectiveConfig(RULES)
    for (key, entry), look in said:
        quick.request(key, entry)
        thorough.request(key, entry)
        thorough._outdated = True
        if look:
            assert quick.resolve() == thorough.resolve()
            found, _ = quick.resolve()
            ports = [one.spec.listen for one in found.values() if one.spec.listen]
            hosts = [(one.spec.protocol, host) for one in found.values() for host in one.spec.hosts]
            assert len(set(ports)) == len(ports)
            assert len(set(hosts)) == len(hosts)
            assert all(one.spec.listen or one.spec.hosts for one in found.values())


def test_effective_config_http_port_taken_keeps_the_earlier_one() -> None:
    target, port = Target("apps/v1", "Deployment", "x", "shop"), ServicePort(port=80)
    specs = {name: Spec(name=f"shop/{name}", hosts=(f"{name}.shop",), listen="0.0.0.0:1") for name in ("old", "young")}
    old, young = (ServiceConfig(spec, target, name, port, 1.0, name, 1) for name, spec in specs.items())
    in_force = EffectiveConfig(replace(RULES, reserved={}))
    in_force.request("shop/old", old)
    in_force.request("shop/young", replace(young, spec=replace(young.spec, listen="0.0.0.0:2")))
    assert in_force.resolve()[1] == {}
    in_force.request("shop/young", young)
    found, problems = in_force.resolve()
    assert [found[key].spec.listen for key in ("shop/old", "shop/young")] == ["0.0.0.0:1", "0.0.0.0:2"]
    assert [problem.reason for problem in problems["shop/young"]] == [Reason.LISTEN_TAKEN]


def test_effective_config_http_port_lost_keeps_hosts_and_changes() -> None:
    target, port = Target("apps/v1", "Deployment", "x", "shop"), ServicePort(port=80)
    spec = Spec(name="shop/web", hosts=("web.shop",), listen="0.0.0.0:10000")
    web = ServiceConfig(spec, target, "web", port, 1.0, "1", 1)
    in_force = EffectiveConfig(RULES)
    in_force.request("shop/web", web)
    in_force.resolve()
    in_force.request("shop/web", replace(web, spec=replace(spec, idle_after=1.0)))
    found, problems = in_force.resolve()
    assert found["shop/web"].spec == Spec(name="shop/web", hosts=("web.shop",), idle_after=1.0)
    assert [problem.reason for problem in problems["shop/web"]] == [Reason.LISTEN_RESERVED]


def test_effective_config_other_change_keeps_hosts() -> None:
    target, port = Target("apps/v1", "Deployment", "x", "shop"), ServicePort(port=80)
    old = ServiceConfig(Spec(name="shop/old", hosts=("a.example",)), target, "old", port, 1.0, "1", 1)
    young = ServiceConfig(Spec(name="shop/young", hosts=("a.example", "b.example")), target, "young", port, 2.0, "2", 1)
    in_force = EffectiveConfig(replace(RULES, reserved={}))
    in_force.request("shop/old", old)
    in_force.request("shop/young", young)
    in_force.resolve()
    in_force.request("shop/young", replace(young, spec=replace(young.spec, idle_after=1.0)))
    found, problems = in_force.resolve()
    assert found["shop/young"].spec == Spec(name="shop/young", hosts=("b.example",), idle_after=1.0)
    assert list(problems) == ["shop/young"]
