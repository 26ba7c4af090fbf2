"""Tests of the rules for specs, and their comparison with those of the CRD."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.core import validation
from reconciler.core.reasons import Problem, Reason
from reconciler.core.spec import Protocol, UsageUnit
from reconciler.core.text import parse_duration
from reconciler.core.validation import IDLE_BY, WAKE_BY, Notation

CRD = Path(__file__).parents[3] / "deploy/chart/crds/scaledservices.yaml"
NAMES = Notation(place=lambda path: path, key=lambda path: path)
UNITS = {
    Protocol.HTTP: UsageUnit.REQUESTS,
    Protocol.H2C: UsageUnit.REQUESTS,
    Protocol.AUTO: UsageUnit.REQUESTS,
    Protocol.TCP: UsageUnit.CONNECTIONS,
    Protocol.TLS: UsageUnit.CONNECTIONS,
}


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    """Provide the fields of `spec` in the CRD."""
    (version,) = yaml.safe_load(CRD.read_text())["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    return found


def rules(field: dict[str, Any]) -> str:
    """Return the CEL rules of a field."""
    return " ".join(rule["rule"] for rule in field["x-kubernetes-validations"])


def pattern(field: dict[str, Any]) -> re.Pattern[str]:
    """Return the regular expression in the CEL rules of a field."""
    match = re.search(r"matches\('([^']*)'\)", rules(field))
    assert match
    return re.compile(match[1])


def test_crd_limits_equal_those_of_the_code(spec: dict[str, Any]) -> None:
    status = spec["ignore"]["items"]["properties"]["answer"]["properties"]["status"]
    assert (spec["listen"]["minimum"], spec["listen"]["maximum"]) == (1, validation.MAX_PORT)
    hops = spec["http"]["properties"]["trustedHops"]
    assert (hops["minimum"], hops["maximum"]) == (0, validation.MAX_TRUSTED_HOPS)
    assert (spec["maxHeld"]["minimum"], spec["maxHeld"]["maximum"]) == (1, validation.MAX_HELD)
    assert (status["minimum"], status["maximum"]) == (validation.MIN_STATUS, validation.MAX_STATUS)
    assert spec["hosts"]["items"]["maxLength"] == validation.MAX_HOST_LENGTH
    assert f"self >= 1 && self <= {validation.MAX_REPLICAS} : self == '{validation.LAST}'" in rules(spec["replicas"])


def test_crd_body_limit_is_within_that_of_the_code(spec: dict[str, Any]) -> None:
    body = spec["ignore"]["items"]["properties"]["answer"]["properties"]["body"]
    longest_character = len("🙂".encode())
    assert body["maxLength"] * longest_character == validation.MAX_BODY_BYTES


def test_crd_choices_equal_those_of_the_code(spec: dict[str, Any]) -> None:
    assert spec["protocol"]["enum"] == list(Protocol)
    assert spec["idle"]["properties"]["by"]["enum"] == list(UsageUnit)
    assert spec["wake"]["properties"]["by"]["enum"] == list(UsageUnit)


@pytest.mark.parametrize("name", ["idleAfter", "wakeTimeout", "holdTimeout", "drainTimeout"])
def test_crd_duration_limits_equal_those_of_the_code(spec: dict[str, Any], name: str) -> None:
    limits = re.findall(r"duration\('(\w+)'\)", rules(spec[name]))
    assert [parse_duration(text) for text in limits] == [validation.MIN_SECONDS, validation.MAX_SECONDS]


@pytest.mark.parametrize(
    "text",
    ["5m", "1h30m", "500ms", "1.5h", "30s", "1h5h", "", "5", "m", "5d", "1.h", ".5h", "-5m", "5 m", "1e3s", "5M"],
)
def test_crd_duration_pattern_equals_that_of_the_code(spec: dict[str, Any], text: str) -> None:
    assert bool(pattern(spec["idleAfter"]).search(text)) == (parse_duration(text) is not None)


HOSTS = ["a", "shop.example.com", "a-b.c", "", "-a", "a-", "a..b", "A", "a_b", "a:80", "a" * 63, "a" * 64]
WILDCARDS = ["*.a", "*.a.b", "*", "*.", "a.*", "*.*.a", "*a.b"]


@pytest.mark.parametrize("host", HOSTS + WILDCARDS)
def test_crd_host_pattern_equals_that_of_the_code(spec: dict[str, Any], host: str) -> None:
    valid = validation.host_problem("hosts", host) is None
    assert bool(pattern(spec["hosts"]["items"]).search(host)) == valid


@pytest.mark.parametrize("path", ["/", "/*", "/a", "/a/*", "", "a", "*", "/a*b", "/**", "/a b", "//"])
def test_crd_path_pattern_equals_that_of_the_code(spec: dict[str, Any], path: str) -> None:
    paths = spec["ignore"]["items"]["properties"]["paths"]["items"]
    assert bool(pattern(paths).search(path)) == (validation.path_problem("paths", path) is None)


@pytest.mark.parametrize("protocol", Protocol)
def test_idle_by_is_bytes_or_the_unit_of_the_protocol(protocol: Protocol) -> None:
    assert IDLE_BY[protocol] == (UNITS[protocol], UsageUnit.BYTES)
    problems = {by: validation.unit_problem("idle.by", protocol, by, NAMES) for by in UsageUnit}
    assert {by for by, problem in problems.items() if problem is None} == set(IDLE_BY[protocol])


@pytest.mark.parametrize("protocol", Protocol)
def test_wake_by_is_bytes_only_for_protocols_without_requests(protocol: Protocol) -> None:
    problems = {by: validation.unit_problem("wake.by", protocol, by, NAMES) for by in UsageUnit}
    accepted = {by for by, problem in problems.items() if problem is None}
    assert accepted == set(WAKE_BY[protocol])
    assert (UsageUnit.BYTES in accepted) == (not protocol.is_http)
    assert WAKE_BY[Protocol.TCP][0] is UsageUnit.CONNECTIONS


@pytest.mark.parametrize("protocol", Protocol)
def test_listen_is_required_for_tcp_and_refused_for_tls(protocol: Protocol) -> None:
    given_, missing = (validation.listen_problem(protocol, given, NAMES, "5432") for given in (True, False))
    assert (given_ and given_.reason) == (Reason.LISTEN_NOT_USED if protocol is Protocol.TLS else None)
    assert (missing and missing.reason) == (Reason.LISTEN_MISSING if protocol is Protocol.TCP else None)


@pytest.mark.parametrize("protocol", Protocol)
@pytest.mark.parametrize("listens", [True, False])
def test_trusted_hops_need_an_http_listener_of_the_service(protocol: Protocol, listens: bool) -> None:
    found = validation.trusted_hops_problem(protocol, listens, NAMES, "8100")
    expected = None if protocol.is_http and listens else Reason.TRUSTED_HOPS_NOT_USED
    assert (found and found.reason) == expected


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (validation.duration_problem("x", "5"), "x: 5 has no unit; use for example 5s or 5m"),
        (validation.duration_problem("x", "0s"), "x: 0s is out of range; use at least 1ms and at most 87600h"),
        (validation.replicas_problem("x", 0), "x: 0 is not valid; use last, or a number from 1 to 100000"),
        (validation.choice_problem("x", "htp", Protocol), "x: 'htp' is not known; did you mean http?"),
        (validation.host_problem("x", "My_Shop.a"), "x: 'My_Shop.a' is not a valid host name; use my-shop.a"),
    ],
)
def test_problem_has_place_message_and_remedy(problem: Problem | None, text: str) -> None:
    assert str(problem) == text
