"""Annotations of a Service: what they say, and every kind of bad input with its words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.kubernetes.config.annotations import (
    FIELDS,
    MAX_UNKNOWN,
    is_enabled,
    item_of,
    label_problem,
    parse_annotations,
)
from reconciler.kubernetes.config.resolve import ClusterConfig
from tests.reconciler.kubernetes.objects import WEB, service

BAD = [
    ("target", "web", "'web' is not a valid target; use for example Deployment/web or apps/v1/StatefulSet/db"),
    (
        "target",
        "a/b/c/D/web",
        "'a/b/c/D/web' is not a valid target; use for example Deployment/web or apps/v1/StatefulSet/db",
    ),
    (
        "target",
        "Deployment/Web!",
        "'Deployment/Web!' is not a valid target; use for example Deployment/web or apps/v1/StatefulSet/db",
    ),
    *(
        ("target", text, f"{text!r} is not a valid target; use for example Deployment/web or apps/v1/StatefulSet/db")
        for text in (
            "Deployment/../../victim/deployments/db",
            "Deployment/..",
            "Deployment/a..b",
            "Deployment/%2e%2e",
            "Deployment/web?x",
            "/Deployment/web",
            "apps//Deployment/web",
            "apps/v1?x/Deployment/web",
            "apps/v1/Deployment?x/web",
            "APPS/v1/Deployment/web",
            "apps/v1/Deployment/" + "a" * 254,
        )
    ),
    ("target", "deployment/web", "deployment is not a known kind; did you mean Deployment/web?"),
    (
        "target",
        "Rollout/web",
        "the API group of Rollout is missing; use for example example.com/v1/Rollout/web",
    ),
    ("port", "0", "0 is not a number from 1 to 65535; use for example 80"),
    (
        "port",
        "Http!",
        "'Http!' is not a valid port; use the name or number of a port of the Service, for example http or 80",
    ),
    ("port", "htpp", "Service shop/web has no TCP port htpp; did you mean http?"),
    ("port", "8080", "Service shop/web has no TCP port 8080; that is the target port of http; use http"),
    ("protocol", "HTTP", "'HTTP' is not known; did you mean http?"),
    ("protocol", "gopher", "'gopher' is not known; use http, h2c, auto, tcp or tls"),
    ("hosts", " , ", "empty; use for example shop.example.com,www.example.com"),
    (
        "hosts",
        "https://Shop.example.com:80/x",
        "'https://Shop.example.com:80/x' is not a valid host name; use shop.example.com",
    ),
    ("hosts", "a.example,a.*.example", "'a.*.example' is not a valid host name; use for example shop.example.com"),
    ("replicas", "0", "0 is not valid; use last, or a number from 1 to 100000"),
    ("replicas", "many", "'many' is not valid; use last, or a number from 1 to 100000"),
    ("replicas", "9999999", "9999999 is not valid; use last, or a number from 1 to 100000"),
    ("idle-after", "5", "5 has no unit; use for example 5s or 5m"),
    ("idle-after", "soon", "'soon' is not a valid duration; use for example 5m, 30s, or 1h30m"),
    ("idle-after", "", "'' is not a valid duration; use for example 5m, 30s, or 1h30m"),
    ("wake-timeout", "0s", "0s is out of range; use at least 1ms and at most 87600h"),
    ("hold-timeout", "90000h", "90000h is out of range; use at least 1ms and at most 87600h"),
    ("drain-timeout", "-5m", "'-5m' is not a valid duration; use for example 5m, 30s, or 1h30m"),
    ("max-held", "0", "0 is not a number from 1 to 1000000; use for example 1024"),
    ("max-held", "1e3", "'1e3' is not a number from 1 to 1000000; use for example 1024"),
    ("max-held", "²", "'²' is not a number from 1 to 1000000; use for example 1024"),
    ("idle-by", "request", "'request' is not known; did you mean requests?"),
    (
        "idle-by",
        "connections",
        "connections is not available for http (from the Service port's name http); use requests or bytes",
    ),
    (
        "ignore-paths",
        "/ok, healthz",
        "'healthz' is not a valid path; start it with /; it may end with *, for example /metrics/*",
    ),
    ("ignore-paths", "/a*b", "'/a*b' is not a valid path; start it with /; it may end with *, for example /metrics/*"),
    ("ignore-paths", "", "empty; use for example /healthz,/metrics/*"),
    ("ignore-user-agents", ",", "empty; use for example kube-probe/,Prometheus/"),
    (
        "ignore-sources",
        "10.0.0.0/40",
        "'10.0.0.0/40' is not a valid IP address or range; use for example 10.0.0.0/8 or fd00::/8",
    ),
    (
        "ignore-answer",
        "asleep",
        "'asleep' does not start with a status; use for example 200, or with a body 200 asleep",
    ),
    ("ignore-answer", "199", "199 is not a number from 200 to 599; use for example 200"),
    ("ignore-answer", f"200 {'a' * 4097}", "longer than 4096 bytes; shorten it"),
    ("hosts", ",".join(f"h{number}.example.com" for number in range(65)), "65 entries; use at most 64"),
    ("ignore-paths", ",".join(f"/{number}" for number in range(33)), "33 entries; use at most 32"),
    ("ignore-sources", "10.0.0.1," * 33, "33 entries; use at most 32"),
    ("idle-after", "1h" * 40_000, "longer than 65536 characters; shorten it"),
    ("ignore-answer", "503", "no requests are ignored; set for example zenvoy.dev/ignore-paths: /healthz"),
    ("busy-http", "busy", "'busy' is not a valid path; start it with /, without spaces, for example /busy"),
    ("busy-http", "/a b", "'/a b' is not a valid path; start it with /, without spaces, for example /busy"),
    ("busy-port", "0", "0 is not a number from 1 to 65535; use for example 8081"),
    ("paused", "yes", "'yes' is neither true nor false; use true or false"),
    (
        "http-trusted-hops",
        "1",
        "only for a service with a port of its own; set for example zenvoy.dev/listen: 8100, or remove "
        "zenvoy.dev/http-trusted-hops",
    ),
    ("http-trusted-hops", "-1", "'-1' is not a number from 0 to 100; use for example 1"),
    ("http-trusted-hops", "101", "101 is not a number from 0 to 100; use for example 1"),
    ("listen", "http", "'http' is not a number from 1 to 65535; use for example 5432"),
    ("idleAfter", "5m", "unknown annotation; did you mean zenvoy.dev/idle-after?"),
    ("wake-timout", "5m", "unknown annotation; did you mean zenvoy.dev/wake-timeout?"),
    ("enabled", "true", "a label, not an annotation; remove the annotation"),
    (
        "x",
        "y",
        "unknown annotation; use target, port, protocol, hosts, listen, http-trusted-hops, replicas, idle-after, "
        "wake-timeout, hold-timeout, drain-timeout, max-held, idle-by, wake-by, busy-http, busy-port, ignore-paths, "
        "ignore-user-agents, ignore-sources, ignore-answer, readiness, capture, refusal-details or paused",
    ),
]
"""By annotation and its value, what is said of it."""


NOT_CAPTURING, CAPTURING = ClusterConfig(), ClusterConfig(capture_ports=range(12000, 12010))


def read(
    said: dict[str, str], ports: str = WEB, cluster: ClusterConfig = NOT_CAPTURING
) -> tuple[dict[str, Any], list[str]]:
    of = service(ports, annotations={f"zenvoy.dev/{key}": value for key, value in said.items()})
    found, problems = parse_annotations(of, cluster)
    assert all(problem.on == "Service" for problem in problems)
    return found, [str(problem) for problem in problems]


def test_annotations_none_gives_empty_spec() -> None:
    assert read({}) == ({}, [])


def test_annotations_of_others_are_skipped() -> None:
    assert parse_annotations(service(annotations={"example.com/idle-after": "?"}), ClusterConfig()) == (
        {},
        (),
    )


def test_annotations_unknown_in_great_number_are_one_problem() -> None:
    found, problems = read({"idle-after": "5m", **{f"x{number:05}": "" for number in range(10_000)}})
    assert found == {"idleAfter": "5m"}
    assert len(problems) == MAX_UNKNOWN + 1
    assert problems[0] == "zenvoy.dev/*: 9984 more annotations are unknown; remove them"


def test_annotation_valid_sets_its_field() -> None:
    said = {
        "target": "argoproj.io/v1alpha1/Rollout/web",
        "port": "http",
        "protocol": "h2c",
        "hosts": "a.example.com, b.example.com,",
        "replicas": "3",
        "idle-after": "1h30m",
        "wake-timeout": "90s",
        "hold-timeout": "500ms",
        "drain-timeout": " 1m ",
        "max-held": "5",
        "idle-by": "bytes",
        "wake-by": "requests",
        "busy-http": "/busy",
        "busy-port": "8081",
        "ignore-paths": "/healthz, /metrics/*, /healthz",
        "ignore-user-agents": "kube-probe/, Prometheus/2",
        "ignore-sources": "10.1.2.3/16",
        "ignore-answer": "503 it is  asleep",
        "readiness": "kubernetes",
        "capture": "proxy",
        "refusal-details": "true",
        "paused": "true",
    }
    assert read(said) == (
        {
            "scaleTargetRef": {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "web"},
            "port": "http",
            "protocol": "h2c",
            "hosts": ["a.example.com", "b.example.com"],
            "replicas": 3,
            "idleAfter": "1h30m",
            "wakeTimeout": "90s",
            "holdTimeout": "500ms",
            "drainTimeout": "1m",
            "maxHeld": 5,
            "idle": {"by": "bytes"},
            "wake": {"by": "requests"},
            "busy": {"http": "/busy", "port": 8081},
            "ignore": [
                {"paths": ["/healthz", "/metrics/*"], "answer": {"status": 503, "body": "it is  asleep"}},
                {"sources": ["10.1.2.3/16"], "answer": {"status": 503, "body": "it is  asleep"}},
                {"userAgents": ["kube-probe/", "Prometheus/2"], "answer": {"status": 503, "body": "it is  asleep"}},
            ],
            "readiness": "kubernetes",
            "capture": "proxy",
            "refusalDetails": True,
            "paused": True,
        },
        [],
    )
    assert set(said) | {"listen", "http-trusted-hops"} == set(FIELDS)
    assert read({"protocol": "http", "listen": "8100", "http-trusted-hops": "1"}) == (
        {"protocol": "http", "listen": 8100, "http": {"trustedHops": 1}},
        [],
    )
    assert read({"protocol": "tcp", "listen": "5432", "port": "80"}) == (
        {"protocol": "tcp", "listen": 5432, "port": 80},
        [],
    )


@pytest.mark.parametrize(
    ("said", "ports"),
    [
        ({}, WEB),
        ({"protocol": "tcp"}, WEB),
        ({}, "ports: [{name: postgres, port: 5432, appProtocol: tcp}]"),
        ({}, "ports: [{name: http, port: 80}, {name: admin, port: 81}]"),
    ],
    ids=["http", "tcp", "tcp-by-its-port", "not-possible"],
)
def test_labeled_service_is_captured_by_default(said: dict[str, str], ports: str) -> None:
    """One that cannot be captured stays awake for that reason, because its callers do not wake it."""
    assert read(said, ports, CAPTURING) == ({**said, "capture": "proxy"}, [])


@pytest.mark.parametrize(
    ("said", "ports", "fields"),
    [
        ({"capture": "none"}, WEB, {"capture": "none"}),
        ({"protocol": "tcp", "listen": "5432"}, WEB, {"protocol": "tcp", "listen": 5432}),
        ({"listen": "8100", "protocol": "http"}, WEB, {"listen": 8100, "protocol": "http"}),
        ({}, "ports: [{name: https, port: 443}]", {}),
        ({"protocol": "tls"}, WEB, {"protocol": "tls"}),
    ],
    ids=["none", "tcp-port", "http-port", "tls-by-its-port", "tls"],
)
def test_labeled_service_with_another_way_is_not_captured(
    said: dict[str, str], ports: str, fields: dict[str, Any]
) -> None:
    assert read(said, ports, CAPTURING) == (fields, [])


def test_labeled_service_with_an_invalid_capture_has_none() -> None:
    fields, problems = read({"capture": "yes"}, cluster=CAPTURING)
    assert "capture" not in fields
    assert [problem.partition(":")[0] for problem in problems] == ["zenvoy.dev/capture"]


@pytest.mark.parametrize(
    ("target", "api_version", "kind"),
    [
        ("Deployment/web", "apps/v1", "Deployment"),
        ("StatefulSet/web", "apps/v1", "StatefulSet"),
        ("apps/v1/Deployment/web", "apps/v1", "Deployment"),
        ("v1/ReplicationController/web", "v1", "ReplicationController"),
    ],
)
def test_annotation_target_is_parsed(target: str, api_version: str, kind: str) -> None:
    expected = {"apiVersion": api_version, "kind": kind, "name": "web"}
    assert read({"target": target}) == ({"scaleTargetRef": expected}, [])


@pytest.mark.parametrize(("key", "value", "problem"), BAD)
def test_annotation_invalid_reports_place_and_remedy(key: str, value: str, problem: str) -> None:
    assert read({key: value})[1] == [f"zenvoy.dev/{key}: {problem}"]


@pytest.mark.parametrize(
    ("said", "ports", "problem"),
    [
        (
            {"protocol": "tcp"},
            WEB,
            "zenvoy.dev/listen: required for tcp services, which are identified by port; set for example "
            "zenvoy.dev/listen: 5432",
        ),
        (
            {"listen": "5432"},
            "ports: [{name: https, port: 443}]",
            "zenvoy.dev/listen: not available for tls services (from the Service port's name https), which share a "
            "listener; remove zenvoy.dev/listen, or set zenvoy.dev/protocol: tcp",
        ),
        (
            {"hosts": "a.example", "listen": "5432"},
            "ports: [{port: 5432}]",
            "zenvoy.dev/hosts: not available for tcp services (because zenvoy.dev/listen is set), which are identified "
            "by port; remove zenvoy.dev/hosts, or set zenvoy.dev/protocol: http",
        ),
        (
            {"protocol": "tls", "ignore-paths": "/healthz", "ignore-sources": "10.0.0.1"},
            WEB,
            "zenvoy.dev/ignore-paths: not available for tls services, whose connections have only sources; remove it",
        ),
        (
            {"protocol": "tls", "ignore-answer": "200", "ignore-sources": "10.0.0.1"},
            WEB,
            "zenvoy.dev/ignore-answer: not available for tls services, whose connections have only sources; remove it",
        ),
        (
            {},
            "{selector: {}, ports: [{port: 80}]}",
            "spec: Service shop/web has no selector, so its pods are not known; add a selector, or use a Service "
            "that has one",
        ),
        (
            {},
            "ports: [{name: a, port: 80}, {name: b, port: 81}]",
            "zenvoy.dev/port: Service shop/web has 2 ports, none of them named http, https, http2 or tcp; use a or b",
        ),
    ],
)
def test_annotations_in_conflict_are_reported(said: dict[str, str], ports: str, problem: str) -> None:
    assert read(said, ports)[1] == [problem]


def test_annotations_report_all_problems_and_keep_the_rest() -> None:
    said, problems = read({"idle-after": "5", "max-held": "-1", "prot": "http", "paused": "true", "port": "9"})
    assert said == {"paused": True, "port": 9}
    assert [problem.partition(":")[0] for problem in problems] == [
        "zenvoy.dev/idle-after",
        "zenvoy.dev/max-held",
        "zenvoy.dev/prot",
        "zenvoy.dev/port",
    ]


def test_label_other_than_true_or_false_is_reported() -> None:
    yes, no, odd = (service(labels={"zenvoy.dev/enabled": value}) for value in ("true", "false", "yes"))
    assert [is_enabled(one) for one in (yes, no, odd, service())] == [True, False, False, False]
    assert [label_problem(one) for one in (yes, no, service())] == [None, None, None]
    problem = label_problem(odd)
    assert str(problem) == "zenvoy.dev/enabled: 'yes' is neither true nor false; use true"
    assert problem and problem.harmless


_ALONE = FIELDS.keys() - {"listen", "http-trusted-hops", "ignore-answer", "wake-by", "busy-port"}


@pytest.mark.parametrize("name", sorted(_ALONE))
def test_annotations_documented_examples_are_valid(name: str) -> None:
    assert read({name: FIELDS[name].example})[1] == []


def test_annotations_documented_hops_are_valid_with_listen() -> None:
    said = {"protocol": "http", **{name: FIELDS[name].example for name in ("listen", "http-trusted-hops")}}
    assert read(said)[1] == []


def test_annotations_documented_wake_by_is_valid_for_tcp() -> None:
    said = {"protocol": "tcp", **{name: FIELDS[name].example for name in ("listen", "wake-by")}}
    assert read(said)[1] == []


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(FIELDS)) | st.text(max_size=9), st.text(max_size=40)))
def test_annotations_any_text_is_parsed_or_reported(said: dict[str, str]) -> None:
    found, problems = read(said)
    assert len(problems) >= len(said.keys() - FIELDS.keys())
    assert all(len(problem.splitlines()) == 1 for problem in problems)
    item_of(service(), found)
