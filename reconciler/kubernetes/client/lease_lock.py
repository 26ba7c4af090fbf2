"""Leadership by a Lease of the API server: the calls that `leader_election.py` decides on.

https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/lease-v1/
Every write names the version of the Lease that it is about, so of two that come at once the API server takes one.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from reconciler.kubernetes.client import leader_election
from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.errors import ApiError, Unreachable
from reconciler.kubernetes.client.leader_election import LeaderElection, LeaseRecord, LeaseTiming, ReadLease, WriteLease
from reconciler.kubernetes.types.objects import path
from reconciler.ports.store import NoIndexLeft

API_VERSION = "coordination.k8s.io/v1"
log = structlog.get_logger(__name__)

CALL_TIMEOUT_SECONDS = 3.0
RELEASE_ATTEMPTS = 3
CONFLICT = 409
NOT_FOUND = 404


def ticks() -> float:
    """Seconds since this machine started, the time that it was suspended included; nobody can set them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wall() -> datetime:
    """For people who read the Lease; nothing is decided by it."""
    return datetime.now(UTC)


class LeaderElector:
    """One candidate for the Lease `name`; `address` is where followers find us while we lead, as `ip:port`.

    `on_lead` is told since when we lead (`ticks`), `on_follow` that we do not, and where the leader is if that is
    known; also when only the leader changed. `on_indexes` is told when there are indexes again after there were none.
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
        ticks: Callable[[], float] = ticks,
        wall: Callable[[], datetime] = wall,
    ) -> None:
        """`place` is the Lease's namespace and name."""
        namespace, self._name = place
        self._api, self._election, self._address = api, candidate, address
        self._on_lead, self._on_follow, self._on_indexes = on_lead, on_follow, on_indexes
        self._ticks, self._wall = ticks, wall
        self._all = path(API_VERSION, "leases", namespace)
        self._one = path(API_VERSION, "leases", namespace, self._name)
        self._soon = asyncio.Event()
        self._role: tuple[bool, float, str | None] | None = None
        """What was told last: whether we lead, since when, or where the leader is."""
        self._starved = False
        self._silent = False

    def valid(self) -> bool:
        """Whether we lead at this very moment, however long this process was frozen."""
        return self._election.valid(self._ticks())

    @property
    def holder(self) -> str | None:
        """Whose the Lease is, as far as is known, for people."""
        return self._election.known.holder or None if self._election.known else None

    def next_index(self) -> int:
        """A number that was never given out before. Raises `NoIndexLeft`; `on_indexes` then tells when to ask again."""
        index = self._election.next_index(self._ticks())
        if index is None or not self._election.left():
            self._soon.set()
        if index is None:
            self._starved = True
            raise NoIndexLeft
        return index

    def renew_now(self) -> None:
        """There may be news: the stream to the leader ended, say."""
        self._election.renew_now()
        self._soon.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._tell()
            if (todo := self._election.act(self._ticks())) is not None:
                await self._do(todo)
                self._tell()
            self._soon.clear()
            await self._pause()

    async def close(self) -> None:
        """Lead no more, and let the next one begin at once. `run` must have ended, and all that only a leader may send
        must have arrived."""
        write = self._election.release()
        for _ in range(RELEASE_ATTEMPTS):
            if write is None:
                return
            try:
                await self._put(write)
                return
            except ApiError as error:
                if error.status != CONFLICT:
                    log.warning("the lease could not be released", why=str(error))
                    return
            except Unreachable as error:
                log.warning("the lease could not be released", why=str(error))
            await self._do(ReadLease())
            write = self._election.release()

    async def _pause(self) -> None:
        now = self._ticks()
        seconds = max(0.0, self._election.due(now) - now)
        if not self._election.valid(now):  # renewals of a leader are punctual, looks of others spread
            seconds *= 0.8 + random.random() * 0.2
        try:
            await asyncio.wait_for(self._soon.wait(), seconds)
        except TimeoutError:
            return

    async def _do(self, todo: ReadLease | WriteLease) -> None:
        began = self._ticks()
        try:
            if isinstance(todo, ReadLease):
                found = await self._get()
                self._election.read(self._ticks(), found)
            else:
                stored = await self._put(todo)
                self._election.wrote(began, self._ticks(), todo, stored)
        except ApiError as error:
            if error.status == CONFLICT:
                self._election.refused(self._ticks())
            else:
                self._failed(error)
        except (Unreachable, msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            self._failed(error)
        else:
            self._silent = False

    def _failed(self, error: Exception) -> None:
        if not self._silent:
            log.warning("the lease cannot be read or renewed; it is tried again", why=str(error))
        self._silent = True
        self._election.failed(self._ticks())

    async def _get(self) -> LeaseRecord | None:
        try:
            return _lease(await self._api.get(self._one, timeout=self._timeout()))
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            return None

    async def _put(self, write: WriteLease) -> LeaseRecord:
        body = lease_body(write, self._name, self._address, self._election.terms, self._wall())
        method, where = ("PUT", self._one) if write.over else ("POST", self._all)
        return _lease(await self._api.call(method, where, body, timeout=self._timeout()))

    def _timeout(self) -> float:
        """Not beyond the time at which we stop leading, so that this is told in time."""
        now = self._ticks()
        left = self._election.valid_until - now
        return min(CALL_TIMEOUT_SECONDS, left) if left > 0 else CALL_TIMEOUT_SECONDS

    def _tell(self) -> None:
        if self.valid():
            role: tuple[bool, float, str | None] = (True, self._election.since, None)
        else:
            role = (False, 0.0, self._election.leader())
        if role != self._role:
            self._role = role
            if role[0]:
                log.info("this replica leads", lease=self._name)
                self._on_lead(role[1])
            else:
                log.info("this replica follows", lease=self._name, holder=self.holder, leader=role[2])
                self._on_follow(role[2])
        if self._starved and self._election.left() and role[0]:
            self._starved = False
            self._on_indexes()


def lease_body(write: WriteLease, name: str, address: str, terms: LeaseTiming, at: datetime) -> dict[str, Any]:
    """The Lease as it is sent; what others wrote into it stays."""
    new = {"apiVersion": API_VERSION, "kind": "Lease"}
    over: dict[str, Any] = dict(write.over.raw) if write.over else new
    meta = dict(over.get("metadata") or {"name": name})
    notes = {**(meta.get("annotations") or {}), leader_election.NEXT_INDEX: str(write.next_index)}
    notes[leader_election.ADDRESS] = address if write.holder else ""
    spec = dict(over.get("spec") or {})
    stamp = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec |= {"leaseDurationSeconds": max(1, round(terms.duration)), "leaseTransitions": write.transitions}
    spec |= {"holderIdentity": write.holder, "renewTime": stamp}
    if write.acquires:
        spec["acquireTime"] = stamp
    return {**over, "metadata": {**meta, "annotations": notes}, "spec": spec}


def _lease(body: bytes) -> LeaseRecord:
    return leader_election.parse_lease(msgspec.json.decode(body))
