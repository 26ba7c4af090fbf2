"""Monitoring of wakes: the progress of pods, and the diagnosis of those that do not become ready.

The pods of a namespace are watched only while something in it is waking, and a little longer, because one wake is often
followed by another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from reconciler.core.reasons import Diagnosis
from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.types.builtin import EventObject, Pod, Service
from reconciler.kubernetes.types.objects import Condition
from reconciler.kubernetes.types.selectors import selector_of
from reconciler.kubernetes.workloads import diagnosis
from reconciler.kubernetes.workloads.diagnosis import Evidence
from reconciler.kubernetes.workloads.pods import NamespacePods
from reconciler.kubernetes.workloads.target_observer import Spawn
from reconciler.kubernetes.workloads.workload import NONE, UNMARK_AFTER_SECONDS, Workload
from reconciler.plan import Zero

DIAGNOSE_EVERY_SECONDS = 1.0
"""Interval at which a slow wake is diagnosed again, even if nothing but the time has changed."""
LINGER_SECONDS = 15.0
Observed = tuple[list[Pod], list[EventObject]]
"""Pods, and warnings about them and their owners."""


class WakeMonitor:
    """Monitor of the services that are waking and have no endpoint."""

    def __init__(self, api: Api, services: Mapping[str, Service], changed: Callable[[str], None], spawn: Spawn) -> None:
        """Create a monitor; `changed` is called with a service that needs a new diagnosis."""
        self._api, self._services, self._changed, self._spawn = api, services, changed, spawn
        self._namespaces: dict[str, NamespacePods] = {}
        """The watched namespaces."""
        self._ends: dict[str, asyncio.TimerHandle] = {}
        """Timers that end the watches of namespaces."""

    async def run(self) -> None:
        """Request a new diagnosis of all waking services regularly, until cancelled."""
        while True:
            await asyncio.sleep(DIAGNOSE_EVERY_SECONDS)
            for pods in self._namespaces.values():
                for service in pods.followed:
                    self._changed(service)

    def close(self) -> None:
        """Cancel timers."""
        for end in self._ends.values():
            end.cancel()

    def observe(self, workload: Workload) -> Observed | None:
        """Record the progress of the workload, and return the pods of this wake, and those that are terminating.

        Returns None while they are not known.
        """
        selector = workload.scaler.observer.selector
        if selector == "" and (service := self._services.get(workload.config.service_key)):
            selector = selector_of(service.pod_selector)
        if not selector:
            return None
        self._follow(workload, selector)
        if (seen := self._seen(workload)) is None:
            return None
        waited = time.monotonic() - workload.awaited_since
        former = workload.previous_pods if waited < UNMARK_AFTER_SECONDS else NONE
        ending = workload.terminating | former
        # One that Kubernetes calls terminating too may be why no other is created.
        pods = [pod for pod in seen[0] if pod.metadata.uid not in ending or pod.metadata.deletion_timestamp]
        workload.record_milestones(pods, time.time())
        return pods, seen[1]

    def diagnose(
        self, workload: Workload, seen: Observed | None, failures: Sequence[Condition], has_ready_endpoint: bool
    ) -> Diagnosis | None:
        """Return why the workload does not become ready, or None.

        `seen` is what `observe` returned, and `failures` are failure conditions of the target.
        `has_ready_endpoint` is Kubernetes' readiness of an endpoint.
        """
        if seen is None:
            namespace = self._namespaces.get(workload.scaler.target.namespace)
            return namespace.diagnosis(workload.name) if namespace else None
        now, reached, config = time.time(), workload.milestones, workload.config
        return diagnosis.diagnose(
            Evidence(
                str(config.target),
                time.monotonic() - workload.awaited_since,
                running_seconds=now - reached.get("running", now),
                ready_seconds=now - reached.get("ready", now),
                desired=workload.scaler.observer.current.replicas if workload.scaler.observer.current else 0,
                conditions=failures,
                pods=seen[0],
                events=seen[1],
                service="" if has_ready_endpoint else f"Service {config.service_key}",
                port=config.port.name,
            )
        )

    def finish(self, workload: Workload) -> None:
        """Stop monitoring a workload that has an endpoint or is no longer desired."""
        if workload.is_waking:
            workload.record_ready(time.time())
            workload.previous_pods = frozenset()
        elif isinstance(workload.desired, Zero) and (seen := self._seen(workload)):
            workload.previous_pods = frozenset(pod.metadata.uid for pod in seen[0])
        self.leave(workload)

    def leave(self, workload: Workload) -> None:
        """Stop monitoring a workload that is gone, or whose pods are not expected yet."""
        name = workload.scaler.target.namespace
        namespace = self._namespaces.get(name)
        if namespace and namespace.leave(workload.name):
            self._ends[name] = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._end, name)

    def _follow(self, workload: Workload, selector: str) -> None:
        target = workload.scaler.target
        if end := self._ends.pop(target.namespace, None):
            end.cancel()
        if target.namespace not in self._namespaces:
            self._namespaces[target.namespace] = NamespacePods(self._api, target.namespace, self._changed, self._spawn)
        if self._namespaces[target.namespace].follow(workload.name, target, selector):
            workload.awaited_since = time.monotonic()

    def _seen(self, workload: Workload) -> Observed | None:
        """Return the pods of a workload, and warnings; None if it is not followed or its pods are not listed yet."""
        namespace = self._namespaces.get(workload.scaler.target.namespace)
        return namespace.of(workload.name) if namespace else None

    def _end(self, name: str) -> None:
        self._ends.pop(name, None)
        self._namespaces.pop(name).close()
