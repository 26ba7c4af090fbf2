"""Checks of the installation: the CustomResourceDefinition, the controller's pods, and the leader."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import msgspec

from reconciler.cluster_client.cluster import LEASE, ClusterClient
from reconciler.cluster_client.controllers import CONTROLLER_LABEL, LEASE_API, InstalledPod, controller_pods, read_lease
from reconciler.core.text import join_words, pluralize
from reconciler.doctor.findings import CheckResult, Finding, FindingCode, Severity
from reconciler.kubernetes.client.errors import FORBIDDEN, ignoring
from reconciler.kubernetes.config.host_policy import BadPolicy, parse_policy
from reconciler.kubernetes.types.builtin import Lease
from reconciler.kubernetes.types.objects import Object, decoder, name_selector, path
from reconciler.kubernetes.types.scaled_service import (
    API_VERSION,
    GROUP,
    PLURAL,
    VERSION,
    ScaledServiceSpec,
    ScaledServiceStatus,
)

APPLY = "kubectl apply --server-side -f deploy/chart/crds (helm does not upgrade what is in a chart's crds folder)"
_OF_THIS_NAME = {"fieldSelector": name_selector("metadata.name", LEASE)}
VERSION_LABEL = "app.kubernetes.io/version"
NO_LEADER_REMEDY = "docs/runbooks/NoLeader.md"
OVERDUE = 5
"""Factor of the Lease's duration after which its holder is gone, even if the clocks differ."""


async def check_definition(cluster: ClusterClient) -> CheckResult:
    """Check that the CustomResourceDefinition exists and has every field that is used. Raises `ApiError`."""
    name = f"{PLURAL}.{GROUP}"
    found = await cluster.api.find(path("apiextensions.k8s.io/v1", "customresourcedefinitions", name=name))
    place = f"CustomResourceDefinition {name}"
    if found is None:
        finding = Finding(FindingCode.DEFINITION_MISSING, place, "it does not exist", APPLY)
        return CheckResult("definition", "missing", (finding,))
    return CheckResult("definition", API_VERSION, tuple(_missing_fields(place, json.loads(found))))


def _missing_fields(place: str, found: dict[str, Any]) -> Iterator[Finding]:
    outdated = FindingCode.DEFINITION_OUTDATED
    wanted = next((one for one in found["spec"]["versions"] if one["name"] == VERSION and one["served"]), None)
    if wanted is None:
        yield Finding(outdated, place, f"it does not serve {VERSION}, which zenvoy {version('zenvoy')} uses", APPLY)
        return
    properties = wanted["schema"]["openAPIV3Schema"].get("properties", {})
    missing = []
    for part, struct in (("spec", ScaledServiceSpec), ("status", ScaledServiceStatus)):
        known = properties.get(part, {})
        if "x-kubernetes-preserve-unknown-fields" in known:
            continue
        used = {one.encode_name for one in msgspec.structs.fields(struct)}
        missing += [f"{part}.{name}" for name in sorted(used - known.get("properties", {}).keys())]
    if missing:
        message = f"it is older than this program (zenvoy {version('zenvoy')}): it lacks {', '.join(missing)}"
        yield Finding(outdated, place, message, APPLY)


async def check_controller(cluster: ClusterClient, pods: list[InstalledPod]) -> CheckResult:
    """Check that the controller's pods are ready and one of them leads; fill in `pods`. Raises `ApiError`."""
    system = cluster.options.system
    pods += await controller_pods(cluster)
    found = [finding for pod in pods for finding in _check_pod(system, pod)]
    if pods:
        found += _check_policy("".join(latest_arguments(pods, "--host-policy=")[:1]))
    else:
        message = f"there is no pod with the label {CONTROLLER_LABEL}: services cannot wake"
        remedy = "helm install zenvoy deploy/chart -n zenvoy-system, or name its namespace with --system-namespace"
        found.append(Finding(FindingCode.CONTROLLER_MISSING, f"namespace {system}", message, remedy))
    lease = await read_lease(cluster)
    found += await _check_lease(cluster, lease, {pod.name for pod in pods})
    found += await _other_installations(cluster, set(watched_namespaces(pods)))
    leader = lease and lease.spec.holder_identity
    role = f"{leader} leads" if leader else "no leader"
    ready = sum(pod.is_ready for pod in pods)
    return CheckResult("controller", f"{ready} of {pluralize(len(pods), 'pod')} ready, {role}", tuple(found))


def _check_pod(system: str, pod: InstalledPod) -> Iterator[Finding]:
    place = f"pod {system}/{pod.name}"
    if not pod.is_ready:
        message, remedy = f"it is not ready: {pod.waiting_reason}", f"kubectl describe pod {pod.name} -n {system}"
        yield Finding(FindingCode.CONTROLLER_NOT_READY, place, message, remedy)
    theirs = pod.metadata.get("labels", {}).get(VERSION_LABEL)
    if theirs and theirs != version("zenvoy"):
        message = f"it runs zenvoy {theirs}, and this program is {version('zenvoy')}"
        remedy = "install this version in both places"
        yield Finding(FindingCode.VERSIONS_DIFFER, place, message, remedy, Severity.NOTE)


