"""Failover with real processes and a real API server: ended, killed, frozen, and with wrong clocks."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.lease_lock import ticks
from tests.cluster.harness import Cluster

DURATION, MARGIN = 4.0, 1.5
LONG_SECONDS = 600.0
"""Duration of a Lease that does not expire during a test."""
PATIENCE_SECONDS = 60.0


class Process:
    """One candidate and its output."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said: list[dict[str, Any]] = []
        self._heard = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            if line.startswith(b'{"what"'):
                self.said.append(json.loads(line))
                self._heard.set()

    async def says(self, what: str, after: int = 0, **more: object) -> dict[str, Any]:
        """Wait for the first entry of that kind after the first `after`."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                for said in self.said[after:]:
                    if said["what"] == what and more.items() <= said.items():
                        return said
                self._heard.clear()
                await self._heard.wait()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reading


@asynccontextmanager
async def candidate(
    cluster: Cluster, namespace: str, name: str, wrong: float = 0.0, duration: float = DURATION
) -> AsyncIterator[Process]:
    command = [sys.executable, "-m", "tests.cluster.candidate", str(cluster.kubeconfig), namespace, name]
    command += [str(duration), str(MARGIN), str(wrong)]
    process = Process(await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE))
    try:
        yield process
    finally:
        await process.end()


@asynccontextmanager
async def leader_and_follower(
    cluster: Cluster, namespace: str, wrong: tuple[float, float] = (0.0, 0.0), duration: float = DURATION
) -> AsyncIterator[tuple[Process, Process]]:
    async with candidate(cluster, namespace, "one", wrong[0], duration) as one:
        await one.says("leads")
        async with candidate(cluster, namespace, "two", wrong[1], duration) as two:
            await two.says("follows", leader="address-of-one")
            yield one, two


def follows_the_term_of(one: Process, leads: dict[str, Any]) -> bool:
    """Return whether a later term began a margin after the end of the last term of `one` before it.

    Both times are those by which the candidates decide, so that a machine that stops for a while changes nothing.
    """
    ends = [said["until"] for said in one.said if said["what"] == "term"]
    before = [end for end in ends if end - (DURATION - MARGIN) <= leads["since"]]
    return leads["since"] - max(before) >= MARGIN


async def test_lease_released_leader_is_replaced_at_once(control_plane: Cluster, namespace: str, api: Api) -> None:
    async with leader_and_follower(control_plane, namespace, duration=LONG_SECONDS) as (one, two):
        one.signal(signal.SIGTERM)
        released = await one.says("released")
        assert not released["valid"]
        await two.says("leads")
        lease = json.loads(await api.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/zenvoy"))
        assert lease["spec"]["holderIdentity"] == "two"
        assert lease["metadata"]["annotations"]["zenvoy.dev/address"] == "address-of-two"


async def test_lease_killed_leader_is_replaced_after_expiry(control_plane: Cluster, namespace: str) -> None:
    async with leader_and_follower(control_plane, namespace) as (one, two):
        one.signal(signal.SIGKILL)
        leads = await two.says("leads")
        await one.end()
        assert follows_the_term_of(one, leads)
        first = next(said for said in one.said if said["what"] == "leads")
        assert leads["index"] > first["index"]


async def test_lease_thawed_leader_no_longer_leads(control_plane: Cluster, namespace: str) -> None:
    async with leader_and_follower(control_plane, namespace) as (one, two):
        one.signal(signal.SIGSTOP)
        await two.says("leads")
        before = len(one.said)
        one.signal(signal.SIGCONT)
        assert not (await one.says("thawed", after=before))["valid"]
        await one.says("follows", after=before, leader="address-of-two")


async def test_lease_wrong_wall_clocks_change_nothing(control_plane: Cluster, namespace: str) -> None:
    """The leader writes of a far past, the follower lives in a far future: it takes nothing that is renewed."""
    async with leader_and_follower(control_plane, namespace, (-1e9, 1e9)) as (one, two):
        started = ticks()
        while ticks() - started < 2 * DURATION:
            await asyncio.sleep(0.1)
        one.signal(signal.SIGKILL)
        await two.says("leads")
        await one.end()
        assert all(follows_the_term_of(one, said) for said in two.said if said["what"] == "leads")


async def test_lease_api_server_silence_ends_leadership_late(apiserver: Cluster, namespace: str) -> None:
    async with candidate(apiserver, namespace, "one") as one:
        leads = await one.says("leads")
        apiserver.stop_apiserver()
        follows = await one.says("follows", after=one.said.index(leads))
        assert follows["leader"] is None
        apiserver.start_apiserver()
        again = await one.says("leads", after=one.said.index(follows))
        assert again["since"] > leads["since"]
        assert again["index"] > leads["index"]
