"""Probing of endpoints: an endpoint that Kubernetes reports ready gets connections once a dial to it succeeds.

One successful dial is enough. Where dials are not answered (a NetworkPolicy may drop them), or are refused for some
seconds, trust Kubernetes' readiness; the holder's own dial decides.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from reconciler.kubernetes.workloads.endpoints import PodEndpoint
from reconciler.kubernetes.workloads.workload import Workload

NO_ANSWER_SECONDS = 1.0
"""A dial that is neither accepted nor refused by then is dropped somewhere."""
REFUSED_FOR_SECONDS = 5.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, SLOWER_BY = 0.004, 0.1, 1.3
MOST_AT_ONCE = 256


class ConnectProbe:
    """Dials side by side, within bounds."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)

    async def until_reachable(self, address: str) -> bool | None:
        """Return True once a dial to `ip:port` succeeded. Otherwise, once Kubernetes is to be believed without: False
        when dials are refused, None when they are not answered."""
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + REFUSED_FOR_SECONDS, FIRST_PAUSE_SECONDS
        while True:
            async with self._slots:
                accepted = await accepts(address)
            if accepted is not False or loop.time() > until:
                return accepted
            await asyncio.sleep(pause)
            pause = min(pause * SLOWER_BY, LONGEST_PAUSE_SECONDS)


async def accepts(address: str) -> bool | None:
    """Whether somebody listens there; None when nobody says so, one way or the other."""
    host, _, port = address.rpartition(":")
    ip = host.strip("[]")
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as dial:
            async with asyncio.timeout(NO_ANSWER_SECONDS):
                await asyncio.get_running_loop().sock_connect(dial, (ip, int(port)))
            # With nobody listening, a port that the kernel also lends to dials can get connected to itself.
            return bool(dial.getpeername() != dial.getsockname())
    except TimeoutError:
        return None
    except OSError:
        return False


class EndpointProber:
    """Dials each endpoint once, when it appears. Those that a service has when it is first seen have served before."""

    def __init__(
        self, changed: Callable[[str], None], spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]
    ) -> None:
        """`changed` is told the service that an endpoint was reached of."""
        self._changed, self._spawn = changed, spawn
        self._dialler = ConnectProbe()

    def reachable(self, workload: Workload, shown: Sequence[PodEndpoint]) -> tuple[str, ...]:
        """The addresses of the best rank of which anything can be reached; better ones are being dialled.

        Until then, those who were reached before go on: nobody is cut off because somebody better has come.
        """
        pods = {offer.address: offer.pod for offer in shown}
        best = {offer.address: offer.pod for offer in shown if offer.rank == shown[0].rank}
        if workload.reachable != best:
            workload.reachable = {
                address: pod for address, pod in workload.reachable.items() if pods.get(address) == pod
            }
            self._dial_new(workload, best)
        if workload.probes:
            for gone in [dialled for dialled in workload.probes if pods.get(dialled[0]) != dialled[1]]:
                workload.probes.pop(gone).cancel()
        can = [offer for offer in shown if offer.address in workload.reachable]
        return tuple(offer.address for offer in can if offer.rank == can[0].rank)

    def _dial_new(self, workload: Workload, pods: dict[str, str]) -> None:
        for address, pod in pods.items():
            if address in workload.reachable or (address, pod) in workload.probes:
                continue
            if workload.reported is None or workload.trusts_kubernetes:
                workload.reachable[address] = pod
            if workload.reported is not None:
                dial = self._dial(workload, address, pod)
                workload.probes[address, pod] = self._spawn(dial, f"dial of {address} for {workload.name}")

    async def _dial(self, workload: Workload, address: str, pod: str) -> None:
        answer = await self._dialler.until_reachable(address)
        del workload.probes[address, pod]
        workload.trusts_kubernetes = answer is None
        workload.reachable[address] = pod
        self._changed(workload.name)
