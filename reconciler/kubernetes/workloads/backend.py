"""The backend for services that run as workloads of a cluster; implements `reconciler.ports.backend.Backend`.

Nothing is persisted: everything is observed again after a restart. A target that cannot be observed or scaled has a
diagnosis, and its Service's endpoints stay in use: a mistyped name cuts no service off.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import structlog

from reconciler.concurrency import NextTurn
from reconciler.core.reasons import Blocker, Diagnosis, Reason
from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.discovery import Discovery
from reconciler.kubernetes.config.service_config import ServiceConfig
from reconciler.kubernetes.types.builtin import Service
from reconciler.kubernetes.types.objects import Target
from reconciler.kubernetes.workloads.endpoints import EndpointSlices, PodEndpoint
from reconciler.kubernetes.workloads.probes.busy_check import NO_POD, PodBusyCheck
from reconciler.kubernetes.workloads.probes.early_endpoints import EarlyEndpoints
from reconciler.kubernetes.workloads.probing import EndpointProber
from reconciler.kubernetes.workloads.scale import ObservedScale
from reconciler.kubernetes.workloads.scaler import TargetScaler
from reconciler.kubernetes.workloads.target_informers import ResourceWatch, TargetObject
from reconciler.kubernetes.workloads.target_observer import TargetObserver
from reconciler.kubernetes.workloads.target_search import TargetSearch
from reconciler.kubernetes.workloads.wake_monitor import WakeMonitor
from reconciler.kubernetes.workloads.warm_connections import keep_warm
from reconciler.kubernetes.workloads.workload import Workload, ordered_milestones
from reconciler.plan import AtLeast, Scale, Zero
from reconciler.ports.backend import UNKNOWN_REQUESTS, Report, WorkloadStatus

log = structlog.get_logger()

PENDING_ZERO_TIMEOUT_SECONDS = 3.0
"""Longest wait for the answers to patches to zero when the backend closes."""
MAX_CONCURRENT_READS = 16


class KubernetesBackend:
    """Scales the services' targets, on one event loop.

    Nothing is reported before all EndpointSlices are listed, and no service before its target was observed. `configure`
    reports every new service that is known before it returns. All other reports come from the event loop.
    """

    def __init__(
        self,
        api: Api,
        urgent: Api,
        services: Mapping[str, Service],
        report: Report,
        may_sleep: Callable[[], bool],
        namespaces: Sequence[str] = (),
        leads: Callable[[], bool] | None = None,
    ) -> None:
        """Create a backend.

        `urgent` is for wakes only, and allows `warm_connections.WARM_CONNECTIONS` connections. `services` are the
        objects of an informer. `may_sleep` is called right before a target is scaled to zero, and `leads` (by default
        the same) before one is woken: the leader may just have scaled it. Without `namespaces`, all of them are
        watched.
        """
        self.api, self.urgent, self.may_sleep = api, urgent, may_sleep
        self.reads = asyncio.Semaphore(MAX_CONCURRENT_READS)
        self._report, self.leads = report, leads or may_sleep
        self._workloads: dict[str, Workload] = {}
        self.targets: dict[Target, TargetScaler] = {}
        """The targets of the services."""
        self._by_service: dict[str, tuple[str, ...]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._refresh_soon = NextTurn(self._refresh).add
        self._closing, self._diagnoses = False, True
        self._namespaces: Sequence[str | None] = namespaces or (None,)
        self._discovery = Discovery(api)
        self._watches: dict[tuple[str, str], ResourceWatch] = {}
        """The watches of the targets' kinds, by apiVersion and kind."""
        self._watching: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._prober = EndpointProber(self._refresh_soon, self.spawn)
        self._target_search = TargetSearch(api, services, self._refresh_soon, self.spawn)
        self._early_endpoints = EarlyEndpoints(self._refresh_soon, self.spawn)
        self._busy_check = PodBusyCheck(api)
        self._wake_monitor = WakeMonitor(api, services, self._refresh_soon, self.spawn)
        self.endpoint_slices = EndpointSlices(
            api,
            self._namespaces,
            lambda key: self.changed(self._by_service.get(key, ())),
            lambda: self.changed(self._workloads),
        )
        for work in self.endpoint_slices.run():
            self.spawn(work, "endpoint slices")
        self.spawn(keep_warm(urgent), "warm connections")
        self.spawn(self._wake_monitor.run(), "wake monitor")

    def is_missing(self, service: str) -> bool:
        """Return whether there is certainly nothing to scale for a service."""
        return service not in self._workloads or bool(self._workloads[service].scaler.observer.missing)

    async def ask_busy(self, service: str) -> Blocker | None:
        """Run the busy check of a service; return the reason to keep it awake, or None if it is idle."""
        workload = self._workloads.get(service)
        if workload is None or workload.config.busy is None:
            return NO_POD
        namespace = workload.config.target.namespace
        return await self._busy_check.ask(namespace, workload.config.busy, self._endpoints(workload))

    def configure(self, configs: Mapping[str, ServiceConfig]) -> None:
        """Set the services. Unchanged ones are not touched; targets of removed ones stay as they are."""
        for name in self._workloads.keys() - configs.keys():
            self._remove(self._workloads.pop(name))
        changed = [config for name, config in configs.items() if not self._is_unchanged(name, config)]
        for config in changed:
            self._add(config)
        self._by_service = {}
        for name, workload in self._workloads.items():
            key = workload.config.service_key
            self._by_service[key] = (*self._by_service.get(key, ()), name)
        self._watch({(target.api_version, target.kind) for target in self.targets})
        for target in {config.target for config in changed}:
            self._examine(self.targets[target])
        for config in changed:
            self._refresh(config.spec.name)

    def converge(self, service: str, scale: Scale) -> WorkloadStatus | None:
        """Wake a service, scale it to zero, or leave its replicas to their owner.

        Returns its status without endpoints if it had some and is scaled to zero.
        """
        workload = self._workloads.get(service)
        if workload is None or self._closing or workload.desired == scale:
            return None
        changed: WorkloadStatus | None = None
        before, workload.desired = workload.desired, scale
        match scale:
            case AtLeast() if not isinstance(before, AtLeast):
                workload.begin(time.time())
                if isinstance(before, Zero) and not self.leads():
                    # The leader may have scaled it to zero a moment ago.
                    workload.mark_terminating(self._endpoints(workload))
            case Zero():
                workload.cancel_unmark()
                if workload.reported is not None and workload.reported.endpoints:
                    workload.reported = changed = replace(workload.reported, endpoints=())
        workload.scaler.set_desired(service, scale)
        self._refresh_soon(service)
        return changed

    def lead(self, leads: bool) -> None:
        """Start or stop diagnosing wakes, which only the leader does."""
        self._diagnoses = leads
        for workload in self._workloads.values():
            if workload.is_waking:
                workload.scaler.observer.find_selector()
            if workload.is_waking or workload.scaler.observer.missing:
                self._refresh_soon(workload.name)

    async def close(self) -> None:
        """Stop observing and scaling, after pending patches to zero are answered. Workloads stay as they are."""
        self._closing = True
        if zeroing := [scaler.sleeping for scaler in self.targets.values() if scaler.sleeping]:
            await asyncio.wait(zeroing, timeout=PENDING_ZERO_TIMEOUT_SECONDS)
        for workload in self._workloads.values():
            workload.close()
        for scaler in self.targets.values():
            scaler.close()
        self._wake_monitor.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # The owner of targets

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task that ends with the backend."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def changed(self, services: Iterable[str]) -> None:
        """Refresh services soon."""
        for service in services:
            self._refresh_soon(service)

    def zeroing(self, services: tuple[str, ...]) -> Callable[[], None]:
        """Mark the pods of services as terminating; the returned function unmarks them."""
        workloads = [self._workloads[service] for service in services]
        marked = [(workload, workload.mark_terminating(self._endpoints(workload))) for workload in workloads]

        def unmark() -> None:
            for workload, pods in marked:
                workload.terminating -= pods
                self._refresh_soon(workload.name)

        return unmark

    # Configuration

    def _is_unchanged(self, name: str, config: ServiceConfig) -> bool:
        workload = self._workloads.get(name)
        return workload is not None and _place(workload.config) == _place(config)

    def _add(self, config: ServiceConfig) -> None:
        name = config.spec.name
        before = self._workloads.get(name)
        self._target_search.leave(name)
        if before is not None and before.config.target == config.target:
            before.config = config
            return
        scaler = self.targets.get(config.target) or TargetScaler(config.target, self)
        self.targets[config.target] = scaler
        workload = self._workloads[name] = Workload(config, scaler)
        if before is not None:
            workload.desired, workload.reported = before.desired, before.reported
            workload.begin(before.began_at)
            self._remove(before)
        scaler.set_desired(name, workload.desired)

    def _remove(self, workload: Workload) -> None:
        workload.close()
        workload.scaler.leave(workload.name)
        self._wake_monitor.leave(workload)
        self._target_search.leave(workload.name)
        if not workload.scaler.services:
            workload.scaler.close()
            self.targets.pop(workload.scaler.target, None)

    def _watch(self, kinds: set[tuple[str, str]]) -> None:
        """Watch these kinds, and no others."""
        for gone in self._watches.keys() - kinds:
            del self._watches[gone]
            self._watching.pop(gone).cancel()
        for named in kinds - self._watches.keys():
            changed, turned = partial(self._object_changed, named), partial(self._watch_changed, named)
            watch = ResourceWatch(self.api, self._discovery, named, self._namespaces, changed, turned)
            self._watches[named] = watch
            self._watching[named] = self.spawn(watch.run(), f"watch of {named[1]}")

    # Observations

    def _object_changed(self, named: tuple[str, str], key: str) -> None:
        namespace, _, name = key.partition("/")
        if scaler := self.targets.get(Target(*named, name, namespace)):
            self._examine(scaler)

    def _watch_changed(self, named: tuple[str, str]) -> None:
        for target, scaler in self.targets.items():
            if (target.api_version, target.kind) == named:
                self._examine(scaler)

    def _examine(self, scaler: TargetScaler) -> None:
        """Pass the observed state of a target to its scaler."""
        ref = scaler.target
        watch = self._watches[ref.api_version, ref.kind]
        informer = watch.informer(ref.namespace)
        item = informer.items.get(ref.key) if informer else None
        if watch.resource is None or watch.diagnosis:
            if watch.diagnosis:
                scaler.observer.lost(watch.resource, watch.diagnosis, watch.is_absent)
        elif item is not None:
            version = item.metadata.resource_version
            scaler.found(watch.resource, None if item.replicas is None else ObservedScale(item.replicas, version))
        elif informer and ref.key in informer.unreadable:
            scaler.found(watch.resource, None)
        elif informer and informer.synced:
            scaler.observer.lost(watch.resource, Diagnosis(Reason.TARGET_NOT_FOUND, f"{ref} does not exist"))
        else:
            scaler.observer.expect(watch.resource)

    def _endpoints(self, workload: Workload) -> tuple[PodEndpoint, ...]:
        return self.endpoint_slices.pod_endpoints(workload.config.service_key, workload.config.port.name)

    # Reports

    def _refresh(self, service: str) -> None:
        """Report a service, if it is known and its status changed."""
        if (workload := self._workloads.get(service)) is None:
            return
        scaler = workload.scaler
        is_known = scaler.observer.current or scaler.observer.missing
        if self._closing or not self.endpoint_slices.synced or not (is_known or workload.reported):
            return
        endpoints = self._endpoints(workload)
        usable = workload.routable(endpoints)
        routable = [endpoint for endpoint in usable if not endpoint.starting]
        workload.unmark_later(endpoints, lambda: self._unmark(workload))
        early = self._early_endpoints.usable(workload, usable)
        reachable = self._prober.reachable(workload, routable)
        if early:
            reachable = tuple(sorted({*reachable, *early}))
        diagnosis = self._diagnose(workload, usable, routable, is_reachable=bool(reachable))
        status = WorkloadStatus(
            workload.name,
            _replicas(scaler.observer, routable),
            reachable,
            diagnosis,
            ordered_milestones(workload.milestones),
            item.asks if (item := self._item(scaler)) else UNKNOWN_REQUESTS,
            workload.is_early,
            workload.saved_seconds,
        )
        if status != workload.reported:
            workload.reported = status
            self._report(status)

    def _diagnose(
        self, workload: Workload, usable: Sequence[PodEndpoint], routable: Sequence[PodEndpoint], *, is_reachable: bool
    ) -> Diagnosis | None:
        """Return why a workload is not ready, and start or end the observation of its wake."""
        observer = workload.scaler.observer
        diagnosis = observer.diagnosis
        if not workload.is_waking or is_reachable:
            self._wake_monitor.finish(workload)
        elif observer.has_replicas and (self._diagnoses or workload.runs_probes):
            diagnosis = diagnosis or self._follow_wake(workload, usable, routable)
        else:
            self._wake_monitor.leave(workload)
        if diagnosis and diagnosis.code is Reason.TARGET_NOT_FOUND and self._diagnoses:
            diagnosis = self._target_search.explain(workload.config, diagnosis)
        else:
            self._target_search.leave(workload.name)
        if not (workload.config.has_service or is_reachable):
            return Diagnosis(Reason.SERVICE_NOT_FOUND, f"Service {workload.config.service_key} was deleted")
        return diagnosis

    def _follow_wake(
        self, workload: Workload, usable: Sequence[PodEndpoint], routable: Sequence[PodEndpoint]
    ) -> Diagnosis | None:
        """Probe the pods of a waking workload, and return why it does not become ready, if this replica leads."""
        if not self._diagnoses:
            workload.scaler.observer.find_selector()
        seen = self._wake_monitor.observe(workload)
        self._early_endpoints.probe(workload, usable, seen[0] if seen else ())
        if not self._diagnoses:
            return None
        failures = item.failures if (item := self._item(workload.scaler)) else ()
        return self._wake_monitor.diagnose(workload, seen, failures, bool(routable))

    def _unmark(self, workload: Workload) -> None:
        workload.unmark(self._endpoints(workload))
        self._refresh_soon(workload.name)

    def _item(self, scaler: TargetScaler) -> TargetObject | None:
        ref = scaler.target
        informer = self._watches[ref.api_version, ref.kind].informer(ref.namespace)
        return informer.items.get(ref.key) if informer else None

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("internal error in a task", task=task.get_name(), exc_info=error)


def _replicas(observer: TargetObserver, routable: Sequence[PodEndpoint]) -> int | None:
    """Return the observed replicas of a target, or None if they are unknown."""
    if observer.is_absent:  # while pods exist, assume the replicas that were last observed
        pods = {endpoint.pod for endpoint in routable}
        return (observer.last_replicas or len(pods)) if pods else 0
    return observer.current.replicas if observer.current else None


def _place(config: ServiceConfig) -> tuple[object, ...]:
    """Return the parts of a configuration that the backend depends on."""
    return config.target, config.service, config.port.name, config.readiness, config.busy, config.has_service
