"""Checks for other programs that write the replicas of a scale target, and conflict with zenvoy over zero.

- A HorizontalPodAutoscaler with minReplicas ≥ 1 does not conflict: at zero replicas it stops ("implicit maintenance
  mode"). Once there are some, it raises them to its minimum:
  https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/
- KEDA conflicts: below `minReplicaCount` it scales up, and with a minimum of zero it scales down what zenvoy has woken
  while its own triggers are inactive (its `scale_scaledobjects.go`).
- GitOps conflicts if Git contains `spec.replicas`. A field belongs to its last writer, so `managedFields` shows the
  other program only while the target has not been put to sleep since.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from reconciler.cluster_client.cluster import ClusterClient
from reconciler.core.text import pluralize
from reconciler.doctor.findings import CheckResult, Finding, FindingCode, Severity
from reconciler.kubernetes.client.discovery import Discovery, NoSuchKind
from reconciler.kubernetes.client.errors import FORBIDDEN, ApiError
from reconciler.kubernetes.config.resolve import target_of
from reconciler.kubernetes.types.objects import ObjectMeta, OwnerReference, Target, decoder, path
from reconciler.kubernetes.types.scaled_service import ScaledService

PAUSED = ("autoscaling.keda.sh/paused", "autoscaling.keda.sh/paused-replicas")
REPLACE_KEDA = (
    "scale from 1 to n with a HorizontalPodAutoscaler instead, which does not act at zero; "
    'or pause it: kubectl annotate scaledobject {name} -n {namespace} autoscaling.keda.sh/paused="true"'
)
ARGO = (
    "in the Application: ignoreDifferences: [{{group: {group}, kind: {kind}, jsonPointers: [/spec/replicas]}}] and "
    "syncPolicy.syncOptions: [RespectIgnoreDifferences=true]; or remove spec.replicas from Git"
)
FLUX = "remove spec.replicas from the manifests that Flux applies (docs/how-to/argocd-and-flux.md)"
CHART = "remove spec.replicas from the chart's template, or make it conditional, as charts do for an HPA"
HELM_CONTROLLER = (
    f"{CHART}; with drift detection, also set driftDetection.ignore: [{{paths: [/spec/replicas]}}] "
    "(docs/how-to/argocd-and-flux.md)"
)
MANIFEST = "remove spec.replicas from the manifest"
INTERACTIVE = "kubectl"
"""Prefix of the field managers that apply only when a user runs them."""
REPLICAS = "f:replicas"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class ScalerTarget(msgspec.Struct, rename="camel"):
    """The target of an autoscaler."""

    name: str
    kind: str = "Deployment"
    api_version: str = "apps/v1"


class TargetMeta(msgspec.Struct, rename="camel"):
    """`metadata`, with the managers of its fields."""

    name: str
    namespace: str = ""
    annotations: dict[str, str] = {}
    managed_fields: list[ManagedFields] = []
    owner_references: list[OwnerReference] = []


class FieldSet(msgspec.Struct):
    """The fields of one manager: https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management"""

    spec: dict[str, msgspec.Raw] = msgspec.field(default={}, name="f:spec")


class ManagedFields(msgspec.Struct, rename="camel"):
    """An entry of `managedFields`."""

    manager: str = ""
    operation: str = ""
    subresource: str = ""
    fields: FieldSet = msgspec.field(default_factory=FieldSet, name="fieldsV1")


class ScalerSpec(msgspec.Struct, rename="camel"):
    """The target and the minimum of a HorizontalPodAutoscaler (`min_replicas`), or of a ScaledObject of KEDA."""

    scale_target_ref: ScalerTarget
    min_replicas: int = 1
    min_replica_count: int = 0
    idle_replica_count: int | None = None


class Scaler(msgspec.Struct):
    """A HorizontalPodAutoscaler, or a ScaledObject of KEDA."""

    metadata: ObjectMeta
    spec: ScalerSpec


class ClaimRetention(msgspec.Struct, rename="camel"):
    """`persistentVolumeClaimRetentionPolicy` of a StatefulSet."""

    when_scaled: str = "Retain"


class ManagedSpec(msgspec.Struct, rename="camel"):
    """The part of a target's spec that concerns its volumes."""

    persistent_volume_claim_retention_policy: ClaimRetention | None = None


class ManagedTarget(msgspec.Struct):
    """A scale target."""

    metadata: TargetMeta
    spec: ManagedSpec = msgspec.field(default_factory=ManagedSpec)


_Part = TypeVar("_Part")


