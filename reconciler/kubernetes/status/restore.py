"""What leaving a service takes: its replicas restored, our finalizer removed; of one service, or of all of them.

Rules: only a target at zero is touched, by the patch that wakes; one that we never served is left as it is. Doing it
again does no harm. Counterparts: `finalizer.py`, for one that is deleted while zenvoy runs; `zenvoy uninstall`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import msgspec
import stamina
import structlog

from reconciler.core.record import State
from reconciler.core.text import pluralize
from reconciler.kubernetes.client.api import JSON_PATCH, MERGE_PATCH, Api
from reconciler.kubernetes.client.discovery import Discovery, NoSuchKind
from reconciler.kubernetes.client.errors import (
    FORBIDDEN,
    INVALID,
    NOT_FOUND,
    ApiError,
    Unreachable,
    is_transient,
    is_transient_or_conflict,
)
from reconciler.kubernetes.client.leader_election import ADDRESS, UNINSTALLER
from reconciler.kubernetes.config.resolve import target_of
from reconciler.kubernetes.status.event_messages import deletion_message, shorten
from reconciler.kubernetes.status.event_recorder import EVENTS, LONGEST_NAME, REPORTER
from reconciler.kubernetes.types.builtin import Lease
from reconciler.kubernetes.types.objects import Object, ObjectMeta, ObjectRef, decoder, micro_time, path
from reconciler.kubernetes.types.scaled_service import API_VERSION, FINALIZER, KIND, PLURAL, ScaledService
from reconciler.kubernetes.workloads import scale

PAGE = "500"
LANDING_SECONDS = 1.0
"""A patch to zero that was on its way when we stopped has arrived by then, or never will."""
FENCE_SECONDS = 600
"""How long no controller that runs leads after an uninstall, which should have ended by then; one that starts may."""
log = structlog.get_logger(__name__)
_MAY_BE_FALLING_ASLEEP = (State.Draining, State.ScaledToZero)
_ASLEEP_NEVER = (State.Active, State.Idle)
"""Whoever put such a service to sleep, it was not zenvoy."""
_ITEM, _OBJECT, _LEASE = decoder(ScaledService), decoder(Object), decoder(Lease)


@dataclass(frozen=True, slots=True)
class RestoreOutcome:
    """What was done for one ScaledService."""

    name: str
    """`namespace/name`."""
    text: str
    """For people."""
    failed: bool = False
    retry: bool = False
    """Another attempt may do better: the API server did not answer, or not yet."""


class _Page(msgspec.Struct):
    metadata: dict[str, object]
    items: list[msgspec.Raw] | None = None


_PAGE = msgspec.json.Decoder(_Page)


async def restore(api: Api, discovery: Discovery, item: ScaledService, landing: float = LANDING_SECONDS) -> str:
    """See that the target has replicas; what was done, for people. `landing`: how long to wait for what is on its way.

    Raises `ApiError` and `Unreachable` when that cannot be told, or done.
    """
    if not item.status.state:
        return "there is nothing to restore: it was never in force"
    target = target_of(item)
    if invalid := target.invalid:
        return f"there is nothing to restore: {invalid[1]!r} is not a valid {invalid[0]}, so it was never scaled"
    try:
        kind = await discovery.find(target.api_version, target.kind)
    except NoSuchKind as error:
        return f"there is nothing to restore: {error}"
    where = kind.scale_path(target.namespace, target.name)
    wanted = item.spec.replicas if isinstance(item.spec.replicas, int) else item.status.replicas
    try:
        has = scale.parse_scale(await api.get(where), target.key).replicas
        if has and item.status.state in _MAY_BE_FALLING_ASLEEP:
            await asyncio.sleep(landing)
            has = scale.parse_scale(await api.get(where), target.key).replicas
        if has:
            return f"{target} has {pluralize(has, 'replica')}"
        return f"{target} was restored to {pluralize(await _woken(api, where, target.key, max(1, wanted)), 'replica')}"
    except ApiError as error:
        if error.status == NOT_FOUND:
            return f"there is nothing to restore: {target} does not exist"
        if error.status == FORBIDDEN and item.status.state in _ASLEEP_NEVER:
            return f"there is nothing to restore: zenvoy may not scale {target}, and did not put it to sleep"
        raise


async def remove_finalizer(api: Api, item: ScaledService | Object) -> bool:
    """Remove our finalizer; whether it was there. Raises `ApiError` and `Unreachable`; a conflict passes."""
    where = path(API_VERSION, PLURAL, item.metadata.namespace, item.metadata.name)
    try:
        meta = _OBJECT(await api.get(where)).metadata
        if FINALIZER not in meta.finalizers or meta.uid != item.metadata.uid:
            return False
        others = [one for one in meta.finalizers if one != FINALIZER]
        change = {"resourceVersion": meta.resource_version, "finalizers": others or None}
        await api.patch(where, {"metadata": change}, MERGE_PATCH)
    except ApiError as error:
        if error.status != NOT_FOUND:
            raise
        return False
    return True


async def restore_all(
    api: Api,
    namespace: str | None = None,
    lease: tuple[str, str] | None = None,
    told: Callable[[RestoreOutcome], None] = lambda _: None,
) -> list[RestoreOutcome]:
    """Leave every service of a namespace, or of all; `told` of each at once. Goes on past faults, and can be repeated.

    `lease` (namespace and name) is taken first, so that no controller that still runs puts anything to sleep again.
    Raises `ApiError` and `Unreachable` when it cannot be, or when services cannot be listed.
    """
    if lease:
        await take_lease(api, *lease)
    landing = 0.0 if lease else LANDING_SECONDS  # whoever led has had the time that a lease lasts
    discovery, outcomes = Discovery(api), []
    async for raw in _listed(api, namespace):
        outcome = await _left(api, discovery, raw, landing)
        outcomes.append(outcome)
        told(outcome)
        if outcome.failed:
            await _warn(api, _OBJECT(raw).metadata, outcome.text)
    return outcomes


async def take_lease(api: Api, namespace: str, name: str) -> None:
    """Let nobody who runs lead for `FENCE_SECONDS`; whoever did leads no more when this returns.

    Raises `ApiError` and `Unreachable`.
    """
    where = path("coordination.k8s.io/v1", "leases", namespace, name)
    async for attempt in stamina.retry_context(on=is_transient_or_conflict, attempts=10):
        with attempt:
            try:
                found = _LEASE(await api.get(where))
            except ApiError as error:
                if error.status != NOT_FOUND:
                    raise
                return  # nobody has ever led
            await api.patch(where, _fence(found), MERGE_PATCH)
    if found.spec.holder_identity not in (None, "", UNINSTALLER):
        await asyncio.sleep(found.spec.lease_duration_seconds or 0)


async def _woken(api: Api, where: str, key: str, wanted: int) -> int:
    """From zero to `wanted`, or whatever somebody else chose meanwhile; how many there are then."""
    for wake in scale.WAKE_PATCHES:
        try:
            return scale.parse_scale(await api.patch(where, wake(wanted), JSON_PATCH), key).replicas
        except ApiError as error:
            if error.status != INVALID:
                raise
            refused = error
    if has := scale.parse_scale(await api.get(where), key).replicas:
        return has
    raise refused


async def _left(api: Api, discovery: Discovery, raw: msgspec.Raw, landing: float) -> RestoreOutcome:
    """Restore and release one. The finalizer stays only while the next attempt may do better."""
    retries = stamina.AsyncRetryingCaller(attempts=5, timeout=None, wait_max=2.0).on(is_transient_or_conflict)
    object_, failed = _OBJECT(raw), False
    name = object_.metadata.key
    try:
        item = _ITEM(raw)
    except msgspec.DecodeError as error:
        done, failed = f"what it scales cannot be read, and has to be scaled by hand: {error}", True
    else:
        try:
            done = await retries(restore, api, discovery, item, landing)
        except (ApiError, Unreachable, msgspec.DecodeError) as error:
            done, failed = f"{target_of(item)} cannot be restored: {error}; {_by_hand(item)}", True
            if is_transient(error):
                return RestoreOutcome(name, done, failed, retry=True)
    try:
        if await retries(remove_finalizer, api, object_):
            done += "; the finalizer was removed"
    except (ApiError, Unreachable, msgspec.DecodeError) as error:
        return RestoreOutcome(
            name, f"{done}; the finalizer cannot be removed: {error}", True, retry=is_transient(error)
        )
    return RestoreOutcome(name, done, failed)


async def _warn(api: Api, meta: ObjectMeta, text: str) -> None:
    """Write an Event on the object: the log of an uninstall may be gone before somebody looks."""
    note, name = deletion_message(text, failed=True), f"{meta.name[:LONGEST_NAME].rstrip('.-')}.{time.time_ns():x}"
    body = {
        "apiVersion": EVENTS,
        "kind": "Event",
        "metadata": {"name": name, "namespace": meta.namespace},
        "eventTime": micro_time(time.time()),
        "type": "Warning",
        "reason": note.reason,
        "action": note.action,
        "note": shorten(note.text),
        "regarding": msgspec.to_builtins(ObjectRef(API_VERSION, KIND, meta.namespace, meta.name, meta.uid)),
        "reportingController": REPORTER,
        "reportingInstance": "uninstall",
    }
    try:
        await api.call("POST", path(EVENTS, "events", meta.namespace), body)
    except (ApiError, Unreachable) as error:
        log.debug("an Event cannot be written", service=meta.key, error=str(error))


def _by_hand(item: ScaledService) -> str:
    target, replicas = target_of(item), max(1, item.status.replicas)
    return f"scale it by hand: kubectl -n {target.namespace} scale {target.kind} {target.name} --replicas={replicas}"


async def _listed(api: Api, namespace: str | None) -> AsyncIterator[msgspec.Raw]:
    query = {"limit": PAGE}
    while True:
        page = _PAGE.decode(await api.get(path(API_VERSION, PLURAL, namespace), query, 30.0))
        for item in page.items or ():
            yield item
        following = page.metadata.get("continue")
        if not following:
            return
        query["continue"] = str(following)


def _fence(found: Lease) -> dict[str, object]:
    spec = {
        "holderIdentity": UNINSTALLER,
        "leaseDurationSeconds": FENCE_SECONDS,
        "leaseTransitions": (found.spec.lease_transitions or 0) + 1,
        "renewTime": micro_time(time.time()),
    }
    annotations = {ADDRESS: None}
    return {
        "metadata": {"resourceVersion": found.metadata.resource_version, "annotations": annotations},
        "spec": spec,
    }
