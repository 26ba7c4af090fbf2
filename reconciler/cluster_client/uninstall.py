"""`zenvoy uninstall`: restored replicas, and removed finalizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from reconciler.cluster_client.cluster import LEASE, ClusterClient
from reconciler.kubernetes.client.errors import FORBIDDEN, NOT_FOUND, ignoring
from reconciler.kubernetes.status.restore import RestoreOutcome, restore_all
from reconciler.kubernetes.types.objects import Object, decoder, path
from reconciler.kubernetes.types.scaled_service import API_VERSION, PLURAL, ScaledService

_DECODE, _OBJECT = decoder(ScaledService), decoder(Object)
HOOK_RUNNERS = ("meta.helm.sh/release-name", "argocd.argoproj.io/tracking-id")
"""Annotations that helm and Argo CD write on each object that they install. Only they run hooks."""


async def is_hook(cluster: ClusterClient, service: str) -> bool:
    """Return whether a Job of the installation with this Service can be its hook.

    `helm template | kubectl apply` creates the hook's Job like any other object. Raises `ApiError` and `Unreachable`.
    """
    with ignoring(FORBIDDEN, NOT_FOUND):
        found = _OBJECT(await cluster.api.get(path("v1", "services", cluster.options.system, service)))
        return any(name in found.metadata.annotations for name in HOOK_RUNNERS)
    return True


async def services_to_restore(cluster: ClusterClient, namespaces: Sequence[str]) -> list[ScaledService]:
    """Return the ScaledServices of the namespaces (none: all). Raises `ApiError` and `Unreachable`."""
    items: list[ScaledService] = []
    for namespace in namespaces or (None,):
        items += await cluster.list_served(path(API_VERSION, PLURAL, namespace), _read)
    return items


def _read(raw: msgspec.Raw) -> ScaledService:
    """Return a ScaledService, or only its metadata if it is invalid, so that the others are restored."""
    try:
        return _DECODE(raw)
    except msgspec.DecodeError:
        return ScaledService(_OBJECT(raw).metadata)


async def restore_services(
    cluster: ClusterClient, namespaces: Sequence[str], report: Callable[[RestoreOutcome], None]
) -> list[RestoreOutcome]:
    """Restore the ScaledServices, and report each at once. Running controllers put nothing to sleep meanwhile.

    Raises `ApiError` and `Unreachable` if it cannot start.
    """
    lease: tuple[str, str] | None = (cluster.options.system, LEASE)
    outcomes = []
    for namespace in namespaces or (None,):
        outcomes += await restore_all(cluster.api, namespace, lease, report)
        lease = None
    return outcomes