async def check_conflicts(cluster: ClusterClient, items: list[ScaledService]) -> CheckResult:
    """Find the programs that write the replicas of our targets. Raises `ApiError`."""
    where = path("autoscaling/v2", "horizontalpodautoscalers", cluster.namespace)
    autoscalers = await cluster.list_objects(where, decoder(Scaler))
    where = path("keda.sh/v1alpha1", "scaledobjects", cluster.namespace)
    scaled_objects = await cluster.list_served(where, decoder(Scaler))
    targets, unreadable = await read_targets(cluster, items, ManagedTarget)
    findings = [
        *check_autoscalers(items, autoscalers),
        *check_scaled_objects(items, scaled_objects),
        *check_field_managers(targets),
        *check_targets(targets),
        *unreadable,
    ]
    numbers = {"HPA": len(autoscalers), "ScaledObject": len(scaled_objects), "target": len(targets)}
    summary = ", ".join(pluralize(number, thing) for thing, number in numbers.items())
    return CheckResult("conflicts", summary, tuple(findings))


def check_autoscalers(items: Iterable[ScaledService], autoscalers: Iterable[Scaler]) -> Iterator[Finding]:
    """Find autoscalers that act at zero replicas (the default allows this from Kubernetes 1.37 on); note the others."""
    for one, services in _on_targets(items, autoscalers):
        place, minimum = f"HorizontalPodAutoscaler {one.metadata.key}", one.spec.min_replicas
        if minimum == 0:
            message = f"its minReplicas is 0: it scales the target of {services} from and to zero by its own metrics"
            remedy = "set minReplicas: 1; the autoscaler is then inactive at zero replicas"
            yield Finding(FindingCode.AUTOSCALER_SCALES_TO_ZERO, place, message, remedy)
        else:
            message = (
                f"it is inactive while the target of {services} sleeps; after a wake it raises it to {minimum} or more"
            )
            remedy = "none if you want that many replicas after each wake; otherwise lower minReplicas"
            yield Finding(FindingCode.AUTOSCALER_RAISES_REPLICAS, place, message, remedy, Severity.NOTE)


def check_scaled_objects(items: Iterable[ScaledService], scaled_objects: Iterable[Scaler]) -> Iterator[Finding]:
    """Find the ScaledObjects of KEDA on our targets that are not paused."""
    for one, services in _on_targets(items, scaled_objects):
        meta, minimum, idle = one.metadata, one.spec.min_replica_count, one.spec.idle_replica_count
        if any(meta.annotations.get(name, "false") != "false" for name in PAUSED):
            continue
        if minimum >= 1 and idle != 0:
            code = FindingCode.KEDA_RAISES_REPLICAS
            message = f"its minReplicaCount is {minimum}: it starts the target of {services} again when zenvoy stops it"
        else:
            code = FindingCode.KEDA_SCALES_TO_ZERO
            message = (
                f"while its triggers are inactive it scales the target of {services} to zero, even after zenvoy woke it"
            )
        remedy = REPLACE_KEDA.format(name=meta.name, namespace=meta.namespace)
        yield Finding(code, f"ScaledObject {meta.key}", message, remedy)


def check_field_managers(targets: Mapping[Target, ManagedTarget]) -> Iterator[Finding]:
    """Find other programs that apply `spec.replicas` of a target."""
    for target, one in targets.items():
        for message, remedy, severity in _other_managers(target, one.metadata):
            yield Finding(FindingCode.REPLICAS_APPLIED, str(target), message, remedy, severity)


def check_targets(targets: Mapping[Target, ManagedTarget]) -> Iterator[Finding]:
    """Find targets that lose their volumes at each sleep, and targets whose replicas belong to another object."""
    for target, one in targets.items():
        policy = one.spec.persistent_volume_claim_retention_policy
        if policy and policy.when_scaled == "Delete":
            message = "its persistentVolumeClaimRetentionPolicy.whenScaled is Delete: each sleep deletes its volumes"
            remedy = "set whenScaled: Retain, or remove the ScaledService"
            yield Finding(FindingCode.VOLUMES_DELETED, str(target), message, remedy)
        for owner in one.metadata.owner_references:
            if owner.controller:
                yield _controlled(target, owner)


def _controlled(target: Target, owner: OwnerReference) -> Finding:
    named = f"{owner.kind} {target.namespace}/{owner.name}"
    if (target.kind, owner.kind) == ("ReplicaSet", "Deployment"):
        message = f"{named} sets its replicas: it starts it again when zenvoy stops it"
        remedy = (
            f"delete the ScaledService, and create it with scaleTargetRef: {{kind: Deployment, name: {owner.name}}}"
        )
        return Finding(FindingCode.REPLICAS_CONTROLLED, str(target), message, remedy)
    message = f"{named} controls it: if it sets the replicas, it starts it again when zenvoy stops it"
    remedy = f"none if the controller leaves the replicas alone; otherwise make {owner.kind} {owner.name} the target"
    return Finding(FindingCode.REPLICAS_CONTROLLED, str(target), message, remedy, Severity.NOTE)


