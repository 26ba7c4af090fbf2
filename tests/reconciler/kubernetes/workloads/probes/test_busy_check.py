"""Busy checks of real servers as pods: what is asked, what is not, and what the answers mean together."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.core.reasons import Reason
from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.types.scaled_service import BusyCheck
from reconciler.kubernetes.workloads.endpoints import PodEndpoint
from reconciler.kubernetes.workloads.probes import busy_check
from reconciler.kubernetes.workloads.probes.busy_check import NO_POD, PodBusyCheck
from tests.fakes.watched import Watched
from tests.ports import free_port
from tests.reconciler.test_http_get import GENEROUS_SECONDS, answering

PODS = "/api/v1/namespaces/shop/pods"
CHECK = BusyCheck("/busy")
FAILED = Reason.BUSY_CHECK_FAILED
BUSY, IDLE, ERROR = (f"HTTP/1.1 {status} x\r\n\r\n".encode() for status in (200, 204, 500))


class Shop:
    """The pods of one service in memory."""

    def __init__(self) -> None:
        self.api = Watched()
        self.api.exists(PODS)

    def pod(self, name: str, ip: str = "127.0.0.1", **spec: Any) -> None:
        self.api.say(PODS, "shop", name, {"spec": spec, "status": {"podIP": ip, "podIPs": [{"ip": ip}]}})

    async def ask(self, *endpoints: PodEndpoint, check: BusyCheck = CHECK) -> tuple[Reason | None, str]:
        blocker = await PodBusyCheck(self.api).ask("shop", check, endpoints)
        return (blocker.code, blocker.message) if blocker else (None, "")


def endpoint(name: str, port: int, ip: str = "127.0.0.1", **more: Any) -> PodEndpoint:
    address = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
    return PodEndpoint(address, more.pop("uid", f"uid-of-{name}"), pod_name=name, **more)


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setattr(busy_check, "CHECK_SECONDS", GENEROUS_SECONDS)
    return Shop()


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        (IDLE, IDLE, None),
        (IDLE, BUSY, Reason.BUSY),
        (ERROR, BUSY, Reason.BUSY),
        (ERROR, IDLE, FAILED),
    ],
)
async def test_any_busy_pod_keeps_awake(shop: Shop, first: bytes, second: bytes, code: Reason | None) -> None:
    shop.pod("a")
    shop.pod("b")
    async with answering(first) as (one, asked), answering(second) as (two, other):
        assert (await shop.ask(endpoint("a", one), endpoint("b", two)))[0] == code
        assert len(asked.requests) == len(other.requests) == 1, "every pod is asked once"


async def test_answer_names_the_pod(shop: Shop) -> None:
    shop.pod("a")
    async with answering(BUSY) as (port, _):
        assert await shop.ask(endpoint("a", port)) == (Reason.BUSY, "GET /busy of pod a is answered with 200")
    refused = await shop.ask(endpoint("a", free_port()))
    assert refused[0] is FAILED and refused[1].startswith("GET /busy of pod a is not answered")


async def test_other_port_of_the_pod_is_asked(shop: Shop) -> None:
    shop.pod("a")
    async with answering(IDLE) as (port, _):
        assert await shop.ask(endpoint("a", free_port()), check=BusyCheck("/busy", port)) == (None, "")


async def test_pod_with_two_families_is_asked_once(shop: Shop) -> None:
    shop.pod("a")
    async with answering(IDLE) as (port, asked):
        second = endpoint("a", port, "fd00::1", ipv6=True)
        assert await shop.ask(endpoint("a", port), second) == (None, "")
        assert len(asked.requests) == 1


@pytest.mark.parametrize("state", ["starting", "terminating"])
async def test_pod_that_is_not_ready_is_not_asked(shop: Shop, state: str) -> None:
    shop.pod("a")
    more: dict[str, Any] = {state: True}
    assert await shop.ask(endpoint("a", free_port(), **more)) == (NO_POD.code, NO_POD.message)


@pytest.mark.parametrize(
    ("claimed", "own", "spec", "reason"),
    [
        ("a", "10.0.0.7", {}, "it is not the address of pod a"),
        ("a", "127.0.0.1", {"hostNetwork": True}, "pod a uses the network of its node"),
        ("b", "127.0.0.1", {}, "there is no pod b"),
        ("", "127.0.0.1", {}, "its EndpointSlice names no pod"),
        ("a,status.phase=Running", "127.0.0.1", {}, "its EndpointSlice names no pod"),
    ],
)
async def test_address_that_is_not_a_pods_own_is_not_asked(
    shop: Shop, claimed: str, own: str, spec: dict[str, Any], reason: str
) -> None:
    """A tenant can write any address to an EndpointSlice."""
    shop.pod("a", own, **spec)
    async with answering(IDLE) as (port, asked):
        assert await shop.ask(endpoint(claimed, port)) == (FAILED, f"127.0.0.1:{port} is not asked: {reason}")
        assert not asked.requests


async def test_pod_that_was_replaced_is_not_asked(shop: Shop) -> None:
    shop.pod("a")
    code, message = await shop.ask(endpoint("a", free_port(), uid="of-an-earlier-one"))
    assert (code, message.endswith("there is no pod a")) == (FAILED, True)


async def test_pod_that_cannot_be_read_is_not_asked(shop: Shop) -> None:
    shop.api.refused[PODS] = ApiError(403, "Forbidden", "pods is forbidden")
    code, message = await shop.ask(endpoint("a", free_port()))
    assert (code, "pod a cannot be read: 403 Forbidden" in message) == (FAILED, True)
