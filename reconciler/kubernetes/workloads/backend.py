"""The place where services run as workloads of a cluster; implements `reconciler.ports.backend.Backend`.

Rules: everything is observed again after a restart, and nothing is kept. A target that cannot be seen or scaled is
trouble, and what runs of it is then what its Service's endpoints say: nobody's service is cut off by a mistyped name.
Counterparts: `scaler.py` scales, `workload.py` says who may be dialled, `diagnosis.py` says why it takes so long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.config.service_config import ServiceConfig
from reconciler.kubernetes.types.objects import Condition
from reconciler.kubernetes.types.target import Target
from reconciler.kubernetes.workloads.endpoints import EndpointSlices, PodEndpoint
from reconciler.kubernetes.workloads.probing import EndpointProber
from reconciler.kubernetes.workloads.scale import ObservedScale
from reconciler.kubernetes.workloads.scaler import TargetScaler
from reconciler.kubernetes.workloads.target_informers import TargetInformers, TargetObject
from reconciler.kubernetes.workloads.wake_client import WakeClient
from reconciler.kubernetes.workloads.wake_monitor import WakeMonitor
from reconciler.kubernetes.workloads.workload import Workload, ordered_milestones
from reconciler.plan import AtLeast, Scale, Zero
from reconciler.ports.backend import UNSAID, Report, Running

log = structlog.get_logger()

LANDING_SECONDS = 3.0
LOOKS_AT_ONCE = 16


class KubernetesBackend:
    """Scales the services' targets. Made and used on one event loop.

    Nothing is reported before all EndpointSlices have been seen, and of a service not before its target was.
    `configure` reports what is known of every new service before it returns, and `converge` what shall end; everything
    else is reported from the loop.
    """

    def __init__(
        self,
        api: Api,
        urgent: Api,
        report: Report,
        may_sleep: Callable[[], bool],
        namespaces: Sequence[str] = (),
        leads: Callable[[], bool] | None = None,
    ) -> None:
        """`urgent` is for wakes only, with room for `wake_client.WARM_CONNECTIONS`. `may_sleep` is asked right before a
        target is scaled to zero, `leads` (by default the same) when one is woken: who does not lead may find that the
        leader has just put it to sleep, or woken it. No `namespaces` are all of them."""
        self.api, self.urgent, self.may_sleep = api, WakeClient(urgent), may_sleep
        self.looks = asyncio.Semaphore(LOOKS_AT_ONCE)
        self._report, self.leads = report, leads or may_sleep
        self._workloads: dict[str, Workload] = {}
        self._targets: dict[Target, TargetScaler] = {}
        self._by_service: dict[str, tuple[str, ...]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._dirty: dict[str, None] = {}
        self._closing, self._tells_why = False, True
        within: Sequence[str | None] = namespaces or (None,)
        self._kinds = TargetInformers(api, within, self._object_changed, self._kind_turned, self.spawn)
        self._reach = EndpointProber(self._soil, self.spawn)
        self._waits = WakeMonitor(api, self._soil, self.spawn)
        self._slices = EndpointSlices(api, within, self._slice_changed, self._all_changed)
        for work in self._slices.run():
            self.spawn(work, "endpoint slices")
        self.spawn(self.urgent.keep_warm(), "warm connections")
        self.spawn(self._waits.run(), "waits")

    @property
    def targets(self) -> Mapping[Target, TargetScaler]:
        """All targets, as they are seen."""
        return self._targets

    def is_missing(self, service: str) -> bool:
        """Whether there is, for certain, nothing that could be scaled for it."""
        return service not in self._workloads or self._workloads[service].scaled.is_missing

    def configure(self, entries: Mapping[str, ServiceConfig]) -> None:
        """These are the services from now on; what does not change is not touched, what is no more stays as it is."""
        for name in self._workloads.keys() - entries.keys():
            self._drop(self._workloads.pop(name))
        changed = [entry for name, entry in entries.items() if not self._has(name, entry)]
        for entry in changed:
            self._take(entry)
        self._index()
        self._kinds.use(frozenset((target.api_version, target.kind) for target in self._targets))
        for target in {entry.target for entry in changed}:
            self._examine(self._targets[target])
        for entry in changed:
            self._refresh(self._workloads[entry.spec.name])

    def converge(self, service: str, scale: Scale) -> None:
        """Wake it, let it sleep, or leave its number to whoever owns it."""
        workload = self._workloads.get(service)
        if workload is None or self._closing or workload.desired == scale:
            return
        before, workload.desired = workload.desired, scale
        match scale:
            case AtLeast() if not isinstance(before, AtLeast):
                workload.begin(time.time())
                if isinstance(before, Zero) and not self.leads():
                    workload.mark_terminating(
                        self._offers(workload)
                    )  # whoever may has perhaps scaled it to zero a moment ago
            case Zero():
                workload.cancel_unmark()
                if workload.reported is not None and workload.reported.endpoints:
                    self._tell(workload, replace(workload.reported, endpoints=()))
        workload.scaled.set_desired(service, scale)
        self._soil(service)

    def lead(self, leads: bool) -> None:
        """Whether we lead from now on: only then awaited pods are looked at, as the leader tells what keeps them."""
        self._tells_why = leads
        for workload in filter(lambda workload: workload.is_waking, self._workloads.values()):
            workload.scaled.identify()
            self._soil(workload.name)

    async def close(self) -> None:
        """Look and call no more; workloads stay as they are. A zero that is under way is answered first."""
        self._closing = True
        if zeroing := [scaled.sleeping for scaled in self._targets.values() if scaled.sleeping]:
            await asyncio.wait(zeroing, timeout=LANDING_SECONDS)
        for workload in self._workloads.values():
            workload.close()
        for scaled in self._targets.values():
            scaled.close()
        self._waits.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # What targets ask of their owner

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def changed(self, services: tuple[str, ...]) -> None:
        for service in services:
            self._soil(service)

    def zeroing(self, services: tuple[str, ...]) -> Callable[[], None]:
        workloads = [self._workloads[service] for service in services]
        doomed = [(workload, workload.mark_terminating(self._offers(workload))) for workload in workloads]

        def spare() -> None:
            for workload, pods in doomed:
                workload.terminating -= pods
                self._soil(workload.name)

        return spare

    # What is configured

    def _has(self, name: str, entry: ServiceConfig) -> bool:
        workload = self._workloads.get(name)
        return workload is not None and _place(workload.entry) == _place(entry)

    def _take(self, entry: ServiceConfig) -> None:
        name = entry.spec.name
        before = self._workloads.get(name)
        if before is not None and before.entry.target == entry.target:
            before.entry, before.selector = entry, None
            return
        scaled = self._targets.get(entry.target) or TargetScaler(entry.target, self)
        self._targets[entry.target] = scaled
        workload = self._workloads[name] = Workload(entry, scaled)
        if before is not None:
            workload.desired, workload.reported = before.desired, before.reported
            workload.begin(before.began_at)
            self._drop(before)
        scaled.set_desired(name, workload.desired)

    def _drop(self, workload: Workload) -> None:
        workload.close()
        workload.scaled.leave(workload.name)
        self._waits.leave(workload)
        if not workload.scaled.services:
            workload.scaled.close()
            self._targets.pop(workload.scaled.ref, None)

    def _index(self) -> None:
        by_service: dict[str, tuple[str, ...]] = {}
        for name, workload in self._workloads.items():
            by_service[workload.entry.service_key] = (*by_service.get(workload.entry.service_key, ()), name)
        self._by_service = by_service

    # What is seen

    def _slice_changed(self, service: str) -> None:
        for name in self._by_service.get(service, ()):
            self._soil(name)

    def _all_changed(self) -> None:
        for name in self._workloads:
            self._soil(name)

    def _object_changed(self, named: tuple[str, str], key: str) -> None:
        namespace, _, name = key.partition("/")
        if scaled := self._targets.get(Target(*named, name, namespace)):
            self._examine(scaled)

    def _kind_turned(self, named: tuple[str, str]) -> None:
        for target, scaled in self._targets.items():
            if (target.api_version, target.kind) == named:
                self._examine(scaled)

    def _examine(self, scaled: TargetScaler) -> None:
        """Tell the target what is seen of it."""
        ref = scaled.ref
        watch = self._kinds.watches[ref.api_version, ref.kind]
        item = watch.item(ref.namespace, ref.name)
        if watch.kind is None or watch.trouble:
            if watch.trouble:
                scaled.lost(watch.kind, watch.trouble, watch.is_absent)
        elif item is not None:
            version = item.metadata.resource_version
            scaled.found(watch.kind, None if item.replicas is None else ObservedScale(item.replicas, version))
        elif watch.is_unreadable(ref.namespace, ref.name):
            scaled.found(watch.kind, None)
        elif watch.is_seen(ref.namespace):
            scaled.lost(watch.kind, f"TargetNotFound: {ref} does not exist")
        else:
            scaled.expect(watch.kind)

    def _offers(self, workload: Workload) -> tuple[PodEndpoint, ...]:
        return self._slices.pod_endpoints(workload.entry.service_key, workload.entry.port.name)

    # What is said of it

    def _soil(self, service: str) -> None:
        """It has to be looked at again, once for all that happens in this turn of the loop."""
        if not self._dirty:
            asyncio.get_running_loop().call_soon(self._clean)
        self._dirty[service] = None

    def _clean(self) -> None:
        dirty, self._dirty = self._dirty, {}
        for service in dirty:
            if workload := self._workloads.get(service):
                self._refresh(workload)

    def _refresh(self, workload: Workload) -> None:
        scaled = workload.scaled
        seen, known = scaled.seen, scaled.seen is not None or scaled.is_missing
        if self._closing or not self._slices.synced or not (known or workload.reported):
            return
        offers = self._offers(workload)
        shown = workload.routable(offers)
        workload.unmark_later(offers, lambda: self._spare(workload))
        endpoints = self._reach.reachable(workload, shown)
        trouble = scaled.trouble
        if not workload.is_waking or endpoints:
            self._waits.over(workload)
        elif seen and seen.replicas and self._tells_why:
            stalled = self._waits.stalled(workload, self._failures(scaled), bool(shown))
            trouble = trouble or stalled
        else:
            self._waits.leave(workload)
        replicas = seen.replicas if seen else None
        if scaled.is_absent:  # while pods are there, they are as many as were asked for, if that was known once
            pods = {offer.pod for offer in shown}
            replicas = (scaled.last or len(pods)) if pods else 0
        asks = item.asks if (item := self._item(scaled)) else UNSAID
        self._tell(
            workload,
            Running(workload.name, replicas, endpoints, trouble, ordered_milestones(workload.milestones), asks),
        )

    def _spare(self, workload: Workload) -> None:
        workload.unmark(self._offers(workload))
        self._soil(workload.name)

    def _failures(self, scaled: TargetScaler) -> tuple[Condition, ...]:
        return item.failures if (item := self._item(scaled)) else ()

    def _item(self, scaled: TargetScaler) -> TargetObject | None:
        ref = scaled.ref
        return self._kinds.watches[ref.api_version, ref.kind].item(ref.namespace, ref.name)

    def _tell(self, workload: Workload, running: Running) -> None:
        if running != workload.reported:
            workload.reported = running
            self._report(running)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a part has failed, by a fault of zenvoy", part=task.get_name(), exc_info=error)


def _place(entry: ServiceConfig) -> tuple[Target, str, str]:
    """All of an entry that matters here."""
    return entry.target, entry.service, entry.port.name
