"""The bootstrap says what Envoy needs to join, and refuses addresses that are none."""

from __future__ import annotations

import json

import pytest
import yaml

from reconciler.envoy.admin_stats import QUERY
from tests.xds.parts import Mode
from xds.bootstrap.document import Join, Tls, as_json, as_yaml, bootstrap, files
from xds.bootstrap.stats_listener import STATS_QUERY

JOIN = Join(node="envoy-1", reconciler="reconciler.example", port=18000)


def test_bootstrap_yaml_and_json_are_equal() -> None:
    assert yaml.safe_load(as_yaml(JOIN)) == json.loads(as_json(JOIN)) == bootstrap(JOIN)
    assert "&id" not in as_yaml(JOIN)


@pytest.mark.parametrize(
    ("admin", "address"),
    [
        ("127.0.0.1:9901", {"socket_address": {"address": "127.0.0.1", "port_value": 9901}}),
        ("[::1]:9901", {"socket_address": {"address": "::1", "port_value": 9901}}),
        ("/run/envoy.sock", {"pipe": {"path": "/run/envoy.sock", "mode": 0o600}}),
    ],
)
def test_bootstrap_admin_is_an_address_or_a_socket(admin: str, address: dict[str, object]) -> None:
    made = bootstrap(Join(node="n", reconciler="127.0.0.1", port=1, admin=admin))
    assert made["admin"]["address"] == address


def test_bootstrap_invalid_admin_address_is_refused() -> None:
    with pytest.raises(ValueError, match="use ip:port or a path"):
        bootstrap(Join(node="n", reconciler="127.0.0.1", port=1, admin="localhost"))


@pytest.mark.parametrize(
    ("host", "kind"), [("10.0.0.1", "STATIC"), ("::1", "STATIC"), ("reconciler.zenvoy.svc", "STRICT_DNS")]
)
def test_bootstrap_host_name_is_resolved_address_is_not(host: str, kind: str) -> None:
    [cluster] = bootstrap(Join(node="n", reconciler=host, port=1))["static_resources"]["clusters"]
    assert cluster["type"] == kind


@pytest.mark.parametrize(("mode", "api_type"), [("delta", "DELTA_GRPC"), ("sotw", "GRPC")])
def test_bootstrap_mode_sets_the_api_type(mode: Mode, api_type: str) -> None:
    made = bootstrap(Join(node="n", reconciler="127.0.0.1", port=1, mode=mode))
    assert made["dynamic_resources"]["ads_config"]["api_type"] == api_type


@pytest.mark.parametrize(
    ("stats", "expected"),
    [("10.0.0.7:9902", "10.0.0.7:9902"), ("[fd00::7]:9902", "[fd00::7]:9902"), ("fd00::7:9902", "[fd00::7]:9902")],
)
def test_bootstrap_stats_address_is_in_the_metadata(stats: str, expected: str) -> None:
    assert bootstrap(Join("n", "127.0.0.1", 1, stats=stats))["node"]["metadata"] == {"zenvoy": {"stats": expected}}


@pytest.mark.parametrize("stats", ["9902", "host:9902", "10.0.0.7", "10.0.0.7:0", "10.0.0.7:99999"])
def test_bootstrap_invalid_stats_address_is_refused(stats: str) -> None:
    with pytest.raises(ValueError, match="use ip:port"):
        bootstrap(Join("n", "127.0.0.1", 1, stats=stats))


def test_stats_listener_reconciler_queries_are_allowed() -> None:
    assert set(QUERY) == set(STATS_QUERY)


def test_bootstrap_files_include_the_secrets() -> None:
    assert list(files(JOIN)) == ["envoy.yaml", "open-files"]
    tls = Tls("/tls/tls.crt", "/tls/tls.key", "/tls/ca.crt", "reconciler.example", secrets="/etc/zenvoy")
    made = files(Join("n", "reconciler.example", tls=tls))
    pointed_to = set(made) - {"envoy.yaml", "open-files"}
    assert pointed_to and all(f"/etc/zenvoy/{name}" in made["envoy.yaml"] for name in pointed_to)