def _other_managers(target: Target, meta: TargetMeta) -> Iterator[tuple[str, str, Severity]]:
    """Yield a message, a remedy and a severity for each program that applies the replicas."""
    entries = [entry for entry in meta.managed_fields if REPLICAS in entry.fields.spec and not entry.subresource]
    if manager := _argo_manager(meta, entries):
        group = _group(target.api_version) or '""'
        message = f"Argo CD ({manager}) applies spec.replicas: each sync starts it again while it sleeps"
        yield message, ARGO.format(group=group, kind=target.kind), Severity.PROBLEM
        return
    for entry in entries:
        if entry.manager == "kustomize-controller":
            message = "Flux (kustomize-controller) applies spec.replicas: each reconciliation starts it again"
            yield message, FLUX, Severity.PROBLEM
        elif entry.manager == "helm-controller":
            message = "Flux (helm-controller) sets spec.replicas: each upgrade or corrected drift starts it again"
            yield message, HELM_CONTROLLER, Severity.PROBLEM
        elif entry.manager == "helm":
            message = "helm manages spec.replicas: if its chart sets them, each upgrade starts it again"
            yield message, CHART, Severity.NOTE
        elif entry.operation == "Apply":
            severity = Severity.NOTE if entry.manager.startswith(INTERACTIVE) else Severity.PROBLEM
            yield f"{entry.manager} applies spec.replicas: each apply starts it again", MANIFEST, severity
    if "replicas" in last_applied_spec(meta):
        message = "its manifest (last-applied-configuration) contains spec.replicas: `kubectl apply` starts it again"
        yield message, MANIFEST, Severity.NOTE


def _argo_manager(meta: TargetMeta, entries: Iterable[ManagedFields]) -> str | None:
    """Return Argo CD's manager name: by server-side apply, or by the annotation of its client-side apply."""
    for entry in entries:
        if entry.manager.startswith("argocd") and entry.operation == "Apply":
            return entry.manager
    managers = [entry.manager for entry in meta.managed_fields if entry.manager.startswith("argocd")]
    return managers[0] if managers and "replicas" in last_applied_spec(meta) else None


def _on_targets(items: Iterable[ScaledService], scalers: Iterable[Scaler]) -> Iterator[tuple[Scaler, str]]:
    """Yield the scalers of our targets, each with the names of the services."""
    ours: dict[tuple[str, str, str, str], list[str]] = {}
    for item in items:
        target = target_of(item)
        identity = (_group(target.api_version), target.kind, target.namespace, target.name)
        ours.setdefault(identity, []).append(item.metadata.key)
    for one in scalers:
        ref = one.spec.scale_target_ref
        if services := ours.get((_group(ref.api_version), ref.kind, one.metadata.namespace, ref.name)):
            yield one, ", ".join(services)


def _group(api_version: str) -> str:
    return api_version.rpartition("/")[0]


async def read_targets(
    cluster: ClusterClient, items: list[ScaledService], part: type[_Part]
) -> tuple[dict[Target, _Part], list[Finding]]:
    """Return a part of each target that exists, and a note for each kind that you may not list. Raises `ApiError`."""
    wanted = dict.fromkeys(map(target_of, items))
    discovery, notes = Discovery(cluster.api), []
    found: dict[Target, _Part] = {}
    for api_version, kind in sorted({(one.api_version, one.kind) for one in wanted}):
        try:
            resource = await discovery.find(api_version, kind)
            listed: list[Any] = await cluster.list_objects(resource.path(cluster.namespace), decoder(part))
        except (NoSuchKind, msgspec.DecodeError):
            continue  # the condition of the ScaledService reports it
        except ApiError as error:
            if error.status != FORBIDDEN:
                raise
            message = f"the managers of their replicas were not checked: {error.message}"
            remedy = "ask an administrator for the permission to list them"
            notes.append(Finding(FindingCode.NOT_PERMITTED, kind, message, remedy, Severity.NOTE))
            continue
        found |= {Target(api_version, kind, one.metadata.name, one.metadata.namespace): one for one in listed}
    return {target: found[target] for target in wanted if target in found}, notes


def last_applied_spec(meta: TargetMeta) -> dict[str, Any]:
    """Return the spec of the last client-side apply, from its annotation; empty without one."""
    try:
        spec = msgspec.json.decode(meta.annotations.get(LAST_APPLIED, "{}")).get("spec")
    except (msgspec.DecodeError, AttributeError):
        return {}
    return spec if isinstance(spec, dict) else {}
