"""Observation of the pods of waking workloads, and of warning Events about them.

A namespace is watched only while something in it is waking, and a little longer, because one wake is often followed by
another. Pods are matched to a workload once per change, not once per query. A warning about the workload itself counts
if it is recent; one about a pod counts as long as the pod exists. A pod that has ended, such as one that was evicted,
counts only if that is recent: Kubernetes keeps it, also while the workload is at zero.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from reconciler.core.reasons import Diagnosis, Reason
from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.errors import FORBIDDEN
from reconciler.kubernetes.client.informer import Informer
from reconciler.kubernetes.types.builtin import EventObject, Pod
from reconciler.kubernetes.types.objects import ObjectRef, decoder, path
from reconciler.kubernetes.types.selectors import Matcher, compile_selector
from reconciler.kubernetes.types.target import Target
from reconciler.kubernetes.workloads.target_observer import Spawn

LINGER_SECONDS = 15.0
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
        self._changed = changed
        self._followed: dict[str, _Followed] = {}
        self._warnings: dict[str, dict[str, EventObject]] = {}
        """Warnings about pods, by the pod's name."""
        self._others: dict[str, EventObject] = {}
        """Warnings about other objects."""
        self._about: dict[str, str] = {}
        """Name of the pod of each warning about a pod."""
        # Succeeded pods, mostly those of Jobs, never become endpoints.
        self.pods = Informer(
            api, path("v1", "pods", namespace), _POD, self._pod, {"fieldSelector": "status.phase!=Succeeded"}
        )
        self._events = Informer(
            api, path("v1", "events", namespace), _EVENT, self._event, {"fieldSelector": "type=Warning"}
        )
        self._tasks = [
            spawn(self.pods.run(), f"pods of {namespace}"),
            spawn(self._events.run(), f"events of {namespace}"),
        ]

    def follow(self, service: str, target: Target, selector: str) -> None:
        """Follow the pods of a service."""
        matches = compile_selector(selector)
        pods = {key: pod for key, pod in self.pods.items.items() if matches(pod.metadata.labels)}
        self._followed[service] = _Followed(target, matches, time.time(), pods)

    def leave(self, service: str) -> bool:
        """Stop following a service, and return whether it was the last one."""
        self._followed.pop(service, None)
        return not self._followed

    def of(self, service: str) -> tuple[list[Pod], list[EventObject]]:
        """Return the pods of a service, and warnings about them and their owners."""
        followed = self._followed[service]
        oldest = followed.since - RECENT_SECONDS
        present = [pod for pod in followed.pods.values() if pod.status.phase != "Failed" or _last_change(pod) > oldest]
        pods = sorted(present, key=lambda pod: pod.metadata.name)
        events = [event for pod in pods for event in self._warnings.get(pod.metadata.name, {}).values()]
        return pods, events + [
            event
            for event in self._others.values()
            if _makes(event.involved_object, followed.target) and _at(event) > oldest
        ]

    def close(self) -> None:
        """Stop watching."""
        for task in self._tasks:
            task.cancel()

    def _pod(self, key: str, pod: Pod | None) -> None:
        for service, followed in self._followed.items():
            if pod is not None and followed.matches(pod.metadata.labels):
                followed.pods[key] = pod
                self._changed(service)
            elif followed.pods.pop(key, None) is not None:
                self._changed(service)

    def _event(self, key: str, event: EventObject | None) -> None:
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
        for service, followed in self._followed.items():
            pod_key = f"{followed.target.namespace}/{about.name}"
            if pod_key in followed.pods if about.kind == "Pod" else _makes(about, followed.target):
                self._changed(service)


class PodObserver:
    """The pods of all waking workloads."""

    def __init__(self, api: Api, changed: Callable[[str], None], spawn: Spawn) -> None:
        """Create an observer; `changed` is called with a service whose pods or warnings changed."""
        self._api, self._changed, self._spawn = api, changed, spawn
        self._namespaces: dict[str, NamespacePods] = {}
        self._where: dict[str, str] = {}
        self._ends: dict[str, asyncio.TimerHandle] = {}

    @property
    def services(self) -> tuple[str, ...]:
        """The followed services."""
        return tuple(self._where)

    def follow(self, service: str, target: Target, selector: str) -> bool:
        """Follow the pods of a selector, and return whether the service was not followed before."""
        if service in self._where:
            return False
        name = self._where[service] = target.namespace
        if end := self._ends.pop(name, None):
            end.cancel()
        if name not in self._namespaces:
            self._namespaces[name] = NamespacePods(self._api, name, self._changed, self._spawn)
        self._namespaces[name].follow(service, target, selector)
        return True

    def leave(self, service: str) -> None:
        """Stop following a service; its namespace stays watched for a moment."""
        name = self._where.pop(service, None)
        if name is None:
            return
        if self._namespaces[name].leave(service):
            self._ends[name] = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._end, name)

    def of(self, service: str) -> tuple[list[Pod], list[EventObject]] | None:
        """Return the pods and warnings of a service; None if it is not followed or its pods are not listed yet."""
        name = self._where.get(service)
        if name is None or not self._namespaces[name].pods.synced:
            return None
        return self._namespaces[name].of(service)

    def diagnosis(self, service: str) -> Diagnosis | None:
        """Return a permanent error in watching the pods of a service."""
        name = self._where.get(service)
        if name is None or self._namespaces[name].pods.error_status != FORBIDDEN:
            return None
        return Diagnosis(Reason.FORBIDDEN, f"zenvoy may not watch pods in {name}, so the cause is not known")

    def close(self) -> None:
        """Stop watching all namespaces."""
        for end in self._ends.values():
            end.cancel()
        for namespace in self._namespaces.values():
            namespace.close()
        self._where.clear()
        self._namespaces.clear()

    def _end(self, name: str) -> None:
        self._ends.pop(name, None)
        self._namespaces.pop(name).close()


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
