"""Leader election through a Lease: performs the calls that `leader_election.py` decides on, and reports the result.

https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/lease-v1/
Each write names the version of the Lease that it replaces, so the API server accepts one of two concurrent writes.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import structlog

from reconciler.kubernetes.client import leader_election
from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.errors import CONFLICT, ApiError, Unreachable
from reconciler.kubernetes.client.leader_election import LeaderElection, LeaseRecord, LeaseTiming, ReadLease, WriteLease
from reconciler.kubernetes.types.objects import micro_time, path
from reconciler.ports.store import NoIndexLeft

API_VERSION = "coordination.k8s.io/v1"
log = structlog.get_logger(__name__)

CALL_TIMEOUT_SECONDS = 3.0
RELEASE_ATTEMPTS = 3


def ticks() -> float:
    """Return seconds since the machine started, including time in suspend. The clock cannot be set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class LeaderElector:
    """A candidate for the Lease at `place`, a namespace and a name.

    Followers connect to this replica as the leader at `address` (`ip:port`). `on_lead` is called with the start of the
    term (`ticks`). `on_follow` is called with the leader's address, if it is known, and also when only the leader
    changes. `on_indexes` is called when reserved indexes are available again. `wall` is the wall-clock time, for people
    who read the Lease. Nothing is decided by it.
    """

    def __init__(
        self,
        api: Api,
        place: tuple[str, str],
        candidate: LeaderElection,
        address: str,
        on_lead: Callable[[float], None],
        on_follow: Callable[[str | None], None],
        on_indexes: Callable[[], None] = lambda: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        namespace, self._name = place
        self._api, self._election, self._address = api, candidate, address
        self._on_lead, self._on_follow, self._on_indexes = on_lead, on_follow, on_indexes
        self._wall = wall
        self._all = path(API_VERSION, "leases", namespace)
        self._one = path(API_VERSION, "leases", namespace, self._name)
        self._wakeup = asyncio.Event()
        self._role: tuple[bool, float, str | None] | None = None
        """The last reported role: leading, start of the term, address of the leader."""
        self._out_of_indexes = False
        self._failing = False

    def valid(self) -> bool:
        """Return whether this replica leads at this moment, even if the process was frozen before."""
        return self._election.valid(ticks())

    @property
    def holder(self) -> str | None:
        """Last known holder of the Lease, for people."""
        return self._election.known.holder or None if self._election.known else None

    def next_index(self) -> int:
        """Return an index that was never assigned before. Raises `NoIndexLeft`; `on_indexes` reports when to retry."""
        index = self._election.next_index(ticks())
        if index is None or not self._election.left():
            self._wakeup.set()
        if index is None:
            self._out_of_indexes = True
            raise NoIndexLeft
        return index

    def renew_now(self) -> None:
        """Read or renew the Lease at once, for example because the stream to the leader ended."""
        self._election.renew_now()
        self._wakeup.set()

    async def run(self) -> None:
        """Take part in the election until cancelled."""
        while True:
            self._report()
            if (action := self._election.act(ticks())) is not None:
                await self._execute(action)
                self._report()
            self._wakeup.clear()
            await self._pause()

    async def close(self) -> None:
        """End the term, so that the next leader can start at once.

        `run` must have ended, and all writes that only the leader may send must have arrived.
        """
        for _ in range(RELEASE_ATTEMPTS):
            if (write := self._election.release()) is None:
                return
            try:
                await self._put(write)
                return
            except ApiError as error:
                if error.status != CONFLICT:
                    log.warning("failed to release the lease", error=str(error))
                    return
            except Unreachable as error:
                log.warning("failed to release the lease", error=str(error))
            await self._execute(ReadLease())

    async def _pause(self) -> None:
        now = ticks()
        seconds = max(0.0, self._election.due(now) - now)
        if not self._election.valid(now):  # followers spread their reads; the leader renews on time
            seconds *= 0.8 + random.random() * 0.2
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wakeup.wait(), seconds)

    async def _execute(self, action: ReadLease | WriteLease) -> None:
        """Make a call, and give its result to the election."""
        began = ticks()
        try:
            if isinstance(action, ReadLease):
                found = await self._api.find(self._one, self._timeout())
                self._election.read(ticks(), None if found is None else _lease(found))
            else:
                stored = await self._put(action)
                self._election.wrote(began, ticks(), action, stored)
        except (ApiError, Unreachable, msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, ApiError) and error.status == CONFLICT:
                self._election.refused(ticks())
                return
            if not self._failing:
                log.warning("failed to read or renew the lease, retrying", error=str(error))
            self._failing = True
            self._election.failed(ticks())
        else:
            self._failing = False

    async def _put(self, write: WriteLease) -> LeaseRecord:
        body = lease_body(write, self._name, self._address, self._election.timing, self._wall())
        method, where = ("PUT", self._one) if write.over else ("POST", self._all)
        return _lease(await self._api.call(method, where, body, timeout=self._timeout()))

    def _timeout(self) -> float:
        """Return a timeout that ends before the term does, so that the end of the term is reported in time."""
        now = ticks()
        left = self._election.valid_until - now
        return min(CALL_TIMEOUT_SECONDS, left) if left > 0 else CALL_TIMEOUT_SECONDS

    def _report(self) -> None:
        if self.valid():
            role: tuple[bool, float, str | None] = (True, self._election.since, None)
        else:
            role = (False, 0.0, self._election.leader())
        if role != self._role:
            self._role = role
            if role[0]:
                log.info("elected leader", lease=self._name)
                self._on_lead(role[1])
            else:
                log.info("following", lease=self._name, holder=self.holder, leader=role[2])
                self._on_follow(role[2])
        if self._out_of_indexes and self._election.left() and role[0]:
            self._out_of_indexes = False
            self._on_indexes()


def lease_body(write: WriteLease, name: str, address: str, timing: LeaseTiming, at: float) -> dict[str, Any]:
    """Return the Lease to send; fields of other writers are kept."""
    over: dict[str, Any] = dict(write.over.raw) if write.over else {"apiVersion": API_VERSION, "kind": "Lease"}
    meta = dict(over.get("metadata") or {"name": name})
    notes = {**(meta.get("annotations") or {}), leader_election.NEXT_INDEX: str(write.next_index)}
    notes[leader_election.ADDRESS] = address if write.holder else ""
    spec = dict(over.get("spec") or {})
    spec |= {"leaseDurationSeconds": max(1, round(timing.duration)), "leaseTransitions": write.transitions}
    spec |= {"holderIdentity": write.holder, "renewTime": micro_time(at)}
    if write.acquires:
        spec["acquireTime"] = spec["renewTime"]
    return {**over, "metadata": {**meta, "annotations": notes}, "spec": spec}


def _lease(body: bytes) -> LeaseRecord:
    return leader_election.parse_lease(msgspec.json.decode(body))
