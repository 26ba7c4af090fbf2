"""An authorized Envoy that lies about rejections, next to one that accepts everything: services are still served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
import pytest

from tests.xds.client import LISTEN, PODS, http
from tests.xds.oracle import DeltaDiscoveryRequest, DeltaDiscoveryResponse, Status, core_v3
from tests.xds.parts import Plane, plane, until
from xds import server
from xds.names import CDS, EDS, LDS, RDS, TRIAL

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
VICTIM, LATER = http("victim"), http("later")
Answer = Callable[[DeltaDiscoveryResponse], str | bool | None]
"""The message with which a response is rejected; None to accept it, False to leave it without an answer."""


class Peer:
    """One Envoy, as its stream shows it."""

    def __init__(self, node: str, call: Any, answer: Answer) -> None:
        self._node, self._call, self.answer = node, call, answer
        self.routes = b""
        """The last routes that it accepted."""
        self.asked = 0
        """Questions of inquiries."""

    async def run(self) -> None:
        for type_url, subscribed in ((CDS, []), (EDS, ["victim", "later"]), (LDS, []), (RDS, ["http"])):
            request = DeltaDiscoveryRequest(
                node=core_v3.Node(id=self._node), type_url=type_url, resource_names_subscribe=subscribed
            )
            await self._call.write(bytes(request))
        while (data := await self._call.read()) is not grpc.aio.EOF:
            response = DeltaDiscoveryResponse.parse(data)
            self.asked += any(found.name == TRIAL for found in response.resources)
            said = self.answer(response)
            if said is False:
                continue
            request = DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
            if isinstance(said, str):
                request.error_detail = Status(code=13, message=said)
            elif response.type_url == RDS:
                self.routes = data
            await self._call.write(bytes(request))


@asynccontextmanager
async def joined(to: Plane, node: str, answer: Answer) -> AsyncIterator[Peer]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{to.port}", options=[("grpc.use_local_subchannel_pool", 1)]) as at:
        call = at.stream_stream(METHOD)()
        peer = Peer(node, call, answer)
        running = asyncio.create_task(peer.run())
        try:
            yield peer
        finally:
            call.cancel()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def accepts(_: DeltaDiscoveryResponse) -> None:
    """Accept everything."""


def blames_the_victim(response: DeltaDiscoveryResponse) -> str | None:
    """Reject all that has a part of one service."""
    carried = b"".join(bytes(found) for found in response.resources)
    return "no" if response.type_url in (LDS, RDS) and b"victim.localhost" in carried else None


def rejects_and_is_silent(response: DeltaDiscoveryResponse) -> str | bool | None:
    """Reject the routes, and answer nothing that is asked about them."""
    if any(found.name == TRIAL for found in response.resources):
        return False
    return "no" if response.type_url == RDS else None


def serve(running: Plane, *services: Any) -> None:
    running.server.configure(LISTEN, services)
    for service in services:
        running.server.route(service.name, PODS)


async def test_rejection_by_one_envoy_takes_nothing_from_another() -> None:
    async with plane() as running, joined(running, "honest", accepts) as honest:
        serve(running, VICTIM)
        running.server.open()
        await until(lambda: b"victim.localhost" in honest.routes, "the first routes")
        async with joined(running, "liar", blames_the_victim) as liar:
            await until(lambda: running.server.nodes().get("liar"), "the liar")

            def are_routes_of(turn: int) -> bool:
                return (b"later.localhost" in honest.routes) is (turn % 2 == 0)

            for turn in range(5):
                serve(running, VICTIM, LATER) if turn % 2 == 0 else serve(running, VICTIM)
                await until(partial(are_routes_of, turn), "the change")
            await until(lambda: running.server.nodes()["liar"].nacks, "the rejection")
            assert b"victim.localhost" in honest.routes
            assert "victim" not in running.server.faults()
            assert liar.routes == b""


@pytest.mark.parametrize("first", ["liar", "honest"])
async def test_envoy_that_answers_nothing_blocks_nothing(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "OVERDUE_SECONDS", 0.5)
    async with plane() as running:
        serve(running, VICTIM)
        running.server.open()
        answers: dict[str, Answer] = {"liar": rejects_and_is_silent, "honest": accepts}
        second = next(name for name in answers if name != first)
        async with joined(running, first, answers[first]) as one:
            await until(lambda: one.asked or one.routes, "the first one to have answered")
            async with joined(running, second, answers[second]) as two:
                honest = one if first == "honest" else two
                serve(running, VICTIM, LATER)
                await until(lambda: b"later.localhost" in honest.routes, "the change")
                assert running.server.faults() == {}


async def test_rejection_by_only_envoy_ends_when_another_joins() -> None:
    async with plane() as running, joined(running, "liar", blames_the_victim):
        serve(running, VICTIM, LATER)
        running.server.open()
        await until(lambda: "victim" in running.server.faults(), "the lie")
        async with joined(running, "honest", accepts) as honest:
            await until(lambda: b"victim.localhost" in honest.routes, "the routes")
            assert running.server.faults() == {}


async def test_part_that_every_envoy_rejects_is_left_out_again() -> None:
    async with plane() as running, joined(running, "one", blames_the_victim) as one:
        serve(running, VICTIM, LATER)
        running.server.open()
        await until(lambda: b"later.localhost" in one.routes, "the routes of one")
        async with joined(running, "two", blames_the_victim) as two:
            await until(lambda: b"later.localhost" in two.routes, "the routes of two")
            assert running.server.faults().keys() == {"victim"}
            serve(running, VICTIM, LATER, http("third"))
            await until(lambda: b"third.localhost" in one.routes and b"third.localhost" in two.routes, "the change")
