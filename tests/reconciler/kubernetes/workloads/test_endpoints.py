"""Endpoints of a Service, independent of the division into EndpointSlices."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler.kubernetes.types.builtin import EndpointSlice
from reconciler.kubernetes.types.objects import decoder
from reconciler.kubernetes.workloads.endpoints import PodEndpoint, pod_endpoints

READ = decoder(EndpointSlice)


def slice_of(*endpoints: dict[str, Any], ports: Any = None, family: str = "IPv4") -> EndpointSlice:
    said = [{"name": "", "port": 8080, "protocol": "TCP"}] if ports is None else ports
    return READ(json.dumps({"addressType": family, "endpoints": list(endpoints), "ports": said}).encode())


def pod(ip: str, uid: str = "", **conditions: bool) -> dict[str, Any]:
    made: dict[str, Any] = {"addresses": [ip], "conditions": conditions}
    return {**made, "targetRef": {"kind": "Pod", "uid": uid}} if uid else made


def addresses(*slices: EndpointSlice, port: str = "") -> list[str]:
    """Return the addresses of the best rank."""
    found = pod_endpoints(slices, port)
    return [offer.address for offer in found if offer.rank == found[0].rank]


def test_endpoints_ready_or_unknown_are_used() -> None:
    found = addresses(slice_of(pod("10.0.0.2", ready=True), pod("10.0.0.1"), pod("10.0.0.3", ready=False)))
    assert found == ["10.0.0.1:8080", "10.0.0.2:8080"]


def test_endpoints_of_all_slices_are_used() -> None:
    assert addresses(slice_of(pod("10.0.0.1")), slice_of(), slice_of(pod("10.0.0.2"))) == [
        "10.0.0.1:8080",
        "10.0.0.2:8080",
    ]


def test_endpoints_named_port_follows_each_slice() -> None:
    """A target port with a name may be another number in each pod."""
    one = slice_of(pod("10.0.0.1"), ports=[{"name": "http", "port": 8080}, {"name": "metrics", "port": 9090}])
    two = slice_of(pod("10.0.0.2"), ports=[{"name": "http", "port": 8081}])
    assert addresses(one, two, port="http") == ["10.0.0.1:8080", "10.0.0.2:8081"]
    assert addresses(one, two, port="metrics") == ["10.0.0.1:9090"]
    assert addresses(one, two, port="") == []


@pytest.mark.parametrize("ports", [[{"name": "", "port": 53, "protocol": "UDP"}], [{"name": ""}], []])
def test_endpoints_without_tcp_port_are_skipped(ports: Any) -> None:
    assert addresses(slice_of(pod("10.0.0.1"), ports=ports)) == []


def test_endpoints_ipv4_is_preferred() -> None:
    four, six = slice_of(pod("10.0.0.1")), slice_of(pod("fd00::1"), family="IPv6")
    assert addresses(six, four) == ["10.0.0.1:8080"]
    assert addresses(six) == ["[fd00::1]:8080"]
    assert addresses(slice_of(pod("10.0.0.1", ready=False)), six) == ["[fd00::1]:8080"]
    assert addresses(slice_of(pod("example.com"), family="FQDN")) == []


def test_endpoints_terminating_serve_if_none_is_ready() -> None:
    ending = pod("10.0.0.1", "a", ready=False, serving=True, terminating=True)
    dead = pod("10.0.0.3", "c", ready=False, serving=False, terminating=True)
    starting = pod("10.0.0.4", "d", ready=False, serving=False, terminating=False)
    assert pod_endpoints([slice_of(ending, dead, starting)], "") == (
        PodEndpoint("10.0.0.1:8080", "a", terminating=True),
        PodEndpoint("10.0.0.4:8080", "d", starting=True),
    )
    assert addresses(slice_of(ending, dead, starting)) == ["10.0.0.1:8080"]
    assert addresses(slice_of(ending, pod("10.0.0.2"))) == ["10.0.0.2:8080"]


def test_endpoints_published_while_terminating_come_last() -> None:
    """With publishNotReadyAddresses, Kubernetes calls all of them ready."""
    going, staying = pod("10.0.0.1", ready=True, terminating=True), pod("10.0.0.2", ready=True)
    assert addresses(slice_of(going, staying)) == ["10.0.0.2:8080"]
    assert addresses(slice_of(going)) == ["10.0.0.1:8080"]
    assert [one.terminating for one in pod_endpoints([slice_of(going)], "")] == [True]


def test_endpoints_ready_ipv6_beats_terminating_ipv4() -> None:
    ending = slice_of(pod("10.0.0.1", "a", ready=False, serving=True, terminating=True))
    assert addresses(ending, slice_of(pod("fd00::1"), family="IPv6")) == ["[fd00::1]:8080"]


@pytest.mark.parametrize("turned", [False, True])
def test_endpoints_in_two_slices_use_the_better(turned: bool) -> None:
    old = slice_of(pod("10.0.0.1", "a", ready=False, serving=True, terminating=True))
    new = slice_of(pod("10.0.0.1", "b", ready=True))
    assert pod_endpoints([new, old] if turned else [old, new], "") == (PodEndpoint("10.0.0.1:8080", "b"),)


def test_endpoints_of_empty_slice_are_none() -> None:
    assert pod_endpoints([READ(b'{"addressType": "IPv4", "endpoints": null, "ports": null}')], "") == ()


@pytest.mark.parametrize("text", ["010.0.0.1", "10.0.0.256", "fe80::1%eth0", "web.example.com", ""])
def test_endpoints_with_invalid_address_are_skipped(text: str) -> None:
    """One of them would keep all later ones from being reported: the API server takes the first."""
    family = "IPv6" if ":" in text else "IPv4"
    assert addresses(slice_of(pod(text), family=family), slice_of(pod("10.0.0.1"))) == ["10.0.0.1:8080"]
