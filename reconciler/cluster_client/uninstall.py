"""`zenvoy uninstall`: what sleeps gets its replicas back, and nothing of ours keeps an object from being deleted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from reconciler.cluster_client.cluster import LEASE, Cluster
from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.status.restore import RestoreOutcome, restore_all
from reconciler.kubernetes.types.objects import Object, decoder, path
from reconciler.kubernetes.types.scaled_service import API_VERSION, PLURAL, ScaledService

_DECODE, _OBJECT = decoder(ScaledService), decoder(Object)


async def found(cluster: Cluster, namespaces: Sequence[str]) -> list[ScaledService]:
    """All that would be left; none where there is no such kind. Raises `ApiError` and `Unreachable`."""
    items: list[ScaledService] = []
    for namespace in namespaces or (None,):
        try:
            items += await cluster.listed(path(API_VERSION, PLURAL, namespace), _read)
        except ApiError as error:
            if error.status != 404:
                raise
    return items


def _read(raw: msgspec.Raw) -> ScaledService:
    """Return one that cannot be read with its metadata alone: it must not keep the others from being restored."""
    try:
        return _DECODE(raw)
    except msgspec.DecodeError:
        return ScaledService(_OBJECT(raw).metadata)


async def left(
    cluster: Cluster, namespaces: Sequence[str], told: Callable[[RestoreOutcome], None]
) -> list[RestoreOutcome]:
    """Leave them all; `told` of each at once. Controllers that still run put nothing to sleep meanwhile.

    Raises `ApiError` and `Unreachable` when it cannot begin.
    """
    lease: tuple[str, str] | None = (cluster.where.system, LEASE)
    outcomes = []
    for namespace in namespaces or (None,):
        outcomes += await restore_all(cluster.api, namespace, lease, told)
        lease = None
    return outcomes
