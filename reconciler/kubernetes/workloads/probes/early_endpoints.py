"""Endpoints that are used before Kubernetes calls their pods ready, because zenvoy ran the pods' own probes.

The kubelet probes every `periodSeconds`, by default 10 s, so a pod may wait that long after it could serve. While a
service is waking, zenvoy runs the probes of its pods itself, much more often. An endpoint whose pod passes is used at
once. From then on it is probed each second, and no longer used after the first failure, until Kubernetes calls the pod
ready. After that, Kubernetes alone decides about this pod.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from reconciler.concurrency import Backoff
from reconciler.core.address import split_address
from reconciler.kubernetes.types.builtin import Pod
from reconciler.kubernetes.workloads.endpoints import PodEndpoint
from reconciler.kubernetes.workloads.probes import client
from reconciler.kubernetes.workloads.probes.checks import Check, GrpcCheck, HttpCheck, PodChecks, pod_checks
from reconciler.kubernetes.workloads.probing import COSTLY_SLOT_SECONDS, SLOT_SECONDS, CheckSlots, accepts
from reconciler.kubernetes.workloads.target_observer import Spawn
from reconciler.kubernetes.workloads.workload import NONE, EarlyEndpoint, Workload

BACKOFF = Backoff(0.01, 0.1, factor=1.3)
VERIFY_EVERY_SECONDS = 1.0
"""Interval of the probes of an endpoint in use."""
MAX_PODS = 16
"""Number of pods of a service that are probed at once."""


class EarlyEndpoints:
    """Probes of the pods of waking services."""

    def __init__(self, changed: Callable[[str], None], spawn: Spawn) -> None:
        """`changed` is called with a service when one of its endpoints may be used, or no longer may be."""
        self._changed, self._spawn, self._slots = changed, spawn, CheckSlots()

    def usable(self, workload: Workload, endpoints: Sequence[PodEndpoint]) -> list[str]:
        """Return the addresses that passed, after comparing with the endpoints that may get connections."""
        _record_unready(workload, endpoints)
        if not workload.early:
            return []
        present = {endpoint.address: endpoint for endpoint in endpoints}
        for address, early in list(workload.early.items()):
            endpoint = present.get(address)
            if endpoint is None or endpoint.pod != early.pod:
                workload.drop_early(address)
            elif not endpoint.starting:
                workload.hand_over(address, time.time())
            elif early.passed_at is None and not (workload.is_waking and workload.runs_probes):
                workload.drop_early(address)
        return [address for address, early in workload.early.items() if early.passed_at is not None]

    def probe(self, workload: Workload, endpoints: Sequence[PodEndpoint], pods: Sequence[Pod]) -> None:
        """Start to probe the pods of starting endpoints; only those of the best rank."""
        starting = [endpoint for endpoint in endpoints if endpoint.starting]
        if not starting or not workload.runs_probes:
            return
        by_uid = {pod.metadata.uid: pod for pod in pods}
        for endpoint in (one for one in starting if one.rank == starting[0].rank):
            pod = by_uid.get(endpoint.pod)
            if pod is None or endpoint.pod in workload.unready:
                continue
            checks = pod_checks(pod) if _has_address(pod, endpoint) else None
            if early := workload.early.get(endpoint.address):
                if checks and checks.restarts == early.restarts:
                    continue
                # A container has ended: what it passed before no longer counts, and its next run may differ.
                workload.drop_early(endpoint.address)
            if checks and len(workload.early) < MAX_PODS:
                work = self._follow(workload, endpoint, checks)
                task = self._spawn(work, f"probes of {endpoint.address} for {workload.name}")
                early = EarlyEndpoint(endpoint.pod, checks.restarts, not checks.passed, task)
                workload.early[endpoint.address] = early

    async def _follow(self, workload: Workload, endpoint: PodEndpoint, checks: PodChecks) -> None:
        await self._until_ready(workload, endpoint.address, checks)
        workload.early[endpoint.address].passed_at = time.time()
        self._changed(workload.name)
        try:
            passes = True
            while passes:
                await asyncio.sleep(VERIFY_EVERY_SECONDS)
                passes = await self._round(workload, checks) and await accepts(endpoint.address) is True
        finally:
            early = workload.early.get(endpoint.address)
            if early and early.task is asyncio.current_task():
                del workload.early[endpoint.address]
                self._changed(workload.name)

    async def _until_ready(self, workload: Workload, address: str, checks: PodChecks) -> None:
        for pause in BACKOFF.delays():
            passed = await self._round(workload, checks)
            is_ready = all(one.is_ready for one in checks.containers)
            if is_ready and await accepts(address):
                return
            # After a success, the next check of the pod is due: another success, or the readiness probe.
            await asyncio.sleep(BACKOFF.first if passed and not is_ready else pause)

    async def _round(self, workload: Workload, checks: PodChecks) -> bool:
        """Run the checks that are due, and return whether all of them passed."""
        namespace = workload.config.target.namespace
        due = [(one, check) for one in checks.containers if (check := one.due)]
        results = await asyncio.gather(*(self._run(namespace, checks.ip, check) for _, check in due))
        for (one, _), passed in zip(due, results, strict=True):
            one.record(passed)
        return all(results)

    async def _run(self, namespace: str, ip: str, check: Check) -> bool:
        is_costly = isinstance(check, GrpcCheck) or (isinstance(check, HttpCheck) and check.tls)
        async with self._slots.slot(namespace, COSTLY_SLOT_SECONDS if is_costly else SLOT_SECONDS):
            return await client.run(ip, check)


def _record_unready(workload: Workload, endpoints: Sequence[PodEndpoint]) -> None:
    """Record the pods that Kubernetes called ready before, and no longer."""
    starting = {endpoint.pod for endpoint in endpoints if endpoint.starting}
    if not starting:
        workload.unready = NONE
    elif former := starting & {*workload.unready, *workload.reachable.values(), *(pod for _, pod in workload.dials)}:
        workload.unready = frozenset(former)


def _has_address(pod: Pod, endpoint: PodEndpoint) -> bool:
    """Return whether the endpoint is the pod's own: a writer of EndpointSlices can put any address into it."""
    return split_address(endpoint.address)[0] in {one.ip for one in pod.status.pod_ips}
