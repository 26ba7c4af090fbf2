"""Why a workload does not get ready: what Kubernetes says, and the one sentence that people get."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler.kubernetes.types.builtin import EventObject, Pod
from reconciler.kubernetes.types.objects import Condition, ObjectRef, decoder
from reconciler.kubernetes.workloads.diagnosis import Evidence, diagnose

Status = dict[str, Any]
TARGET, AWAITED = "Deployment shop/web", "Service shop/web"


def pod(
    name: str = "web-1",
    *,
    deleted: bool = False,
    node: str = "node-1",
    gates: tuple[str, ...] = (),
    spec: Status | None = None,
    **status: Any,
) -> Pod:
    """Return a pod, by default of phase Pending."""
    metadata = {"name": name, "namespace": "shop", "uid": name}
    if deleted:
        metadata["deletionTimestamp"] = "2026-11-23T10:00:00Z"
    whole: Status = {"nodeName": node, "schedulerName": "default-scheduler"} if node else {"schedulerName": "volcano"}
    whole |= {"readinessGates": [{"conditionType": gate} for gate in gates], **(spec or {})}
    text = json.dumps({"metadata": metadata, "spec": whole, "status": {"phase": "Pending", **status}})
    return decoder(Pod)(text.encode())


def app(state: Status, **more: Any) -> Status:
    return {"name": "app", "image": "registry.example/app:1", "ready": False, "restartCount": 0, "state": state, **more}


def waits(reason: str, message: str = "") -> Status:
    return {"waiting": {"reason": reason, "message": message}}


def ended(code: int, reason: str = "Error", message: str = "") -> Status:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


RUNS: Status = {"running": {"startedAt": "2026-11-23T10:00:00Z"}}
READY = {"type": "Ready", "status": "True"}


def warning(reason: str, message: str, kind: str = "Pod", name: str = "web-1") -> EventObject:
    return EventObject(involved_object=ObjectRef(kind=kind, name=name), type="Warning", reason=reason, message=message)


def said(*pods: Pod, waited: float = 1.0, events: tuple[EventObject, ...] = (), **more: Any) -> str | None:
    """After so many seconds of all that may last."""
    evidence = Evidence(TARGET, waited, waited, waited, pods=pods, events=events, service=AWAITED, **more)
    return str(found) if (found := diagnose(evidence)) else None


def of_container(state: Status, **more: Any) -> str | None:
    return said(pod(containerStatuses=[app(state, **more)]))


NOT_FOUND = (
    'failed to pull and unpack image "registry.example/app:1": failed to resolve reference'
    ' "registry.example/app:1": registry.example/app:1: not found'
)
PULL = "ImagePullBackOff: image registry.example/app:1 of container app of pod web-1 cannot be pulled: "


@pytest.mark.parametrize(
    "state",
    [
        waits("ErrImagePull", f"rpc error: code = NotFound desc = {NOT_FOUND}"),
        waits(
            "ImagePullBackOff",
            'Back-off pulling image "registry.example/app:1": ErrImagePull: '
            f"rpc error: code = NotFound desc = {NOT_FOUND}",
        ),
    ],
)
def test_diagnose_pull_error_has_registry_message(state: Status) -> None:
    assert of_container(state) == PULL + NOT_FOUND


def test_diagnose_pull_error_of_older_kubelet_uses_event() -> None:
    waiting = app(waits("ImagePullBackOff", 'Back-off pulling image "registry.example/app:1"'))
    failed = warning("Failed", 'Failed to pull image "registry.example/app:1": rpc error: code = Unknown desc = denied')
    events = (warning("Failed", "Error: ErrImagePull"), failed)
    assert said(pod(containerStatuses=[waiting]), events=events) == f"{PULL}denied"
    assert said(pod(containerStatuses=[waiting])) == f"{PULL}no reason given"


def test_diagnose_crash_loop_has_exit_code_and_restarts() -> None:
    back_off = waits("CrashLoopBackOff", "back-off 20s restarting failed container=app pod=web-1_shop(x)")
    expected = "CrashLoopBackOff: container app of pod web-1 ended with exit code 3, restarted twice or more"
    looping = of_container(back_off, restartCount=2, lastState=ended(3))
    assert looping == expected.replace("twice or more", "2 times")
    running = of_container(RUNS, restartCount=2, lastState=ended(3))
    assert running == looping, "between two crashes it says the same"
    assert of_container(ended(3), restartCount=2) == looping


def test_diagnose_first_crash_has_termination_message() -> None:
    state = ended(1, "Error", "cannot reach\n  the database")
    assert (
        of_container(state) == "Crashed: container app of pod web-1 ended with exit code 1: cannot reach the database"
    )


def test_diagnose_repeated_success_is_a_crash_loop() -> None:
    state = waits("CrashLoopBackOff", "back-off")
    said = of_container(state, restartCount=1, lastState=ended(0, "Completed"))
    assert said == "CrashLoopBackOff: container app of pod web-1 ended with exit code 0 (Completed), restarted once"


def test_diagnose_out_of_memory() -> None:
    for state in (ended(137, "OOMKilled"), waits("CrashLoopBackOff")):
        said = of_container(state, restartCount=1, lastState=ended(137, "OOMKilled"))
        assert said == (
            "OOMKilled: container app of pod web-1 needs more memory than its limit (exit code 137), restarted once"
        )


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("CreateContainerConfigError", 'secret "db" not found'),
        ("CreateContainerConfigError", 'configmap "web" not found'),
        ("CreateContainerError", 'failed to create containerd task: exec: "serve": executable file not found in $PATH'),
        ("InvalidImageName", 'Failed to apply default image tag "a b": invalid reference format'),
        ("ErrImageNeverPull", "Container image is not present with pull policy of Never"),
    ],
)
def test_diagnose_container_creation_error(reason: str, message: str) -> None:
    assert of_container(waits(reason, message)) == f"{reason}: container app of pod web-1: {message}"


@pytest.mark.parametrize("state", [waits("ContainerCreating"), waits("PodInitializing"), RUNS, {}])
def test_diagnose_normal_start_is_none(state: Status) -> None:
    assert of_container(state) is None


def test_diagnose_unschedulable_pod() -> None:
    message = "0/3 nodes are available: 3 Insufficient memory. preemption: not helpful."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    assert said(pod(conditions=[condition])) == f"Unschedulable: pod web-1 cannot be scheduled: {message}"


def test_diagnose_pod_without_scheduler() -> None:
    forgotten = pod(node="")
    assert said(forgotten, waited=9) is None
    words = "NotScheduled: pod web-1 has no node yet, and scheduler volcano reports no reason: is it running?"
    assert said(forgotten, waited=11) == words
    assert said(forgotten, waited=60) == words
    assert said(pod(), waited=11) is None


REFUSED = 'pods "web-5d4f-x7k2p" is forbidden: exceeded quota: small, requested: pods=1, used: pods=4, limited: pods=4'


def test_diagnose_quota_omits_generated_pod_names() -> None:
    expected = f"QuotaExceeded: pods of {TARGET} cannot be created: {REFUSED.partition('forbidden: ')[2]}"
    failure = Condition("ReplicaFailure", "True", "FailedCreate", REFUSED)
    assert said(conditions=(failure,)) == expected
    of_set = f"create Pod web-0 in StatefulSet web failed error: {REFUSED}"
    for message, kind, name in (
        (of_set, "StatefulSet", "web"),
        (f"Error creating: {REFUSED}", "ReplicaSet", "web-5d4f"),
    ):
        assert said(events=(warning("FailedCreate", message, kind, name),)) == expected
    assert said(conditions=(Condition("ReplicaFailure", "False"),)) is None


def test_diagnose_resolved_rejection_is_none() -> None:
    events = (warning("FailedCreate", f"Error creating: {REFUSED}", "ReplicaSet", "web-5d4f"),)
    assert said(pod(), events=events, desired=1) is None
    assert "QuotaExceeded" in (said(pod(), events=events, desired=2) or "")
    assert "QuotaExceeded" in (said(pod(), events=events) or "")


def test_diagnose_rejected_pods() -> None:
    message = 'pods "web-x" is forbidden: error looking up service account shop/web: serviceaccount "web" not found'
    failure = Condition("ReplicaFailure", "True", "FailedCreate", message)
    assert said(conditions=(failure,)) == (
        f"FailedCreate: pods of {TARGET} cannot be created:"
        ' error looking up service account shop/web: serviceaccount "web" not found'
    )


@pytest.mark.parametrize("reason", ["FailedMount", "FailedAttachVolume"])
def test_diagnose_mount_error_until_a_container_runs(reason: str) -> None:
    event = warning(reason, 'MountVolume.SetUp failed for volume "tls" : secret "tls" not found')
    creating = pod(containerStatuses=[app(waits("ContainerCreating"))])
    words = f'{reason}: pod web-1: MountVolume.SetUp failed for volume "tls" : secret "tls" not found'
    assert said(creating, events=(event,)) == words
    assert said(pod(phase="Running", containerStatuses=[app(RUNS)]), events=(event,)) is None
    assert said(pod("web-2", containerStatuses=[app(waits("ContainerCreating"))]), events=(event,)) is None
    passing = warning(reason, "failed to sync configmap cache: timed out waiting for the condition")
    assert said(creating, events=(passing,)) is None


def test_diagnose_failing_probe_after_a_while() -> None:
    event = warning("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
    starting = pod(phase="Running", containerStatuses=[app(RUNS)])
    assert said(starting, events=(event,), waited=9) is None
    assert said(starting, events=(event,), waited=11) == (
        "Unhealthy: pod web-1 is running, but not ready: Readiness probe failed: HTTP probe failed with statuscode: 503"
    )


@pytest.mark.parametrize(
    ("container", "spec", "why"),
    [
        (
            {"readinessProbe": {"exec": {"command": ["ready"]}, "periodSeconds": 60}},
            {},
            "the readiness probe of container app runs a command, every 60 s",
        ),
        (
            {"startupProbe": {"tcpSocket": {"port": 1, "host": "db"}}},
            {},
            "the startup probe of container app is for the kubelet only, every 10 s",
        ),
        ({}, {"hostNetwork": True}, "the pod uses the network of its node"),
    ],
    ids=["command", "another host", "host network"],
)
def test_diagnose_probe_of_kubernetes_is_named(container: Status, spec: Status, why: str) -> None:
    spec = {"containers": [{"name": "app", **container}], **spec}
    running: Status = {"phase": "Running", "containerStatuses": [app(RUNS, started=False)]}
    starting = pod(spec=spec, **running)
    assert said(starting, waited=9) is None
    because = f"only Kubernetes decides, because {why}"
    assert said(starting, waited=11) == f"NotReady: pod web-1 is running, but not ready; {because}"
    event = warning("Unhealthy", "Readiness probe failed: no")
    failed = "Unhealthy: pod web-1 is running, but not ready: Readiness probe failed: no"
    assert said(starting, events=(event,), waited=11) == f"{failed}; {because}"
    usual: Status = {"containers": [{"name": "app", "readinessProbe": {"tcpSocket": {"port": 1}}}]}
    assert said(pod(spec=usual, **running), waited=11) is None


def test_diagnose_start_is_timed_from_the_running_pod() -> None:
    event = warning("Unhealthy", "Readiness probe failed: connection refused")
    starting = pod(phase="Running", containerStatuses=[app(RUNS)])
    assert diagnose(Evidence(TARGET, 100, running_seconds=9, pods=[starting], events=[event])) is None
    ready = pod(phase="Running", conditions=[READY], containerStatuses=[app(RUNS, ready=True)])
    assert diagnose(Evidence(TARGET, 100, 100, 1, pods=[ready], service=AWAITED)) is None


def test_diagnose_silent_pod_after_a_while() -> None:
    unready = {"type": "Ready", "status": "False", "message": "containers with unready status: [app]"}
    starting = pod(phase="Running", conditions=[unready], containerStatuses=[app(RUNS)])
    assert said(starting, waited=29) is None
    assert said(starting, waited=31) == (
        "NotReady: pod web-1 is running, but not ready: containers with unready status: [app]"
    )
    creating = pod(containerStatuses=[app(waits("ContainerCreating"))])
    assert said(creating, waited=29) is None
    assert said(creating, waited=31) == "ContainerCreating: pod web-1 has no container yet"


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], "gate target.example/web, which no controller has set"),
        (
            [{"type": "target.example/web", "status": "False", "reason": "Bad", "message": "target is unhealthy"}],
            "gate target.example/web, which is False: target is unhealthy",
        ),
    ],
    ids=["never set", "false"],
)
def test_diagnose_readiness_gate_is_named(conditions: list[dict[str, str]], expected: str) -> None:
    ready = {"type": "ContainersReady", "status": "True"}
    unready = {"type": "Ready", "status": "False", "message": "corresponding condition does not exist"}
    gated = pod(
        gates=("target.example/web",),
        phase="Running",
        conditions=[ready, unready, *conditions],
        containerStatuses=[app(RUNS, ready=True)],
    )
    assert said(gated, waited=4) is None
    assert said(gated, waited=6) == f"NotReady: pod web-1 is ready, except for its readiness {expected}"


def test_diagnose_init_container() -> None:
    rest: Status = {"containerStatuses": [app(waits("PodInitializing"))]}
    failing = pod(initContainerStatuses=[app(waits("CrashLoopBackOff"), restartCount=4, lastState=ended(1))], **rest)
    assert said(failing) == (
        "CrashLoopBackOff: init container app of pod web-1 ended with exit code 1, restarted 4 times"
    )
    running = pod(initContainerStatuses=[app(RUNS)], **rest)
    assert said(running, waited=5) is None
    assert said(running, waited=11) == "Initializing: init container app of pod web-1 is still running"
    assert said(pod(initContainerStatuses=[app(ended(0, "Completed"), ready=True)], **rest), waited=11) is None


def test_diagnose_sidecar_that_has_started_is_not_initializing() -> None:
    spec = {"initContainers": [{"name": "app", "restartPolicy": "Always"}]}
    main: Status = {"containerStatuses": [app(RUNS, name="main")]}
    starting = pod(spec=spec, initContainerStatuses=[app(RUNS, started=False)], **main)
    assert said(starting, waited=11) == "Initializing: init container app of pod web-1 is still running"
    event = warning("Unhealthy", "Readiness probe failed: no")
    started = pod(spec=spec, initContainerStatuses=[app(RUNS, started=True)], **main)
    assert said(started, waited=11, events=(event,)) == (
        "Unhealthy: pod web-1 is running, but not ready: Readiness probe failed: no"
    )


def test_diagnose_no_pods() -> None:
    assert said(waited=1) is None
    assert said(waited=6) == f"NoPods: the controller of {TARGET} has created no pod and reports no reason"
    assert said(pod(deleted=True), waited=1) is None
    assert said(pod("web-2", deleted=True), pod(deleted=True), waited=6) == (
        "NoPods: pod web-1 is still terminating on node node-1, "
        f"and the controller of {TARGET} has created no other pod"
    )
    paused = Condition(type="Progressing", status="Unknown", reason="DeploymentPaused")
    assert said(waited=6, conditions=[paused]) == (
        f"NoPods: {TARGET} is paused and has never created a pod; run kubectl rollout resume"
    )
    assert said(pod(), waited=6, conditions=[paused]) is None, "an earlier template has pods"


def test_diagnose_ready_pod_without_endpoint() -> None:
    ready = pod(phase="Running", conditions=[READY], containerStatuses=[app(RUNS, ready=True)])
    assert said(ready, waited=1) is None
    assert said(ready, waited=4, port="http") == (
        "NoEndpoint: pod web-1 is ready, but Service shop/web has no endpoint for port http; "
        "check that its selector matches the pod's labels, and its targetPort the pod's port"
    )


def test_diagnose_evicted_pod() -> None:
    gone = pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory.")
    assert said(gone) == "Evicted: pod web-1 has ended: The node was low on resource: memory."


def test_diagnose_reports_the_first_cause_of_all_pods() -> None:
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room"}
    pulling = [pod(name, containerStatuses=[app(waits("ErrImagePull", "gone"))]) for name in ("web-3", "web-2")]
    failure = Condition("ReplicaFailure", "True", "FailedCreate", REFUSED)
    found = said(pod("web-1", conditions=[unscheduled]), *pulling, conditions=(failure,), waited=100)
    assert (
        found == "ImagePullBackOff: image registry.example/app:1 of container app of pod web-2 cannot be pulled: gone"
    )


def test_diagnose_terminating_and_succeeded_pods_are_skipped() -> None:
    crashed: Status = {"containerStatuses": [app(waits("CrashLoopBackOff"), restartCount=2, lastState=ended(1))]}
    assert said(pod(deleted=True, **crashed), pod("web-2", phase="Succeeded")) is None


def test_diagnose_long_message_is_shortened() -> None:
    found = of_container(waits("CreateContainerError", "x" * 5000))
    assert found and len(found) < 400 and found.endswith("…")


def test_event_last_seen_is_that_of_its_series() -> None:
    body = {
        "eventTime": "2026-01-02T03:04:05.000000Z",
        "series": {"count": 3, "lastObservedTime": "2026-01-02T03:14:05.000000Z"},
    }
    event = decoder(EventObject)(json.dumps(body).encode())
    assert event.last_seen and event.first_seen
    assert ((event.last_seen - event.first_seen).total_seconds(), event.times) == (600, 3)
    older = {"firstTimestamp": "2026-01-02T03:04:05Z", "lastTimestamp": "2026-01-02T03:05:05Z", "count": 2}
    event = decoder(EventObject)(json.dumps(older).encode())
    assert event.last_seen and event.first_seen
    assert ((event.last_seen - event.first_seen).total_seconds(), event.times) == (60, 2)