async def _check_lease(cluster: ClusterClient, lease: Lease | None, pods: set[str]) -> list[Finding]:
    place = f"Lease {cluster.options.system}/{LEASE}"
    if lease is None or not lease.spec.holder_identity:
        message = "there is no leader: no service sleeps, and no status is written"
        return [Finding(FindingCode.NO_LEADER, place, message, NO_LEADER_REMEDY)]
    found = []
    if lease.spec.holder_identity not in pods:
        message = f"its holder {lease.spec.holder_identity} is not a pod of the controller"
        wait = f"wait until another pod becomes the leader; if none does, {NO_LEADER_REMEDY}"
        found.append(Finding(FindingCode.LEADER_UNKNOWN, place, message, wait))
    if overdue := await _overdue(cluster, lease):
        found.append(Finding(FindingCode.LEASE_EXPIRED, place, overdue, NO_LEADER_REMEDY))
    return found


async def _overdue(cluster: ClusterClient, lease: Lease) -> str | None:
    """Return a message if the Lease is not renewed. Clocks may differ: what counts is that its time changes."""
    renewed, duration = lease.spec.renew_time, lease.spec.lease_duration_seconds or 15
    if renewed is None:
        return None
    age = (datetime.now(UTC) - datetime.fromisoformat(renewed)).total_seconds()
    if age <= OVERDUE * duration:
        return None
    last = time.monotonic() + duration
    while time.monotonic() < last:
        await asyncio.sleep(min(1.0, duration))
        if (now := await read_lease(cluster)) is None or now.spec.renew_time != renewed:
            return None
    return f"it was renewed {age:.0f} s ago and is valid for {duration} s: there is no leader"


async def _other_installations(cluster: ClusterClient, ours: set[str]) -> list[Finding]:
    """Find other installations that look after the same namespaces; none if you may not look for them."""
    found = []
    with ignoring(FORBIDDEN):
        leases: list[Lease] = await cluster.list_objects(path(LEASE_API, "leases"), decoder(Lease), _OF_THIS_NAME)
        for system in (lease.metadata.namespace for lease in leases if lease.spec.holder_identity):
            if system == cluster.options.system or await _is_terminating(cluster, system):
                continue
            pods = await controller_pods(ClusterClient(cluster.api, replace(cluster.options, system=system)))
            running = [pod for pod in pods if pod.is_ready]
            theirs = {name for pod in running for name in watched_namespaces([pod])}
            if running and (not theirs or not ours or theirs & ours):
                message = f"zenvoy runs there too, and puts the same services to sleep as in {cluster.options.system}"
                remedy = "uninstall one of the two, or give each its own `namespaces` in the chart's values"
                found.append(Finding(FindingCode.INSTALLED_TWICE, f"namespace {system}", message, remedy))
    return found


async def _is_terminating(cluster: ClusterClient, namespace: str) -> bool:
    found = await cluster.api.find(path("v1", "namespaces", name=namespace))
    return found is None or decoder(Object)(found).metadata.deletion_timestamp is not None


def watched_namespaces(pods: Sequence[InstalledPod]) -> list[str]:
    """Return the namespaces that the controller watches; empty: all."""
    return [name for value in latest_arguments(pods, "--namespaces=") for name in value.split(",")]


def latest_arguments(pods: Sequence[InstalledPod], *prefixes: str) -> list[str]:
    """Return the values of the arguments with these prefixes, of the last pod that has one."""
    for pod in reversed(pods):
        given = [argument for container in pod.spec.containers for argument in container.get("args", [])]
        if found := [one.removeprefix(prefix) for prefix in prefixes for one in given if one.startswith(prefix)]:
            return found
    return []


def _check_policy(text: str) -> Iterator[Finding]:
    """Find an invalid policy, or note the kinds of claims that it has no rule for."""
    place, example = "chart value hostPolicy", "docs/how-to/http.md, Hosts and namespaces"
    try:
        ungoverned = parse_policy(text or "[]").ungoverned
    except BadPolicy as error:
        yield Finding(FindingCode.HOST_POLICY_INVALID, place, str(error).replace("\n", "; "), example)
        return
    if ungoverned:
        message = f"no rule decides which namespace may claim {join_words(ungoverned, 'or')}: the oldest claim wins"
        remedy = f"if namespaces do not trust one another, add rules ({example})"
        yield Finding(FindingCode.HOST_POLICY_INCOMPLETE, place, message, remedy, Severity.NOTE)
