"""Restoration of replicas and removal of finalizers, for one deleted service or for an uninstallation.

Only a target at zero is scaled, by the patch of a wake. The target of a service that was never in effect is left as it
is. Repeating a restoration is harmless.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import stamina
import structlog

from reconciler.core.record import AWAKE_STATES, State
from reconciler.core.text import pluralize
from reconciler.kubernetes.capture.requests import release_all, release_command
from reconciler.kubernetes.client.api import JSON_PATCH, MERGE_PATCH, Api
from reconciler.kubernetes.client.discovery import Discovery, NoSuchKind
from reconciler.kubernetes.client.errors import (
    FORBIDDEN,
    INVALID,
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
from reconciler.kubernetes.types.builtin import Lease
from reconciler.kubernetes.types.objects import Object, ObjectMeta, ObjectRef, decoder, micro_time, path
from reconciler.kubernetes.types.scaled_service import API_VERSION, FINALIZER, KIND, PLURAL, ScaledService, item_path
from reconciler.kubernetes.workloads import scale

LANDING_SECONDS = 1.0
"""A patch to zero that was in flight has arrived after this time, or never will."""
RELEASE_SECONDS = 60.0
"""Longest time that the release of captured Services waits for restored pods."""
FENCE_SECONDS = 600
"""Time after an uninstallation during which no running controller leads; a newly started one may."""
log = structlog.get_logger(__name__)
_MAY_SCALE_TO_ZERO = (State.Draining, State.ScaledToZero)
_ITEM, _OBJECT, _LEASE = decoder(ScaledService), decoder(Object), decoder(Lease)


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


async def restore(api: Api, discovery: Discovery, item: ScaledService, landing: float = LANDING_SECONDS) -> str:
    """Make sure that the target has replicas, and return a description of the result.

    `landing` is the time to wait for a patch in flight. Raises `ApiError` and `Unreachable`.
    """
    if not item.status.state:
        return "nothing to restore: never in effect"
    target = target_of(item)
    if invalid := target.invalid:
        return f"nothing to restore: {invalid[1]!r} is not a valid {invalid[0]}, so it was never scaled"
    try:
        kind = await discovery.find(target.api_version, target.kind)
    except NoSuchKind as error:
        return f"nothing to restore: {error}"
    where = kind.scale_path(target.namespace, target.name)
    replicas = item.spec.replicas if isinstance(item.spec.replicas, int) else item.status.replicas
    try:
        has = scale.parse_scale(await api.get(where), target.key).replicas
        if has and item.status.state in _MAY_SCALE_TO_ZERO:
            await asyncio.sleep(landing)
            has = scale.parse_scale(await api.get(where), target.key).replicas
        if has:
            return f"{target} has {pluralize(has, 'replica')}"
        return f"{target} was restored to {pluralize(await _wake(api, where, target.key, max(1, replicas)), 'replica')}"
    except ApiError as error:
        if error.status == NOT_FOUND:
            return f"nothing to restore: {target} does not exist"
        if error.status == FORBIDDEN and item.status.state in AWAKE_STATES:
            return f"nothing to restore: zenvoy may not scale {target}, and did not put it to sleep"
        raise


async def remove_finalizer(api: Api, item: ScaledService | Object) -> bool:
    """Remove the finalizer, and return whether it was present. Raises `ApiError` and `Unreachable`."""
    where = item_path(item.metadata)
    with ignoring(NOT_FOUND):
        meta = _OBJECT(await api.get(where)).metadata
        if FINALIZER not in meta.finalizers or meta.uid != item.metadata.uid:
            return False
        others = [one for one in meta.finalizers if one != FINALIZER]
        change = {"resourceVersion": meta.resource_version, "finalizers": others or None}
        await api.patch(where, {"metadata": change}, MERGE_PATCH)
        return True
    return False


async def restore_all(
    api: Api,
    namespace: str | None = None,
    lease: tuple[str, str] | None = None,
    on_outcome: Callable[[RestoreOutcome], None] = lambda _: None,
) -> list[RestoreOutcome]:
    """Restore every service of a namespace, or of all, remove the finalizers, and release captured Services.

    `on_outcome` is called with each result. Errors of one service do not affect others, and the call can be repeated.
    `lease` (namespace and name) is acquired first, so that no running controller scales anything to zero. Raises
    `ApiError` and `Unreachable` if the Lease cannot be acquired or the services cannot be listed.
    """
    if lease:
        await take_lease(api, *lease)
    landing = 0.0 if lease else LANDING_SECONDS  # the previous leader's term has ended
    discovery, outcomes, captured = Discovery(api), list[RestoreOutcome](), dict[str, ScaledService]()

    async def report(outcome: RestoreOutcome, meta: ObjectMeta) -> None:
        outcomes.append(outcome)
        on_outcome(outcome)
        if outcome.failed:
            await _warn(api, meta, outcome.text)

    async for raw in list_objects(api, path(API_VERSION, PLURAL, namespace)):
        await report(await _restore_one(api, discovery, raw, landing), _OBJECT(raw).metadata)
        if item := _captured(raw):
            captured[service_of(item)] = item
    failed = await release_all(api, list(captured), RELEASE_SECONDS)
    for key, item in captured.items():
        await report(_release_outcome(item, key, failed.get(key)), item.metadata)
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


async def _wake(api: Api, where: str, key: str, wanted: int) -> int:
    """Wake the target, and return its replicas, which someone else may have set meanwhile."""
    for patch in scale.wake_patches(wanted):
        try:
            return scale.parse_scale(await api.patch(where, patch, JSON_PATCH), key).replicas
        except ApiError as error:
            if error.status != INVALID:
                raise
            refused = error
    if has := scale.parse_scale(await api.get(where), key).replicas:
        return has
    raise refused


async def _restore_one(api: Api, discovery: Discovery, raw: msgspec.Raw, landing: float) -> RestoreOutcome:
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
            done = await retries(restore, api, discovery, item, landing)
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


def _captured(raw: msgspec.Raw) -> ScaledService | None:
    """Return the ScaledService if its Service may be captured."""
    try:
        item = _ITEM(raw)
    except msgspec.DecodeError:
        return None
    return item if item.spec.capture == CaptureMode.PROXY or item.status.capture_port else None


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
