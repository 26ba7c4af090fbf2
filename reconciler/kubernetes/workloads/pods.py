"""Observation of the pods of waking workloads, and of warning Events about them.

Pods are matched to a workload once per change, not once per query. A warning about the workload itself counts
if it is recent; one about a pod counts as long as the pod exists. A pod that has ended, such as one that was evicted,
counts only if that is recent: Kubernetes keeps it, also while the workload is at zero.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from reconciler.core.reasons import Diagnosis, Reason
from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.errors import FORBIDDEN
from reconciler.kubernetes.client.informer import Informer
from reconciler.kubernetes.types.builtin import EventObject, Pod
from reconciler.kubernetes.types.objects import ObjectRef, Target, decoder, path
from reconciler.kubernetes.types.selectors import Matcher, compile_selector
from reconciler.kubernetes.workloads.target_observer import Spawn

RECENT_SECONDS = 30.0
"""A warning about a workload, or the end of a pod, that is older than this at the start of a wake belongs to an earlier
wake."""

_POD, _EVENT = decoder(Pod), decoder(EventObject)


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
        self._warnings: dict[str, dict[str, EventObject]] = {}
        """Warnings about pods, by the pod's name."""
        self._others: dict[str, EventObject] = {}
        """Warnings about other objects."""
        self._about: dict[str, str] = {}
        """Name of the pod of each warning about a pod."""
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

    def of(self, service: str) -> tuple[list[Pod], list[EventObject]] | None:
        """Return the pods of a service, and warnings about them and their owners.

        Returns None if it is not followed or its pods are not listed yet.
        """
        followed = self.followed.get(service)
        if followed is None or not self._pods.synced:
            return None
        oldest = followed.since - RECENT_SECONDS
        present = [pod for pod in followed.pods.values() if pod.status.phase != "Failed" or _last_change(pod) > oldest]
        pods = sorted(present, key=lambda pod: pod.metadata.name)
        events = [event for pod in pods for event in self._warnings.get(pod.metadata.name, {}).values()]
        return pods, events + [
            event
            for event in self._others.values()
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
        self._others.pop(key, None)
        if pod := self._about.pop(key, None):
            self._warnings[pod].pop(key)
            if not self._warnings[pod]:
                del self._warnings[pod]
        if event is None:
            return
        about = event.involved_object
        if about.kind == "Pod":
            self._about[key] = about.name
            self._warnings.setdefault(about.name, {})[key] = event
        else:
            self._others[key] = event
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
