"""Who else writes the replicas of a target, and fights over zero. Pure.

- A HorizontalPodAutoscaler with minReplicas ≥ 1 does not: at zero replicas it stops ("implicit maintenance mode"), and
  begins again once there are some, which it then raises to its minimum: https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/
- KEDA does: below `minReplicaCount` it scales up, and with a minimum of zero it scales down what zenvoy has woken, as
  long as its own triggers are silent (its `scale_scaledobjects.go`).
- GitOps does when what is in Git says `spec.replicas`. Who applied the field owns it until somebody else writes it, so
  that `managedFields` tells only while the target has not been put to sleep since.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from reconciler.cluster_client.cluster import Cluster
from reconciler.doctor.findings import Finding, Level
from reconciler.kubernetes.client.discovery import Discovery, NoSuchKind
from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.config.resolve import target_of
from reconciler.kubernetes.types.objects import decoder, path
from reconciler.kubernetes.types.scaled_service import ScaledService
from reconciler.kubernetes.types.target import Target

PAUSED = ("autoscaling.keda.sh/paused", "autoscaling.keda.sh/paused-replicas")
INSTEAD_OF_KEDA = (
    "scale 1→n by a HorizontalPodAutoscaler instead, which leaves zero alone; "
    'or pause it: kubectl annotate scaledobject {name} -n {namespace} autoscaling.keda.sh/paused="true"'
)
ARGO = (
    "in the Application: ignoreDifferences: [{{group: {group}, kind: {kind}, jsonPointers: [/spec/replicas]}}] and "
    "syncPolicy.syncOptions: [RespectIgnoreDifferences=true]; or take spec.replicas out of Git"
)
FLUX = "take spec.replicas out of what Flux applies (docs/how-to/argocd-and-flux.md)"
CHART = "take spec.replicas out of the chart's template, or guard it by a value, as charts do for an HPA"
HELM_CONTROLLER = (
    f"{CHART}; with drift detection on: driftDetection.ignore: [{{paths: [/spec/replicas]}}] "
    "(docs/how-to/argocd-and-flux.md)"
)
MANIFEST = "take spec.replicas out of the manifest"
OF_PEOPLE = "kubectl"
"""The beginning of field managers that apply when a person says so, and not by themselves again and again."""
REPLICAS = "f:replicas"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class Ref(msgspec.Struct, rename="camel"):
    """The target of an autoscaler."""

    name: str
    kind: str = "Deployment"
    api_version: str = "apps/v1"


class Meta(msgspec.Struct, rename="camel"):
    """`metadata`, with who owns which fields."""

    name: str
    namespace: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    managed_fields: list[Owned] = []


class Fields(msgspec.Struct):
    """https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management"""

    spec: dict[str, msgspec.Raw] = msgspec.field(default={}, name="f:spec")


class Owned(msgspec.Struct, rename="camel"):
    """An entry of `managedFields`."""

    manager: str = ""
    operation: str = ""
    subresource: str = ""
    fields: Fields = msgspec.field(default_factory=Fields, name="fieldsV1")


class AutoscalerSpec(msgspec.Struct, rename="camel"):
    scale_target_ref: Ref
    min_replicas: int = 1


class Autoscaler(msgspec.Struct):
    """A HorizontalPodAutoscaler."""

    metadata: Meta
    spec: AutoscalerSpec


class KedaSpec(msgspec.Struct, rename="camel"):
    scale_target_ref: Ref
    min_replica_count: int = 0
    idle_replica_count: int | None = None


class Keda(msgspec.Struct):
    """A ScaledObject of KEDA."""

    metadata: Meta
    spec: KedaSpec


class Scaled(msgspec.Struct):
    """A target."""

    metadata: Meta


_Scaler = TypeVar("_Scaler", Autoscaler, Keda)


def of_autoscalers(items: Iterable[ScaledService], autoscalers: Iterable[Autoscaler]) -> Iterator[Finding]:
    """Only with `minReplicas: 0` (feature gate HPAScaleToZero) is one active at zero replicas; others are noted."""
    for one, services in _on_targets(items, ((one, one.metadata, one.spec.scale_target_ref) for one in autoscalers)):
        where, least = f"HorizontalPodAutoscaler {_key(one.metadata)}", one.spec.min_replicas
        if least == 0:
            what = f"its minReplicas is 0: it scales the target of {services} from and to zero by its own metrics"
            yield Finding(where, what, "minReplicas: 1; at zero replicas it then leaves the target alone")
        else:
            what = f"it rests while the target of {services} sleeps, and raises it to {least} or more once it is awake"
            remedy = "nothing, if that many are wanted after each wake; lower minReplicas otherwise"
            yield Finding(where, what, remedy, Level.NOTE)


def of_keda(items: Iterable[ScaledService], scaled: Iterable[Keda]) -> Iterator[Finding]:
    """One that is paused does nothing."""
    for one, services in _on_targets(items, ((one, one.metadata, one.spec.scale_target_ref) for one in scaled)):
        meta, least, idle = one.metadata, one.spec.min_replica_count, one.spec.idle_replica_count
        if any(meta.annotations.get(name, "false") != "false" for name in PAUSED):
            continue
        if least >= 1 and idle != 0:
            what = (
                f"its minReplicaCount is {least}: it starts the target of {services} again when zenvoy put it to sleep"
            )
        else:
            what = (
                f"while its triggers are silent it scales the target of {services} to zero, also what zenvoy has woken"
            )
        remedy = INSTEAD_OF_KEDA.format(name=meta.name, namespace=meta.namespace)
        yield Finding(f"ScaledObject {_key(meta)}", what, remedy)


def of_owners(items: Iterable[ScaledService], targets: Mapping[Target, Scaled]) -> Iterator[Finding]:
    """Whoever applies `spec.replicas` from somewhere else."""
    for target in {target_of(item): None for item in items}:
        if one := targets.get(target):
            yield from _of_owner(target, one.metadata)


def _of_owner(target: Target, meta: Meta) -> Iterator[Finding]:
    group = target.api_version.rpartition("/")[0]
    owners = [owned for owned in meta.managed_fields if REPLICAS in owned.fields.spec and not owned.subresource]
    if manager := _by_argo(meta, owners):
        what = f"Argo CD ({manager}) applies spec.replicas: each sync starts it again while it sleeps"
        yield Finding(str(target), what, ARGO.format(group=group or '""', kind=target.kind))
        return
    for owned in owners:
        if owned.manager == "kustomize-controller":
            what = (
                "Flux (kustomize-controller) applies spec.replicas: each reconciliation starts it again while it sleeps"
            )
            yield Finding(str(target), what, FLUX)
        elif owned.manager == "helm-controller":
            what = "Flux (helm-controller) sets spec.replicas: each upgrade or corrected drift starts it again"
            yield Finding(str(target), what, HELM_CONTROLLER)
        elif owned.manager == "helm":
            what = "helm owns spec.replicas: if its chart sets them, each upgrade starts it again"
            yield Finding(str(target), what, CHART, Level.NOTE)
        elif owned.operation == "Apply":
            what = f"{owned.manager} applies spec.replicas: each time that it does, the target starts again"
            level = Level.NOTE if owned.manager.startswith(OF_PEOPLE) else Level.PROBLEM
            yield Finding(str(target), what, MANIFEST, level)
    if "replicas" in applied(meta):
        what = "its manifest (last-applied-configuration) says spec.replicas: `kubectl apply` starts it again"
        yield Finding(str(target), what, MANIFEST, Level.NOTE)


def _by_argo(meta: Meta, owners: Iterable[Owned]) -> str | None:
    """Argo's name as an owner: by server-side apply, or by the annotation that its client-side apply leaves."""
    for owned in owners:
        if owned.manager.startswith("argocd") and owned.operation == "Apply":
            return owned.manager
    managers = [owned.manager for owned in meta.managed_fields if owned.manager.startswith("argocd")]
    return managers[0] if managers and "replicas" in applied(meta) else None


