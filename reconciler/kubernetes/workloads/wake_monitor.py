"""Services that are awaited: their pods are looked at, for how far they have got, and for what keeps them.

Counterparts: `pods.py`, which sees them; `diagnosis.py`, which judges; `workload.py`, which notes milestones.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import msgspec
import structlog

from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.errors import ApiError, Unreachable
from reconciler.kubernetes.types.builtin import Service
from reconciler.kubernetes.types.objects import Condition, Struct, decoder, name_selector, path
from reconciler.kubernetes.types.selectors import selector_of
from reconciler.kubernetes.workloads.diagnosis import Evidence, diagnose
from reconciler.kubernetes.workloads.pods import PodObserver, Spawn
from reconciler.kubernetes.workloads.workload import UNMARK_AFTER_SECONDS, Workload
from reconciler.plan import Zero

log = structlog.get_logger()

JUDGE_EVERY_SECONDS = 1.0
"""How often a wake that takes long is judged though nothing has changed but the time."""


class _Services(Struct, frozen=True):
    items: tuple[Service, ...] = ()


_SERVICES = decoder(_Services)


class WakeMonitor:
    """All services that wake and have no endpoint."""

    def __init__(self, api: Api, changed: Callable[[str], None], spawn: Spawn) -> None:
        """`changed` is told the service that has to be judged again."""
        self._api, self._changed, self._spawn = api, changed, spawn
        self._pods = PodObserver(api, changed, spawn)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(JUDGE_EVERY_SECONDS)
            for service in self._pods.services:
                self._changed(service)

    def close(self) -> None:
        self._pods.close()

    def stalled(self, workload: Workload, failures: Sequence[Condition], is_offered: bool) -> str | None:
        """Why its wake does not get on, if that is known. `failures` are the target's own conditions that tell of one;
        `is_offered` is whether Kubernetes calls an endpoint ready."""
        selector = workload.scaled.selector or workload.selector
        if not selector:
            if workload.scaled.selector == "" and workload.selector is None:
                workload.selector = ""
                self._spawn(self._ask_selector(workload), f"selector of {workload.name}")
            return None
        if self._pods.follow(workload.name, workload.scaled.ref, selector):
            workload.awaited_since = time.monotonic()
        if (seen := self._pods.of(workload.name)) is None:
            return self._pods.trouble(workload.name)
        waited = time.monotonic() - workload.awaited_since
        ending = (
            workload.terminating | workload.previous_pods if waited < UNMARK_AFTER_SECONDS else workload.terminating
        )
        pods = [pod for pod in seen[0] if pod.metadata.uid not in ending]
        now, reached, entry = time.time(), workload.milestones, workload.entry
        workload.record_milestones(pods, now)
        return diagnose(
            Evidence(
                str(entry.target),
                waited,
                running_seconds=now - reached.get("running", now),
                ready_seconds=now - reached.get("ready", now),
                desired=workload.scaled.seen.replicas if workload.scaled.seen else 0,
                conditions=failures,
                pods=pods,
                events=seen[1],
                service="" if is_offered else f"Service {entry.service_key}",
                port=entry.port.name,
            )
        )

    def over(self, workload: Workload) -> None:
        """It is awaited no more: it has an endpoint, or is not wanted."""
        if workload.is_waking:
            workload.record_ready(time.time())
            workload.previous_pods = frozenset()
        elif isinstance(workload.desired, Zero) and (seen := self._pods.of(workload.name)):
            workload.previous_pods = frozenset(pod.metadata.uid for pod in seen[0])
        self._pods.leave(workload.name)

    def leave(self, workload: Workload) -> None:
        """It is no service any more, or there is nothing to await yet."""
        self._pods.leave(workload.name)

    async def _ask_selector(self, workload: Workload) -> None:
        """The target does not say which pods are its own: those of the Service, then."""
        entry = workload.entry
        named = {
            "fieldSelector": name_selector("metadata.name", entry.service)
        }  # a list, as there is a right to those anyway
        try:
            answer = await self._api.get(path("v1", "services", entry.target.namespace), named)
            services = _SERVICES(answer).items
        except (ApiError, Unreachable, msgspec.DecodeError) as error:
            log.warning("a Service's selector cannot be read", service=entry.service_key, error=str(error))
        else:
            if services:
                workload.selector = selector_of(services[0].spec.selector)
                self._changed(workload.name)
