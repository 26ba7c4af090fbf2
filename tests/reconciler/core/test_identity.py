"""Tests of the roles in the URI SANs of certificates."""

from __future__ import annotations

import pytest

from reconciler.core.access import PROXY, RECONCILER, Identity, NoIdentity, Role, envoy, identity


@pytest.mark.parametrize("expected", [RECONCILER, PROXY, envoy("edge-1"), envoy("Edge_1.example")])
def test_identity_uri_returns_same_identity(expected: Identity) -> None:
    assert identity([expected.uri]) == expected


def test_identity_foreign_uri_is_ignored() -> None:
    assert identity(["spiffe://cluster.local/ns/a/sa/b", PROXY.uri]) == PROXY


@pytest.mark.parametrize(
    "uris",
    [
        [],
        ["spiffe://cluster.local/ns/zenvoy-system/sa/zenvoy-proxy"],
        [RECONCILER.uri, PROXY.uri],
        [PROXY.uri, PROXY.uri],
        ["spiffe://zenvoy/"],
        ["spiffe://zenvoy/reconciler/"],
        ["spiffe://zenvoy/Reconciler"],
        ["spiffe://zenvoy/proxy/web"],
        ["spiffe://zenvoy/envoy"],
        ["spiffe://zenvoy/envoy/"],
        ["spiffe://zenvoy/envoy/a/b"],
        ["spiffe://zenvoy/envoy/../reconciler"],
        ["spiffe://zenvoy/envoy/a\nb"],
        ["spiffe://zenvoy/envoy/" + "a" * 254],
        ["SPIFFE://zenvoy/proxy"],
    ],
)
def test_identity_without_one_role_is_refused(uris: list[str]) -> None:
    with pytest.raises(NoIdentity):
        identity(uris)


@pytest.mark.parametrize("node", ["", "a/b", "a b", "-a", "a" * 254, "ä"])
def test_envoy_node_outside_pattern_is_refused(node: str) -> None:
    with pytest.raises(ValueError, match="node id"):
        envoy(node)


def test_role_values_are_path_segments() -> None:
    assert [role.value for role in Role] == ["reconciler", "proxy", "envoy"]
