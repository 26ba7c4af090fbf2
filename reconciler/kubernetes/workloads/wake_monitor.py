"""Monitoring of wakes: the progress of pods, warnings about them, and the diagnosis of those that do not become ready.

The pods of a namespace are watched only while something in it is waking, and a little longer, because one wake is often
followed by another. Pods are matched to a workload once per change, not once per query. A warning about the workload
itself counts if it is recent; one about a pod counts as long as the pod exists. A pod that has ended, such as one that
was evicted, counts only if that is recent: Kubernetes keeps it, also while the workload is at zero.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from reconciler.core.reasons import Diagnosis, Reason
from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.errors import FORBIDDEN
from reconciler.kubernetes.client.informer import Informer
from reconciler.kubernetes.types.builtin import EventObject, Pod, Service
from reconciler.kubernetes.types.objects import Condition, ObjectRef, Target, decoder, path
from reconciler.kubernetes.types.selectors import Matcher, compile_selector, selector_of
from reconciler.kubernetes.workloads import diagnosis
from reconciler.kubernetes.workloads.diagnosis import Evidence
from reconciler.kubernetes.workloads.target_observer import Spawn
from reconciler.kubernetes.workloads.workload import NONE, UNMARK_AFTER_SECONDS, Workload
from reconciler.plan import Zero

DIAGNOSE_EVERY_SECONDS = 1.0
"""Interval at which a slow wake is diagnosed again, even if nothing but the time has changed."""
LINGER_SECONDS = 15.0
RECENT_SECONDS = 30.0
"""A warning about a workload, or the end of a pod, that is older than this at the start of a wake belongs to an earlier
wake."""
Observed = tuple[list[Pod], list[EventObject]]
"""Pods, and warnings about them and their owners."""

_POD, _EVENT = decoder(Pod), decoder(EventObject)


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
            workload.previous_pods = NONE
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
        namespace = self._namespaces.get(workload.scaler.target.namespace)
        return namespace.of(workload.name) if namespace else None

    def _end(self, name: str) -> None:
        self._ends.pop(name, None)
        self._namespaces.pop(name).close()


@dataclass(slots=True)
class _Followed:
    """The waking workload of one service."""

    target: Target
    matches: Matcher
    since: float
    pods: dict[str, Pod] = field(default_factory=dict)


class NamespacePods:
    """The pods and warning Events of one namespace."""

    def __init__(self, api: Api, namespace: str, changed: Callable[[str], None], spawn: Spawn) -> None:
        self._name, self._changed = namespace, changed
        self.followed: dict[str, _Followed] = {}
        """By service."""
        self._warnings: dict[str | None, dict[str, EventObject]] = {}
        """Warnings by the name of their pod; None for those about other objects."""
        self._about: dict[str, str | None] = {}
        """The name under which `_warnings` has each warning."""
        # Succeeded pods, mostly those of Jobs, never become endpoints.
        self._pods = Informer(
            api, path("v1", "pods", namespace), _POD, self._saw_pod, {"fieldSelector": "status.phase!=Succeeded"}
        )
        self._events = Informer(
            api, path("v1", "events", namespace), _EVENT, self._saw_event, {"fieldSelector": "type=Warning"}
        )
        self._tasks = [
            spawn(self._pods.run(), f"pods of {namespace}"),
            spawn(self._events.run(), f"events of {namespace}"),
        ]

    def follow(self, service: str, target: Target, selector: str) -> bool:
        """Follow the pods of a selector, and return whether the service was not followed before."""
        if service in self.followed:
            return False
        matches = compile_selector(selector)
        pods = {key: pod for key, pod in self._pods.items.items() if matches(pod.metadata.labels)}
        self.followed[service] = _Followed(target, matches, time.time(), pods)
        return True

    def leave(self, service: str) -> bool:
        """Stop following a service, and return whether it was the last one."""
        return self.followed.pop(service, None) is not None and not self.followed

    def of(self, service: str) -> Observed | None:
        """Return the pods of a service, and warnings; None if it is not followed or its pods are not listed yet."""
        followed = self.followed.get(service)
        if followed is None or not self._pods.synced:
            return None
        oldest = followed.since - RECENT_SECONDS
        present = [pod for pod in followed.pods.values() if pod.status.phase != "Failed" or _last_change(pod) > oldest]
        pods = sorted(present, key=lambda pod: pod.metadata.name)
        events = [event for pod in pods for event in self._warnings.get(pod.metadata.name, {}).values()]
        return pods, events + [
            event
            for event in self._warnings.get(None, {}).values()
            if _makes(event.involved_object, followed.target) and _at(event) > oldest
        ]

    def diagnosis(self, service: str) -> Diagnosis | None:
        """Return a permanent error in watching the pods of a service."""
        if service not in self.followed or self._pods.error_status != FORBIDDEN:
            return None
        return Diagnosis(Reason.FORBIDDEN, f"zenvoy may not watch pods in {self._name}, so the cause is not known")

    def close(self) -> None:
        """Stop watching."""
        for task in self._tasks:
            task.cancel()

    def _saw_pod(self, key: str, pod: Pod | None) -> None:
        for service, followed in self.followed.items():
            if pod is not None and followed.matches(pod.metadata.labels):
                followed.pods[key] = pod
                self._changed(service)
            elif followed.pods.pop(key, None) is not None:
                self._changed(service)

    def _saw_event(self, key: str, event: EventObject | None) -> None:
        if key in self._about:
            pod = self._about.pop(key)
            del self._warnings[pod][key]
            if not self._warnings[pod]:
                del self._warnings[pod]
        if event is None:
            return
        about = event.involved_object
        pod = self._about[key] = about.name if about.kind == "Pod" else None
        self._warnings.setdefault(pod, {})[key] = event
        for service, followed in self.followed.items():
            pod_key = f"{followed.target.namespace}/{about.name}"
            if pod_key in followed.pods if about.kind == "Pod" else _makes(about, followed.target):
                self._changed(service)


def _makes(about: ObjectRef, target: Target) -> bool:
    """Return whether an object is the target or one of its ReplicaSets."""
    if about.name == target.name and about.kind == target.kind:
        return True
    return about.kind == "ReplicaSet" and about.name.rpartition("-")[0] == target.name


def _at(event: EventObject) -> float:
    """Return the time of the last occurrence, in seconds since the epoch."""
    return event.last_seen.timestamp() if event.last_seen else 0.0


def _last_change(pod: Pod) -> float:
    """Return the latest time in the status of a pod, in seconds since the epoch."""
    status = pod.status
    containers = (*status.init_container_statuses, *status.container_statuses)
    ends = [one.state.terminated.finished_at for one in containers if one.state.terminated]
    changes = [one.last_transition_time for one in status.conditions]
    times = (*ends, *changes, status.start_time, pod.metadata.creation_timestamp)
    return max((time.timestamp() for time in times if time), default=0.0)
