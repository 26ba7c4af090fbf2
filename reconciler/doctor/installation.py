"""Whether zenvoy is installed as this program knows it, and runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import msgspec

from reconciler.cluster_client.cluster import LEASE, Cluster
from reconciler.cluster_client.controllers import COMPONENT, Pod, controllers, lease
from reconciler.core.text import join_words, pluralize
from reconciler.doctor.findings import Examined, Finding, Level
from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.config.host_policy import BadPolicy, parse_policy
from reconciler.kubernetes.types.builtin import Lease
from reconciler.kubernetes.types.objects import api_path, path
from reconciler.kubernetes.types.scaled_service import (
    API_VERSION,
    GROUP,
    PLURAL,
    VERSION,
    ScaledServiceSpec,
    ScaledServiceStatus,
)

DEFINITIONS = "apiextensions.k8s.io/v1"
APPLY = "kubectl apply --server-side -f deploy/chart/crds (helm does not upgrade what is in a chart's crds folder)"
VERSION_LABEL = "app.kubernetes.io/version"
OVERDUE = 5
"""Times the Lease's duration: after it, its holder is gone, however far the clocks are apart."""


@dataclass
class Installation:
    """What was found of the controller."""

    ready: list[str] = field(default_factory=list)
    """Pods that are ready."""
    accounts: set[str] = field(default_factory=set)
    """Service accounts of the controller's pods."""
    namespaces: tuple[str, ...] = ()
    """Where it looks; empty: everywhere."""
    secrets: tuple[str, ...] = ()
    """Secrets in which it keeps certificates that it issues."""
    host_policy: str = ""
    """As its argument `--host-policy` has it; empty where there is none."""


async def served(cluster: Cluster) -> bool:
    """Whether ScaledServices can be asked for. Raises `ApiError`."""
    try:
        await cluster.api.get(api_path(API_VERSION))
    except ApiError as error:
        if error.status != 404:
            raise
        return False
    return True


async def check_definition(cluster: Cluster) -> Examined:
    """The CustomResourceDefinition is there, and knows every field that we use. Raises `ApiError`."""
    name = f"{PLURAL}.{GROUP}"
    try:
        found = json.loads(await cluster.api.get(path(DEFINITIONS, "customresourcedefinitions", name=name)))
    except ApiError as error:
        if error.status != 404:
            raise
        finding = Finding(f"CustomResourceDefinition {name}", "it does not exist", APPLY)
        return Examined("definition", "missing", (finding,))
    return Examined("definition", API_VERSION, tuple(_lacks(name, found)))


def _lacks(name: str, found: dict[str, Any]) -> Iterator[Finding]:
    where = f"CustomResourceDefinition {name}"
    wanted = next((one for one in found["spec"]["versions"] if one["name"] == VERSION and one["served"]), None)
    if wanted is None:
        yield Finding(where, f"it does not serve {VERSION}: it is not of this zenvoy ({_own()})", APPLY)
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
        yield Finding(where, f"it is older than this zenvoy ({_own()}): it lacks {', '.join(missing)}", APPLY)


async def check_controller(cluster: Cluster, installed: Installation) -> Examined:
    """Its pods are ready, and one of them leads. Raises `ApiError`."""
    system = cluster.where.system
    pods = await controllers(cluster)
    found = []
    if not pods:
        what = f"there is no pod with the label {COMPONENT}: nothing wakes"
        remedy = "helm install zenvoy deploy/chart -n zenvoy-system, or name its namespace with --system-namespace"
        found.append(Finding(f"namespace {system}", what, remedy))
    for pod in pods:
        name = pod.metadata["name"]
        installed.accounts.add(pod.spec.service_account_name)
        installed.namespaces = _watched(pod) or installed.namespaces
        installed.secrets = _argument(pod, "--tls-ca-secret=", "--tls-proxy-secret=") or installed.secrets
        installed.host_policy = "".join(_argument(pod, "--host-policy=")[:1]) or installed.host_policy
        found += _pod(f"pod {system}/{name}", pod)
        if pod.is_ready:
            installed.ready.append(name)
    if pods:
        found += _policy(installed.host_policy)
    held = await lease(cluster)
    found += _lease(f"Lease {system}/{LEASE}", held, {pod.metadata["name"] for pod in pods})
    leader = (held and held.spec.holder_identity) or "nobody"
    said = f"{len(installed.ready)} of {pluralize(len(pods), 'pod')} ready, {leader} leads"
    return Examined("controller", said, tuple(found))


def _pod(where: str, pod: Pod) -> Iterator[Finding]:
    if not pod.is_ready:
        yield Finding(where, f"it is not ready: {pod.waits_for}", "kubectl describe it")
    theirs = pod.metadata.get("labels", {}).get(VERSION_LABEL)
    if theirs and theirs != _own():
        what = f"it is zenvoy {theirs}, and this program is {_own()}"
        yield Finding(where, what, "use programs of one version", Level.NOTE)


def _lease(where: str, held: Lease | None, pods: set[str]) -> Iterator[Finding]:
    remedy = "docs/runbooks/NoLeader.md"
    if held is None or not held.spec.holder_identity:
        yield Finding(where, "nobody leads: nothing is put to sleep, and no status is written", remedy)
        return
    if held.spec.holder_identity not in pods:
        what = f"its holder {held.spec.holder_identity} is no pod of the controller"
        yield Finding(where, what, f"wait until another takes over; if none does, {remedy}")
    renewed, duration = held.spec.renew_time, held.spec.lease_duration_seconds or 15
    if renewed is None:
        return
    age = (datetime.now(UTC) - datetime.fromisoformat(renewed)).total_seconds()
    if age > OVERDUE * duration:
        yield Finding(where, f"it was renewed {age:.0f} s ago, and lasts {duration} s: nobody leads", remedy)


def _watched(pod: Pod) -> tuple[str, ...]:
    return tuple(name for value in _argument(pod, "--namespaces=") for name in value.split(","))


def _argument(pod: Pod, *prefixes: str) -> tuple[str, ...]:
    """Return the values of those arguments of its containers, in order."""
    given = [argument for container in pod.spec.containers for argument in container.get("args", [])]
    return tuple(one.removeprefix(prefix) for prefix in prefixes for one in given if one.startswith(prefix))


def _policy(text: str) -> Iterator[Finding]:
    """Note the kinds of claims that no rule decides."""
    where, example = "chart value hostPolicy", "docs/how-to/http.md, Hosts and namespaces"
    try:
        ungoverned = parse_policy(text or "[]").ungoverned
    except BadPolicy as error:
        yield Finding(where, str(error).replace("\n", "; "), example)
        return
    if ungoverned:
        what = f"no rule decides which namespace may claim {join_words(ungoverned, 'or')}: the oldest claim wins"
        remedy = f"if namespaces do not trust one another, add rules to it ({example})"
        yield Finding(where, what, remedy, Level.NOTE)


def _own() -> str:
    return version("zenvoy")
