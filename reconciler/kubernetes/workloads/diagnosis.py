"""Diagnosis of a workload that does not become ready, from what Kubernetes reports about it. Pure.

Each finding has a code (Kubernetes' own reason where there is one) and a message that names the object to look at. The
finding closest to the cause is reported. The same state gives the same message: counters and times that change by
themselves are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reconciler.core.reasons import Diagnosis, Reason
from reconciler.kubernetes.types.builtin import ContainerStatus, EventObject, Pod, Terminated
from reconciler.kubernetes.types.objects import Condition
from reconciler.kubernetes.workloads.probes.checks import lasting_containers, left_to_kubernetes
from reconciler.kubernetes.workloads.target_informers import PAUSED

MAX_QUOTE_LENGTH = 300
"""Number of characters of a quoted message."""
STARTING_REASONS = ("ContainerCreating", "PodInitializing", "")
"""Reasons of waiting containers during a normal start."""
PULL_REASONS = ("ImagePullBackOff", "ErrImagePull")
MOUNT_REASONS = ("FailedMount", "FailedAttachVolume", "FailedMapVolume")
NO_REASON = "no reason given"
OOM_EXIT_CODE = 137
UNCREATED_SECONDS = 5.0
"""Time after which missing pods are a finding, if nothing explains them."""
UNREADY_SECONDS = 10.0
"""Time after which a failing readiness probe, a running init container, or a pod without a node is a finding."""
SILENT_SECONDS = 30.0
"""Time after which a running pod that is not ready is a finding, if nothing explains it."""
GATED_SECONDS = 5.0
"""Time after which a pod whose containers are ready is a finding because of its readiness gates."""
UNROUTED_SECONDS = 3.0
"""Time after which a ready pod that is not an endpoint is a finding."""

# Kubernetes reports these causes in messages only.
_TRANSIENT_MOUNT = re.compile(r"failed to sync (configmap|secret) cache")
_RPC_PREFIX = re.compile(r"\brpc error: code = \w+ desc = ")
_BACK_OFF_PREFIX = re.compile(r'^Back-off pulling image "[^"]*"(?:: ErrImagePull: )?')
_PULL_PREFIX = re.compile(r'^Failed to pull image "[^"]*": ')
_GENERATED_NAME = re.compile(r'^(?:create Pod .{1,200}? failed error: |Error creating: )?pods? "[^"]*" is forbidden: ')
"""The name of a pod that was never created, which differs in each attempt."""


@dataclass(frozen=True, slots=True)
class RankedDiagnosis:
    """A diagnosis with a rank; a lower rank is closer to the cause."""

    rank: int
    diagnosis: Diagnosis


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that is known about a workload that should become ready."""

    target: str
    """Its name for people, such as `Deployment shop/web`."""
    waited_seconds: float
    """Time since it was woken, by this machine's clock."""
    running_seconds: float = 0.0
    """Time since one of its pods was first observed to run; 0 before."""
    ready_seconds: float = 0.0
    """Time since one of its pods was first observed to be ready; 0 before."""
    desired: int = 0
    """Number of requested pods; 0 if not known."""
    conditions: Sequence[Condition] = ()
    """Failure conditions of the target."""
    pods: Sequence[Pod] = ()
    """The pods of its selector, including terminating ones."""
    events: Sequence[EventObject] = ()
    """Warnings about its pods, and recent ones about itself and its ReplicaSets."""
    service: str = ""
    """The Service that has no endpoint, such as `Service shop/web`."""
    port: str = ""


def diagnose(evidence: Evidence) -> Diagnosis | None:
    """Return why the workload does not become ready; None while nothing is known to be wrong."""
    pods = evidence.pods
    live = [pod for pod in pods if pod.metadata.deletion_timestamp is None and pod.status.phase != "Succeeded"]
    findings = [one for pod in live for one in _pod_findings(pod, evidence)]
    if missing := _missing_pods(evidence, sum(pod.status.phase != "Failed" for pod in live)):
        findings.append(missing)
    if not findings:
        findings += [one for pod in live if (one := _slow_pod(pod, evidence))]
    return min(findings, key=lambda one: (one.rank, str(one.diagnosis))).diagnosis if findings else None


def _finding(rank: int, code: str, message: str) -> RankedDiagnosis:
    return RankedDiagnosis(rank, Diagnosis.of(code, message))


