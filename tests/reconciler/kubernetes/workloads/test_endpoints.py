"""What a Service's EndpointSlices offer, whichever way they are cut."""

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
    """Of the best rank."""
    found = pod_endpoints(slices, port)
    return [offer.address for offer in found if offer.rank == found[0].rank]


def test_ready_ones_are_offered_and_unknown_counts_as_ready() -> None:
    found = addresses(slice_of(pod("10.0.0.2", ready=True), pod("10.0.0.1"), pod("10.0.0.3", ready=False)))
    assert found == ["10.0.0.1:8080", "10.0.0.2:8080"]


def test_all_slices_of_a_service_count() -> None:
    assert addresses(slice_of(pod("10.0.0.1")), slice_of(), slice_of(pod("10.0.0.2"))) == [
        "10.0.0.1:8080",
        "10.0.0.2:8080",
    ]


def test_a_named_port_is_what_each_slice_says_that_it_is() -> None:
    """A target port with a name may be another number in each pod."""
    one = slice_of(pod("10.0.0.1"), ports=[{"name": "http", "port": 8080}, {"name": "metrics", "port": 9090}])
    two = slice_of(pod("10.0.0.2"), ports=[{"name": "http", "port": 8081}])
    assert addresses(one, two, port="http") == ["10.0.0.1:8080", "10.0.0.2:8081"]
    assert addresses(one, two, port="metrics") == ["10.0.0.1:9090"]
    assert addresses(one, two, port="") == []


@pytest.mark.parametrize("ports", [[{"name": "", "port": 53, "protocol": "UDP"}], [{"name": ""}], []])
def test_a_port_that_cannot_be_dialled_is_not_offered(ports: Any) -> None:
    assert addresses(slice_of(pod("10.0.0.1"), ports=ports)) == []


def test_ipv4_comes_first_and_ipv6_where_there_is_no_other() -> None:
    four, six = slice_of(pod("10.0.0.1")), slice_of(pod("fd00::1"), family="IPv6")
    assert addresses(six, four) == ["10.0.0.1:8080"]
    assert addresses(six) == ["[fd00::1]:8080"]
    assert addresses(slice_of(pod("10.0.0.1", ready=False)), six) == ["[fd00::1]:8080"]
    assert addresses(slice_of(pod("example.com"), family="FQDN")) == []


def test_those_that_end_serve_while_nobody_is_ready() -> None:
    ending = pod("10.0.0.1", "a", ready=False, serving=True, terminating=True)
    dead = pod("10.0.0.3", "c", ready=False, serving=False, terminating=True)
    starting = pod("10.0.0.4", "d", ready=False, serving=False, terminating=False)
    assert pod_endpoints([slice_of(ending, dead, starting)], "") == (
        PodEndpoint("10.0.0.1:8080", "a", terminating=True),
    )
    assert addresses(slice_of(ending, pod("10.0.0.2"))) == ["10.0.0.2:8080"]


def test_ready_ones_of_one_family_are_better_than_ending_ones_of_another() -> None:
    ending = slice_of(pod("10.0.0.1", "a", ready=False, serving=True, terminating=True))
    assert addresses(ending, slice_of(pod("fd00::1"), family="IPv6")) == ["[fd00::1]:8080"]


@pytest.mark.parametrize("turned", [False, True])
def test_an_endpoint_that_moves_from_one_slice_to_another_is_taken_at_its_best(turned: bool) -> None:
    old = slice_of(pod("10.0.0.1", "a", ready=False, serving=True, terminating=True))
    new = slice_of(pod("10.0.0.1", "b", ready=True))
    assert pod_endpoints([new, old] if turned else [old, new], "") == (PodEndpoint("10.0.0.1:8080", "b"),)


def test_a_slice_without_anything_offers_nothing() -> None:
    assert pod_endpoints([READ(b'{"addressType": "IPv4", "endpoints": null, "ports": null}')], "") == ()


@pytest.mark.parametrize("text", ["010.0.0.1", "10.0.0.256", "fe80::1%eth0", "web.example.com", ""])
def test_what_envoy_would_not_take_for_an_address_is_left_out(text: str) -> None:
    """One of them would keep all that comes after it from being told: the API server takes the first."""
    family = "IPv6" if ":" in text else "IPv4"
    assert addresses(slice_of(pod(text), family=family), slice_of(pod("10.0.0.1"))) == ["10.0.0.1:8080"]
