"""Ignore rules of ScaledServices, and every problem with its message."""

from __future__ import annotations

import pytest

from reconciler.core.spec import Ignore
from reconciler.kubernetes.config.resolve import ClusterConfig, resolve
from reconciler.kubernetes.config.service_config import ServiceConfig
from tests.reconciler.kubernetes.objects import scaled, service


def read(spec: str) -> tuple[Ignore, ...]:
    found = resolve(scaled(spec), service(), ClusterConfig())
    assert isinstance(found, ServiceConfig), found
    return found.spec.ignore


def said(spec: str, ports: str = "ports: [{name: http, port: 80}]") -> list[str]:
    found = resolve(scaled(spec), service(ports), ClusterConfig())
    assert not isinstance(found, ServiceConfig), found
    return [f"{problem.reason}: {problem}" for problem in found]


def test_ignore_rules_equal_those_of_services_file() -> None:
    assert read("") == ()
    assert read("""
        ignore:
          - {paths: [/healthz, /metrics/*], userAgents: [kube-probe/], answer: {status: 503, body: asleep}}
          - {sources: [10.1.2.3/16, "fd00::1"]}
    """) == (
        Ignore(paths=("/healthz", "/metrics/*"), user_agents=("kube-probe/",), status=503, body="asleep"),
        Ignore(sources=("10.1.0.0/16", "fd00::1/128")),
    )


@pytest.mark.parametrize("protocol", ["{protocol: tls, ", "{protocol: tcp, listen: 5432, "])
def test_ignore_sources_of_connections_are_accepted(protocol: str) -> None:
    assert read(protocol + "ignore: [{sources: [10.0.0.1]}]}") == (Ignore(sources=("10.0.0.1/32",)),)


PATH = "start it with /; it may end with *, for example /metrics/*"


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        (
            "{}",
            ": a rule needs paths, userAgents, or sources; use for example {paths: [/healthz], userAgents: "
            "[kube-probe/]}",
        ),
        ("{paths: []}", ".paths: an empty list matches nothing; remove it"),
        ("{paths: [/ok, healthz]}", f".paths[1]: 'healthz' is not a valid path; {PATH}"),
        ("{paths: [/a*b]}", f".paths[0]: '/a*b' is not a valid path; {PATH}"),
        ('{paths: [""]}', f".paths[0]: '' is not a valid path; {PATH}"),
        (
            '{userAgents: [""]}',
            ".userAgents[0]: '' matches every user agent; use for example kube-probe/ or *UptimeRobot",
        ),
        (
            "{sources: [10.0.0.0/40]}",
            ".sources[0]: '10.0.0.0/40' is not a valid IP address or range; use for example 10.0.0.0/8 or fd00::/8",
        ),
        (
            "{paths: [/], answer: {status: 99}}",
            ".answer.status: 99 is not a number from 200 to 599; use for example 200",
        ),
        (
            f"{{paths: [/], answer: {{body: {'é' * 2049}}}}}",
            ".answer.body: longer than 4096 bytes; shorten it",
        ),
    ],
)
def test_ignore_invalid_reports_place_and_remedy(rule: str, problem: str) -> None:
    assert said(f"ignore: [{rule}]") == [f"BadSpec: spec.ignore[0]{problem}"]


@pytest.mark.parametrize(("name", "value"), [("paths", "[/]"), ("userAgents", "[a]"), ("answer", "{}")])
def test_ignore_paths_of_connections_are_rejected(name: str, value: str) -> None:
    spec = f"ignore: [{{sources: [10.0.0.1]}}, {{sources: [10.0.0.2], {name}: {value}}}]"
    assert said(spec, "ports: [{name: https, port: 443}]") == [
        f"IgnoreNotUsed: spec.ignore[1].{name}: not available for tls services (from the Service port's "
        "name https), whose connections have only sources; remove it"
    ]


def rule_of(paths: int, agents: int, length: int = 8, body: int = 0) -> str:
    listed = ", ".join(f"/{number:0{length - 1}}" for number in range(paths))
    named = ", ".join(f"a{number:0{length - 1}}" for number in range(agents))
    return f"{{paths: [{listed}], userAgents: [{named}], answer: {{body: {'b' * body or 'b'}}}}}"


def test_ignore_rules_within_the_bounds_are_accepted() -> None:
    rules = read(f"ignore: [{rule_of(32, 31)}, {rule_of(8, 1)}]")
    assert [(len(rule.paths), len(rule.user_agents)) for rule in rules] == [(32, 31), (8, 1)]


@pytest.mark.parametrize(
    ("rules", "place"),
    [
        ([rule_of(8, 1), rule_of(32, 32)], "ignore[1].paths"),
        ([rule_of(32, 16), rule_of(32, 16)], "ignore[0].paths"),
        ([rule_of(32, 4, length=1000)], "ignore[0].paths"),
        ([rule_of(32, 5, body=1000)], "ignore[0].paths"),
    ],
    ids=["one rule", "all rules", "texts", "body"],
)
def test_ignore_rules_that_fill_the_proxies_are_rejected(rules: list[str], place: str) -> None:
    [problem] = said(f"ignore: [{', '.join(rules)}]")
    assert problem.startswith(f"BadSpec: spec.{place}: all rules have ")
    assert problem.endswith("; use at most 1000 and 131072; a prefix such as /metrics/* covers many paths")