def _pod_findings(pod: Pod, evidence: Evidence) -> Iterable[RankedDiagnosis]:
    """Yield the errors of one pod."""
    name, status = f"pod {pod.metadata.name}", pod.status
    events = [event for event in evidence.events if _is_about(event, pod)]
    if status.phase == "Failed":
        yield _finding(5, status.reason or "Failed", f"{name} has ended: {_quote(status.message)}")
        return
    kinds = (("init container", status.init_container_statuses), ("container", status.container_statuses))
    for kind, containers in kinds:
        for container in containers:
            if found := _container_finding(f"{kind} {container.name} of {name}", container, events):
                yield found
    for condition in status.conditions:
        if condition.type == "PodScheduled" and condition.status == "False":
            reason = condition.reason or Reason.UNSCHEDULABLE
            yield _finding(3, reason, f"{name} cannot be scheduled: {_quote(condition.message)}")
    if _waits_for_volumes(pod):
        for event in events:
            if event.reason in MOUNT_REASONS and not _TRANSIENT_MOUNT.search(event.message):
                yield _finding(4, event.reason, f"{name}: {shorten_quote(event.message)}")


def _container_finding(name: str, container: ContainerStatus, events: Sequence[EventObject]) -> RankedDiagnosis | None:
    waiting = container.state.waiting
    if waiting and waiting.reason in PULL_REASONS:
        message = f"image {container.image} of {name} cannot be pulled: {_pull_error(container, events)}"
        return _finding(1, Reason.IMAGE_PULL_BACK_OFF, message)
    if ended := _crash(container):
        return RankedDiagnosis(2, _describe_crash(name, container, ended))
    if waiting and waiting.reason not in STARTING_REASONS:
        return _finding(2, waiting.reason, f"{name}: {_quote(waiting.message)}")
    return None


def _pull_error(container: ContainerStatus, events: Sequence[EventObject]) -> str:
    """Return the registry's message. Newer kubelets repeat it while they wait; older ones have it in an Event only."""
    waiting = container.state.waiting
    if message := shorten_quote(_BACK_OFF_PREFIX.sub("", waiting.message if waiting else "")):
        return message
    for event in events:
        if event.reason == "Failed" and container.image in event.message and _PULL_PREFIX.match(event.message):
            return _quote(_PULL_PREFIX.sub("", event.message))
    return NO_REASON


def _crash(container: ContainerStatus) -> Terminated | None:
    """Return how a container ended, if it should not have: it will restart, has just ended, or is not ready again."""
    ended = container.state.terminated or container.last_state.terminated
    if ended is None or container.ready:
        return None
    return ended if _is_backing_off(container) or ended.exit_code or ended.reason == Reason.OOM_KILLED else None


def _describe_crash(name: str, container: ContainerStatus, ended: Terminated) -> Diagnosis:
    restarts = f", restarted {_times(container.restart_count)}" if container.restart_count else ""
    quote = f": {shorten_quote(ended.message)}" if ended.message else ""
    if ended.reason == Reason.OOM_KILLED:
        exit_code = ended.exit_code or OOM_EXIT_CODE
        message = f"{name} needs more memory than its limit (exit code {exit_code}){restarts}{quote}"
        return Diagnosis(Reason.OOM_KILLED, message)
    reason = f" ({ended.reason})" if ended.reason not in ("", "Error") else ""
    repeated = _is_backing_off(container) or container.restart_count
    code = Reason.CRASH_LOOP_BACK_OFF if repeated else Reason.CRASHED
    return Diagnosis(code, f"{name} ended with exit code {ended.exit_code}{reason}{restarts}{quote}")


def _missing_pods(evidence: Evidence, pods: int) -> RankedDiagnosis | None:
    """Return why pods are missing. The Event of a rejection outlasts it, so the number of pods counts more."""
    if 0 < evidence.desired <= pods:
        return None
    for condition in evidence.conditions:
        if condition.type == "ReplicaFailure" and condition.status == "True":
            return _rejection(evidence.target, condition.reason, condition.message)
    for event in evidence.events:
        if event.reason == Reason.FAILED_CREATE and event.involved_object.kind != "Pod":
            return _rejection(evidence.target, event.reason, event.message)
    if not pods and evidence.waited_seconds >= UNCREATED_SECONDS:
        return _finding(7, Reason.NO_PODS, _uncreated(evidence))
    return None


def _uncreated(evidence: Evidence) -> str:
    """Describe that there is no pod. A StatefulSet creates none while the pod of the same name still exists."""
    if any(condition.reason == PAUSED for condition in evidence.conditions):
        return f"{evidence.target} is paused and has never created a pod; run kubectl rollout resume"
    terminating = [pod for pod in evidence.pods if pod.metadata.deletion_timestamp]
    if terminating:
        first = min(terminating, key=lambda pod: pod.metadata.name)
        earlier = f"pod {first.metadata.name} is still terminating on node {first.spec.node_name or 'none'}"
        return f"{earlier}, and the controller of {evidence.target} has created no other pod"
    return f"the controller of {evidence.target} has created no pod and reports no reason"


def _rejection(target: str, reason: str, message: str) -> RankedDiagnosis:
    cause = _quote(_GENERATED_NAME.sub("", message))
    # The API server reports an exceeded quota as a plain Forbidden.
    code = Reason.QUOTA_EXCEEDED if "exceeded quota" in cause else reason or Reason.FAILED_CREATE
    return _finding(6, code, f"pods of {target} cannot be created: {cause}")