def _on_targets(
    items: Iterable[ScaledService], found: Iterable[tuple[_Scaler, Meta, Ref]]
) -> Iterator[tuple[_Scaler, str]]:
    """Those that scale a target of ours, and of which services."""
    ours: dict[tuple[str, str, str, str], list[str]] = {}
    for item in items:
        target = target_of(item)
        ours.setdefault((_group(target.api_version), target.kind, target.namespace, target.name), []).append(
            item.metadata.key
        )
    for one, meta, ref in found:
        if services := ours.get((_group(ref.api_version), ref.kind, meta.namespace, ref.name)):
            yield one, ", ".join(services)


def _group(api_version: str) -> str:
    return api_version.rpartition("/")[0]


def _key(meta: Meta) -> str:
    return f"{meta.namespace}/{meta.name}"


async def autoscalers(cluster: Cluster) -> list[Autoscaler]:
    """Raises `ApiError`."""
    where = path("autoscaling/v2", "horizontalpodautoscalers", cluster.namespace)
    return await cluster.listed(where, decoder(Autoscaler))


async def keda(cluster: Cluster) -> list[Keda]:
    """None where KEDA is not installed. Raises `ApiError`."""
    try:
        return await cluster.listed(path("keda.sh/v1alpha1", "scaledobjects", cluster.namespace), decoder(Keda))
    except ApiError as error:
        if error.status != 404:
            raise
        return []


async def targets(cluster: Cluster, items: list[ScaledService]) -> tuple[dict[Target, Scaled], list[Finding]]:
    """Those that exist; and notes of kinds that whoever asks may not see. Raises `ApiError`."""
    wanted = {target_of(item) for item in items}
    discovery, notes = Discovery(cluster.api), []
    found: dict[Target, Scaled] = {}
    for api_version, kind in sorted({(one.api_version, one.kind) for one in wanted}):
        try:
            resource = await discovery.find(api_version, kind)
            listed: list[Scaled] = await cluster.listed(resource.path(cluster.namespace), decoder(Scaled))
        except (NoSuchKind, msgspec.DecodeError):
            continue  # which is told as the condition of whoever wants it
        except ApiError as error:
            if error.status != 403:
                raise
            remedy = "ask somebody who may see them"
            notes.append(
                Finding(kind, f"who owns their replicas was not looked at: {error.message}", remedy, Level.NOTE)
            )
            continue
        for one in listed:
            target = Target(api_version, kind, one.metadata.name, one.metadata.namespace)
            if target in wanted:
                found[target] = one
    return found, notes


def applied(meta: Meta) -> dict[str, Any]:
    """The spec as it was last applied by a client, from its annotation; empty when by none."""
    try:
        spec = msgspec.json.decode(meta.annotations.get(LAST_APPLIED, "{}")).get("spec")
    except (msgspec.DecodeError, AttributeError):
        return {}
    return spec if isinstance(spec, dict) else {}
