"""Why a workload that was woken does not get ready, in one sentence out of what Kubernetes says of it. Pure.

Every sentence begins with one word for machines, in Kubernetes' own words where it has one, and names the object that a
person would look at. The same state gives the same sentence: counters and times that change by themselves are left out.
Counterparts: `pods.py`, which gathers the evidence; `crashes.py`, which reads one container.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reconciler.kubernetes.types.builtin import ContainerStatus, EventObject, Pod, Terminated
from reconciler.kubernetes.types.objects import Condition

LONGEST_WORDS = 300
STARTING = ("ContainerCreating", "PodInitializing", "")
"""Reasons to wait that are no trouble."""
PULLS = ("ImagePullBackOff", "ErrImagePull")
_RPC = re.compile(r"\brpc error: code = \w+ desc = ")
_BACK_OFF = re.compile(r'^Back-off pulling image "[^"]*"(?:: ErrImagePull: )?')
_PULL_FAILED = re.compile(r'^Failed to pull image "[^"]*": ')
KILLED = 137


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing that is wrong. The lower the rank, the nearer to the cause."""

    rank: int
    text: str


def complaint(name: str, container: ContainerStatus, events: Sequence[EventObject]) -> Complaint | None:
    """`events` are warnings about its pod; `name` says which container of which pod it is, for people."""
    waiting = container.state.waiting
    if waiting and waiting.reason in PULLS:
        return Complaint(
            1, f"ImagePullBackOff: image {container.image} of {name} cannot be pulled: {_pull(container, events)}"
        )
    if ended := _crash(container):
        return Complaint(2, _crashes(name, container, ended))
    if waiting and waiting.reason not in STARTING:
        return Complaint(2, f"{waiting.reason}: {name}: {short(waiting.message) or 'no reason given'}")
    return None


def is_starting(container: ContainerStatus) -> bool:
    """Whether it never ran."""
    waiting = container.state.waiting
    return waiting is not None and waiting.reason in STARTING and container.last_state.terminated is None


def short(text: str) -> str:
    """On one line, without the noise of the calls in between, and not without end."""
    plain = _RPC.sub("", " ".join(text.split()))
    return plain if len(plain) <= LONGEST_WORDS else f"{plain[:LONGEST_WORDS]}…"


def _pull(container: ContainerStatus, events: Sequence[EventObject]) -> str:
    """The registry's words: newer kubelets repeat them while they wait, older ones have them in an Event only."""
    waiting = container.state.waiting
    words = short(_BACK_OFF.sub("", waiting.message if waiting else ""))
    if words:
        return words
    said = (event.message for event in events if event.reason == "Failed" and container.image in event.message)
    return next((short(_PULL_FAILED.sub("", one)) for one in said if _PULL_FAILED.match(one)), "") or "no reason given"


def _crash(container: ContainerStatus) -> Terminated | None:
    """How it ended, if it should not have: it waits to run again, has just ended, or runs again and is not ready."""
    ended = container.state.terminated or container.last_state.terminated
    if ended is None or container.ready:
        return None
    again = container.state.waiting is not None and container.state.waiting.reason == "CrashLoopBackOff"
    return ended if again or ended.exit_code or ended.reason == "OOMKilled" else None


def _crashes(name: str, container: ContainerStatus, ended: Terminated) -> str:
    restarts = f", restarted {_times(container.restart_count)}" if container.restart_count else ""
    said = f": {short(ended.message)}" if ended.message else ""
    if ended.reason == "OOMKilled":
        code = ended.exit_code or KILLED
        return f"OOMKilled: {name} needs more memory than its limit (exit code {code}){restarts}{said}"
    reason = f" ({ended.reason})" if ended.reason not in ("", "Error") else ""
    again = container.state.waiting and container.state.waiting.reason == "CrashLoopBackOff"
    word = "CrashLoopBackOff" if again or container.restart_count else "Crashed"
    return f"{word}: {name} ended with exit code {ended.exit_code}{reason}{restarts}{said}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


UNCREATED_SECONDS = 5.0
"""A controller that has made no pod by then is not at work, or says nowhere why it cannot."""
UNREADY_SECONDS = 10.0
"""A readiness probe that fails, an init container that runs, and a pod without a node are a start like any other for
less than this."""
SILENT_SECONDS = 30.0
"""A pod that runs and is not ready for this long is trouble, though nothing says why."""
UNROUTED_SECONDS = 3.0
"""A ready pod that is no endpoint by then will not become one by itself."""
MOUNTS = ("FailedMount", "FailedAttachVolume", "FailedMapVolume")
TRANSIENT = re.compile(r"failed to sync (configmap|secret) cache")
_GENERATED = re.compile(r'^(?:create Pod .{1,200}? failed error: |Error creating: )?pods? "[^"]*" is forbidden: ')
"""Names a pod that was never created, by another name at each attempt."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of one workload that should be getting ready."""

    target: str
    """As people name it: `Deployment shop/web`."""
    waited_seconds: float
    """Since it was woken, by our own clock: no other machine's time is compared."""
    running_seconds: float = 0.0
    """Since a pod of it was first seen to run; 0 before."""
    ready_seconds: float = 0.0
    """Since a pod of it was first seen to be ready; 0 before."""
    desired: int = 0
    """How many pods there should be; 0: not known."""
    conditions: Sequence[Condition] = ()
    """Of the target itself."""
    pods: Sequence[Pod] = ()
    """Those of its selector, the ones that end included."""
    events: Sequence[EventObject] = ()
    """Warnings about its pods, and recent ones about itself and its ReplicaSets."""
    service: str = ""
    """The Service whose endpoint is awaited: `Service shop/web`."""
    port: str = ""