def _slow_pod(pod: Pod, evidence: Evidence) -> RankedDiagnosis | None:
    """Return why a pod without errors takes so long."""
    name, status = f"pod {pod.metadata.name}", pod.status
    if pod.is_ready:
        return _unrouted_pod(name, evidence)
    if evidence.running_seconds >= GATED_SECONDS and (gates := _unset_gates(pod)):
        return _finding(8, Reason.NOT_READY, f"{name} is ready, except for its readiness {gates}")
    if evidence.waited_seconds < UNREADY_SECONDS:
        return None
    if not pod.spec.node_name:
        scheduler = f"scheduler {pod.spec.scheduler_name}" if pod.spec.scheduler_name else "its scheduler"
        message = f"{name} has no node yet, and {scheduler} reports no reason: is it running?"
        return _finding(7, Reason.NOT_SCHEDULED, message)
    sidecars = {one.name for one, _ in lasting_containers(pod)}
    for container in status.init_container_statuses:
        if container.state.running and not (container.started if container.name in sidecars else container.ready):
            message = f"init container {container.name} of {name} is still running"
            return _finding(8, Reason.INITIALIZING, message)
    if not any(container.state.running for container in status.container_statuses):
        if evidence.waited_seconds < SILENT_SECONDS:
            return None
        return _finding(8, Reason.CONTAINER_CREATING, f"{name} has no container yet")
    return _unready_pod(pod, evidence)


def _unready_pod(pod: Pod, evidence: Evidence) -> RankedDiagnosis | None:
    name = f"pod {pod.metadata.name}"
    if evidence.running_seconds < UNREADY_SECONDS:
        return None
    why = f"; only Kubernetes decides, because {left}" if (left := left_to_kubernetes(pod)) else ""
    for event in evidence.events:
        if event.reason == Reason.UNHEALTHY and _is_about(event, pod):
            return _finding(
                8, Reason.UNHEALTHY, f"{name} is running, but not ready: {shorten_quote(event.message)}{why}"
            )
    if evidence.running_seconds < SILENT_SECONDS and not why:
        return None
    ready = next((one for one in pod.status.conditions if one.type == "Ready"), None)
    cause = f": {shorten_quote(ready.message)}" if ready and ready.message else ""
    return _finding(8, Reason.NOT_READY, f"{name} is running, but not ready{cause}{why}")


def _unset_gates(pod: Pod) -> str:
    """Return the readiness gates that keep a pod from being ready, for people; empty if something else does."""
    conditions = {one.type: one for one in pod.status.conditions}
    if "ContainersReady" not in conditions or conditions["ContainersReady"].status != "True":
        return ""
    unset = []
    for name in (gate.condition_type for gate in pod.spec.readiness_gates):
        gate = conditions.get(name)
        if gate is None:
            unset.append(f"{name}, which no controller has set")
        elif gate.status != "True":
            unset.append(f"{name}, which is {gate.status}: {_quote(gate.message or gate.reason)}")
    return f"{'gate' if len(unset) == 1 else 'gates'} {' and '.join(unset)}" if unset else ""


def _unrouted_pod(name: str, evidence: Evidence) -> RankedDiagnosis | None:
    if evidence.ready_seconds < UNROUTED_SECONDS or not evidence.service:
        return None
    port = f" for port {evidence.port}" if evidence.port else ""
    remedy = "check that its selector matches the pod's labels, and its targetPort the pod's port"
    message = f"{name} is ready, but {evidence.service} has no endpoint{port}; {remedy}"
    return _finding(9, Reason.NO_ENDPOINT, message)


def shorten_quote(text: str) -> str:
    """Return a message on one line, without the prefixes of remote calls, and not too long."""
    plain = _RPC_PREFIX.sub("", " ".join(text.split()))
    return plain if len(plain) <= MAX_QUOTE_LENGTH else f"{plain[:MAX_QUOTE_LENGTH]}…"


def _quote(text: str) -> str:
    return shorten_quote(text) or NO_REASON


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _is_backing_off(container: ContainerStatus) -> bool:
    waiting = container.state.waiting
    return waiting is not None and waiting.reason == Reason.CRASH_LOOP_BACK_OFF


def _waits_for_volumes(pod: Pod) -> bool:
    """Return whether no container has ever run."""
    return pod.status.phase in ("", "Pending") and all(
        one.state.waiting and one.state.waiting.reason in STARTING_REASONS and not one.last_state.terminated
        for one in (*pod.status.init_container_statuses, *pod.status.container_statuses)
    )


def _is_about(event: EventObject, pod: Pod) -> bool:
    about, meta = event.involved_object, pod.metadata
    return about.kind == "Pod" and about.name == meta.name and about.uid in ("", meta.uid)
