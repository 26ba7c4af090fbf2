"""`zenvoy uninstall`: restored replicas, removed finalizers, and released Services. It can be repeated."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import stamina
import structlog

from reconciler.cluster_client.cluster import LEASE, ClusterClient
from reconciler.kubernetes.capture.requests import release_all, release_command
from reconciler.kubernetes.client.api import MERGE_PATCH, Api
from reconciler.kubernetes.client.discovery import Discovery
from reconciler.kubernetes.client.errors import (
    FORBIDDEN,
    NOT_FOUND,
    ApiError,
    Unreachable,
    ignoring,
    is_of_a_webhook,
    is_transient,
    is_transient_or_conflict,
)
from reconciler.kubernetes.client.informer import list_objects
from reconciler.kubernetes.client.leader_election import ADDRESS, UNINSTALLER
from reconciler.kubernetes.config.capture import CaptureMode
from reconciler.kubernetes.config.resolve import service_of, target_of
from reconciler.kubernetes.status.event_messages import EVENTS, deletion_message, event_body, event_name
from reconciler.kubernetes.status.finalizer import remove_finalizer, restore
from reconciler.kubernetes.types.builtin import Lease
from reconciler.kubernetes.types.objects import Object, ObjectMeta, ObjectRef, decoder, micro_time, path
from reconciler.kubernetes.types.scaled_service import API_VERSION, KIND, PLURAL, ScaledService

log = structlog.get_logger(__name__)

RELEASE_SECONDS = 60.0
"""Longest time that the release of captured Services waits for restored pods."""
FENCE_SECONDS = 600
"""Time after an uninstallation during which no running controller leads; a newly started one may."""
_ITEM, _OBJECT, _LEASE = decoder(ScaledService), decoder(Object), decoder(Lease)
HOOK_RUNNERS = ("meta.helm.sh/release-name", "argocd.argoproj.io/tracking-id")
"""Annotations that helm and Argo CD write on each object that they install. Only they run hooks."""


@dataclass(frozen=True, slots=True)
class RestoreOutcome:
    """The result for one ScaledService."""

    name: str
    """`namespace/name`."""
    text: str
    """Description for people."""
    failed: bool = False
    retry: bool = False
    """True if another attempt may succeed."""


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
        return _ITEM(raw)
    except msgspec.DecodeError:
        return ScaledService(_OBJECT(raw).metadata)


async def restore_services(
    cluster: ClusterClient, namespaces: Sequence[str], report: Callable[[RestoreOutcome], None]
) -> list[RestoreOutcome]:
    """Restore every service of the namespaces (none: all), remove the finalizers, and release captured Services.

    `report` is called with each result at once. Errors of one service do not affect others. The Lease is acquired
    first, so that no running controller scales anything to zero. Raises `ApiError` and `Unreachable` if the Lease
    cannot be acquired or the services cannot be listed.
    """
    api, outcomes = cluster.api, list[RestoreOutcome]()

    async def record(outcome: RestoreOutcome, meta: ObjectMeta) -> None:
        outcomes.append(outcome)
        report(outcome)
        if outcome.failed:
            await _warn(api, meta, outcome.text)

    await take_lease(api, cluster.options.system, LEASE)
    discovery = Discovery(api)
    for namespace in namespaces or (None,):
        captured: dict[str, ScaledService] = {}
        async for raw in list_objects(api, path(API_VERSION, PLURAL, namespace)):
            item = _read(raw)
            await record(await _restore_one(api, discovery, raw), item.metadata)
            if item.spec.capture == CaptureMode.PROXY or item.status.capture_port:
                captured[service_of(item)] = item
        failed = await release_all(api, list(captured), RELEASE_SECONDS)
        for key, item in captured.items():
            await record(_release_outcome(item, key, failed.get(key)), item.metadata)
    return outcomes


async def take_lease(api: Api, namespace: str, name: str) -> None:
    """Acquire the Lease for `FENCE_SECONDS`, and wait until the previous leader's term has ended.

    Raises `ApiError` and `Unreachable`.
    """
    where = path("coordination.k8s.io/v1", "leases", namespace, name)
    async for attempt in stamina.retry_context(on=is_transient_or_conflict, attempts=10):
        with attempt:
            lease = await api.find(where)
            if lease is None:
                return  # there was never a leader
            found = _LEASE(lease)
            await api.patch(where, _fence(found), MERGE_PATCH)
    if found.spec.holder_identity not in (None, "", UNINSTALLER):
        await asyncio.sleep(found.spec.lease_duration_seconds or 0)


async def _restore_one(api: Api, discovery: Discovery, raw: msgspec.Raw) -> RestoreOutcome:
    """Restore one service and remove its finalizer, unless another attempt may succeed."""
    retries = stamina.AsyncRetryingCaller(attempts=5, timeout=None, wait_max=2.0).on(is_transient_or_conflict)
    object_, failed = _OBJECT(raw), False
    name = object_.metadata.key
    try:
        item = _ITEM(raw)
    except msgspec.DecodeError as error:
        done, failed = f"failed to read its target, scale it by hand: {error}", True
    else:
        try:
            done = await retries(restore, api, discovery, item, landing=0.0)  # the previous leader's term has ended
        except (ApiError, Unreachable, msgspec.DecodeError) as error:
            target, replicas = target_of(item), max(1, item.status.replicas)
            command = f"kubectl -n {target.namespace} scale {target.kind} {target.name} --replicas={replicas}"
            done, failed = f"failed to restore {target}: {error}; scale it by hand: {command}", True
            # A webhook that is gone, as its own installation may be, must not block the uninstallation.
            if is_transient(error) and not is_of_a_webhook(error):
                return RestoreOutcome(name, done, failed, retry=True)
    try:
        if await retries(remove_finalizer, api, object_):
            done += "; finalizer removed"
    except (ApiError, Unreachable, msgspec.DecodeError) as error:
        return RestoreOutcome(name, f"{done}; failed to remove the finalizer: {error}", True, retry=is_transient(error))
    return RestoreOutcome(name, done, failed)


def _release_outcome(item: ScaledService, key: str, error: Exception | None) -> RestoreOutcome:
    if error is None:
        return RestoreOutcome(item.metadata.key, f"Service {key} leads to its pods")
    text = f"failed to release Service {key}: {error}; {release_command(item)}"
    return RestoreOutcome(item.metadata.key, text, failed=True, retry=is_transient(error))


async def _warn(api: Api, meta: ObjectMeta, text: str) -> None:
    """Record an Event on the object, because the log of an uninstallation may be lost."""
    regarding, note = ObjectRef(API_VERSION, KIND, meta.namespace, meta.name, meta.uid), deletion_message(text, True)
    body = event_body(regarding, note, event_name(meta.name, time.time_ns()), time.time(), "uninstall")
    try:
        await api.call("POST", path(EVENTS, "events", meta.namespace), body)
    except (ApiError, Unreachable) as error:
        log.debug("failed to write an Event", service=meta.key, error=str(error))


def _fence(found: Lease) -> dict[str, object]:
    spec = {
        "holderIdentity": UNINSTALLER,
        "leaseDurationSeconds": FENCE_SECONDS,
        "leaseTransitions": (found.spec.lease_transitions or 0) + 1,
        "renewTime": micro_time(time.time()),
    }
    meta = {"resourceVersion": found.metadata.resource_version, "annotations": {ADDRESS: None}}
    return {"metadata": meta, "spec": spec}