def diagnose(seen: Evidence) -> str | None:
    """What keeps it from getting ready; None while nothing is known to be wrong. The worst of all pods' troubles."""
    live = [pod for pod in seen.pods if pod.metadata.deletion_timestamp is None and pod.status.phase != "Succeeded"]
    found = [one for pod in live for one in _of_pod(pod, seen)]
    if creation := _uncreated(seen, sum(pod.status.phase != "Failed" for pod in live)):
        found.append(creation)
    if not found and live:
        found += [one for pod in live if (one := _slow(pod, seen))]
    return min(found, key=lambda one: (one.rank, one.text)).text if found else None


def _of_pod(pod: Pod, seen: Evidence) -> Iterable[Complaint]:
    """What is wrong with one pod for certain."""
    name, status = f"pod {pod.metadata.name}", pod.status
    events = [event for event in seen.events if _is_about(event, pod)]
    if status.phase == "Failed":
        yield Complaint(
            5, f"{status.reason or 'Failed'}: {name} has ended: {short(status.message) or 'no reason given'}"
        )
        return
    for kind, containers in (
        ("init container", status.init_container_statuses),
        ("container", status.container_statuses),
    ):
        for container in containers:
            if found := complaint(f"{kind} {container.name} of {name}", container, events):
                yield found
    for condition in status.conditions:
        if condition.type == "PodScheduled" and condition.status == "False":
            reason = condition.reason or "Unschedulable"
            yield Complaint(3, f"{reason}: {name} cannot be scheduled: {short(condition.message) or 'no reason given'}")
    if _waits_for_volumes(pod):
        for event in events:
            if event.reason in MOUNTS and not TRANSIENT.search(event.message):
                yield Complaint(4, f"{event.reason}: {name}: {short(event.message)}")


def _uncreated(seen: Evidence, pods: int) -> Complaint | None:
    """Why there are no pods, or not all of them. An Event of a refusal outlasts it, so that pods count more."""
    if 0 < seen.desired <= pods:
        return None
    for condition in seen.conditions:
        if condition.type == "ReplicaFailure" and condition.status == "True":
            return Complaint(6, _refusal(seen.target, condition.reason, condition.message))
    for event in seen.events:
        if event.reason == "FailedCreate" and event.involved_object.kind != "Pod":
            return Complaint(6, _refusal(seen.target, event.reason, event.message))
    if not pods and seen.waited_seconds >= UNCREATED_SECONDS:
        return Complaint(7, f"NoPods: the controller of {seen.target} has created no pod, and does not say why")
    return None


def _refusal(target: str, reason: str, message: str) -> str:
    why = short(_GENERATED.sub("", message))
    word = "QuotaExceeded" if "exceeded quota" in why else reason or "FailedCreate"
    return f"{word}: pods of {target} cannot be created: {why or 'no reason given'}"


def _slow(pod: Pod, seen: Evidence) -> Complaint | None:
    """What is wrong with a pod for no other reason than that it takes so long."""
    name, status = f"pod {pod.metadata.name}", pod.status
    if _is_ready(pod):
        if seen.ready_seconds < UNROUTED_SECONDS or not seen.service:
            return None
        port = f" for port {seen.port}" if seen.port else ""
        advice = "does its selector match the pod's labels, and its targetPort the pod's port?"
        return Complaint(9, f"NoEndpoint: {name} is ready, but {seen.service} has no endpoint{port}: {advice}")
    if seen.waited_seconds < UNREADY_SECONDS:
        return None
    if not pod.spec.node_name:
        scheduler = f"scheduler {pod.spec.scheduler_name}" if pod.spec.scheduler_name else "its scheduler"
        return Complaint(7, f"NotScheduled: {name} has no node yet, and {scheduler} does not say why: does it run?")
    for container in status.init_container_statuses:
        if container.state.running and not container.ready:
            return Complaint(8, f"Initializing: init container {container.name} of {name} still runs")
    if not any(container.state.running for container in status.container_statuses):
        is_long = seen.waited_seconds >= SILENT_SECONDS
        return Complaint(8, f"ContainerCreating: {name} has no container yet") if is_long else None
    if seen.running_seconds < UNREADY_SECONDS:
        return None
    for event in seen.events:
        if event.reason == "Unhealthy" and _is_about(event, pod):
            return Complaint(8, f"Unhealthy: {name} runs, but is not ready: {short(event.message)}")
    if seen.running_seconds >= SILENT_SECONDS:
        return Complaint(8, f"NotReady: {name} runs, but is not ready{_gates(status.conditions)}")
    return None


def _gates(conditions: Sequence[Condition]) -> str:
    """Why the pod's own Ready condition is false, in its own words."""
    ready = next((one for one in conditions if one.type == "Ready"), None)
    return f": {short(ready.message)}" if ready and ready.message else ""


def _is_ready(pod: Pod) -> bool:
    return any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions)


def _waits_for_volumes(pod: Pod) -> bool:
    containers = (*pod.status.init_container_statuses, *pod.status.container_statuses)
    return pod.status.phase in ("", "Pending") and all(is_starting(container) for container in containers)


def _is_about(event: EventObject, pod: Pod) -> bool:
    about, meta = event.involved_object, pod.metadata
    return about.kind == "Pod" and about.name == meta.name and about.uid in ("", meta.uid)
