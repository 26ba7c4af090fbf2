"""What else may write a target's replicas, with only the fields that tell: HPAs, KEDA's ScaledObjects, field owners."""

from __future__ import annotations

from typing import Any

import msgspec

from reconciler.cluster_client.reach import Cluster
from reconciler.doctor.finding import Finding, Level
from reconciler.kubernetes.api import ApiError
from reconciler.kubernetes.objects import decoder, path
from reconciler.kubernetes.resources import ScaledService
from reconciler.kubernetes.targets import Discovery, NoSuchKind, Target
from reconciler.kubernetes.wanted import target_of

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
