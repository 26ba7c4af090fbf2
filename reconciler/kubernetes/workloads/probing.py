"""Probing of endpoints: a ready endpoint gets connections once a dial to it succeeds.

One successful dial is enough. If dials are not answered (a NetworkPolicy may drop them), or are refused for some
seconds, Kubernetes' readiness is trusted; the holder's own dial decides.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from reconciler.concurrency import Backoff
from reconciler.core.address import split_address
from reconciler.kubernetes.workloads.endpoints import PodEndpoint
from reconciler.kubernetes.workloads.target_observer import Spawn
from reconciler.kubernetes.workloads.workload import Workload

NO_ANSWER_SECONDS = 1.0
"""A dial that is neither accepted nor refused after this time is being dropped."""
REFUSED_FOR_SECONDS = 5.0
BACKOFF = Backoff(0.004, 0.1, factor=1.3)
MAX_CONCURRENT_CHECKS = 256
MAX_NAMESPACE_CHECKS = 128
"""The pods of one namespace must not keep those of others from being checked."""
SLOT_SECONDS = 0.25
"""The shortest time for which a check occupies its slot."""
COSTLY_SLOT_SECONDS = 1.0
"""The same for a check that takes ten times as much of the processor: over gRPC or TLS, or with a call to the API."""


class CheckSlots:
    """Slots for dials, probes, and busy checks of pods: they bound number and rate, in total and of one namespace.

    A pod can have many containers whose checks all fail at once, and many ScaledServices can name one Service, so the
    number of checks at once does not bound their work.
    """

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(MAX_CONCURRENT_CHECKS)
        self._of_namespaces: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def slot(self, namespace: str, seconds: float = 0.0) -> AsyncIterator[None]:
        """Wait for a slot for a check of a pod in this namespace, and occupy it for at least `seconds`."""
        share = self._of_namespaces.setdefault(namespace, asyncio.Semaphore(MAX_NAMESPACE_CHECKS))
        await share.acquire()
        try:
            await self._all.acquire()
        except BaseException:
            share.release()
            raise
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        try:
            yield
        finally:
            for slots in (self._all, share):
                loop.call_at(until, slots.release)


async def until_reachable(slots: CheckSlots, address: str, namespace: str) -> bool | None:
    """Dial `ip:port` of a pod in this namespace until a dial succeeds, and return True.

    Give up after some seconds of refused dials (False), or after a dial without an answer (None).
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + REFUSED_FOR_SECONDS
    for delay in BACKOFF.delays():
        async with slots.slot(namespace):
            accepted = await accepts(address)
        if accepted is not False or loop.time() > deadline:
            return accepted
        await asyncio.sleep(delay)
    raise AssertionError("backoff does not end")


async def accepts(address: str, seconds: float | None = None) -> bool | None:
    """Return whether a dial is accepted; None if it is not answered in time, by default `NO_ANSWER_SECONDS`."""
    ip, port = split_address(address)
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as dial:
            async with asyncio.timeout(NO_ANSWER_SECONDS if seconds is None else seconds):
                await asyncio.get_running_loop().sock_connect(dial, (ip, port))
            # Without a listener, a dial from an ephemeral port can connect to itself.
            return bool(dial.getpeername() != dial.getsockname())
    except TimeoutError:
        return None
    except OSError:
        return False


class EndpointProber:
    """Dials each endpoint once, when it appears.

    The endpoints of a service that is reported for the first time are not dialed: they have served before.
    """

    def __init__(self, changed: Callable[[str], None], spawn: Spawn) -> None:
        """Create a prober; `changed` is called with the service of which an endpoint became reachable."""
        self._changed, self._spawn, self._slots = changed, spawn, CheckSlots()

    def reachable(self, workload: Workload, routable: Sequence[PodEndpoint]) -> tuple[str, ...]:
        """Return the reachable addresses of the best rank that has any, and dial those of the best rank.

        Endpoints that were reachable before stay in use until a better one is reachable.
        """
        pods = {endpoint.address: endpoint.pod for endpoint in routable}
        best = {endpoint.address: endpoint.pod for endpoint in routable if endpoint.rank == routable[0].rank}
        if workload.reachable != best:
            workload.reachable = dict(workload.reachable.items() & pods.items())
            self._dial_new(workload, best)
        if workload.dials:
            for gone in workload.dials.keys() - pods.items():
                workload.dials.pop(gone).cancel()
        usable = [endpoint for endpoint in routable if endpoint.address in workload.reachable]
        return tuple(endpoint.address for endpoint in usable if endpoint.rank == usable[0].rank)

    def _dial_new(self, workload: Workload, pods: dict[str, str]) -> None:
        for address, pod in pods.items():
            if address in workload.reachable or (address, pod) in workload.dials:
                continue
            if workload.reported is None or workload.trusts_kubernetes:
                workload.reachable[address] = pod
            if workload.reported is not None:
                dial = self._dial(workload, address, pod)
                workload.dials[address, pod] = self._spawn(dial, f"dial of {address} for {workload.name}")

    async def _dial(self, workload: Workload, address: str, pod: str) -> None:
        answer = await until_reachable(self._slots, address, workload.config.target.namespace)
        del workload.dials[address, pod]
        workload.trusts_kubernetes = answer is None
        workload.reachable[address] = pod
        self._changed(workload.name)
