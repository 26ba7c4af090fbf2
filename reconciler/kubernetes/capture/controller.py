"""A controller that captures Services: new connections to a captured Service reach a proxy.

Every replica observes, and keeps a service awake while callers may reach its pods without the proxy. Only the leader
writes, one step of `plan.py` at a time; the informers report its result, which leads to the next step. Counterparts:
`config/capture.py`, which decides what can be captured; `status/finalizer.py`, which waits for the release of a Service
before its ScaledService goes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from itertools import chain

import structlog

from reconciler.concurrency import NextTurn
from reconciler.core.reasons import Blocker, Problem, Reason
from reconciler.kubernetes.capture import requests
from reconciler.kubernetes.capture.observer import CaptureObserver, CaptureSources
from reconciler.kubernetes.capture.plan import (
    Action,
    CaptureObjects,
    RequiredObjects,
    Wait,
    next_to_capture,
    next_to_release,
    without_proxy,
)
from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.errors import CONFLICT, NOT_FOUND, ApiError, is_namespace_terminating, is_transient
from reconciler.kubernetes.client.work_queue import DEFAULT_TIMING, WorkQueue, WorkQueueTiming
from reconciler.kubernetes.config.capture import NO_CAPTURE, TURN_OFF, CaptureStatus, companion_of
from reconciler.kubernetes.config.conflicts import listen_port
from reconciler.kubernetes.config.resolve import service_of
from reconciler.kubernetes.config.service_config import ServiceConfig
from reconciler.kubernetes.types.builtin import SERVICES, Service
from reconciler.kubernetes.types.scaled_service import CAPTURED, ScaledService

log = structlog.get_logger(__name__)

SETTLE_SECONDS = 10.0
"""Time after which every node has applied a change of EndpointSlices; Kubernetes does not report when."""
POLL_SECONDS = 0.05
TRY_AGAIN_SECONDS = 1.0
"""Delay before a step is made again after another program changed its object."""
DIAL_AGAIN_SECONDS = 5.0
"""Delay before a proxy that did not answer is dialed again."""
IN_PROGRESS = "InProgress"
"""The reason of the condition while a Service is not captured yet."""
_ADDS_PROXIES = (Action.WRITE_SLICES, Action.HIDE_PODS)
"""Steps after which more callers reach the proxies."""


class PortAssignments:
    """Ports of the proxies for captured Services, one for each ScaledService.

    The status of a ScaledService keeps its port, so that all replicas configure the same listener. A port is reused as
    late as possible: nodes may still lead callers of its former Service to it.
    """

    def __init__(self, ports: range) -> None:
        self._range = ports
        self._latest = ports.start - 1
        self._ports: dict[str, int] = {}
        """The port of each ScaledService, also before its status shows it."""
        self._taken: set[int] = set()
        """The ports of `_ports`: a replica that starts asks for each of thousands whether it is assigned."""

    def assigned(self, name: str) -> int:
        """Return the port of a ScaledService; 0 if it has none."""
        return self._ports.get(name, 0)

    def assign(self, name: str, in_use: Collection[int] = ()) -> None:
        """Assign a port that is neither assigned nor in use to a ScaledService that has none, if there is one."""
        if self.assigned(name):
            return
        ports = chain(range(self._latest + 1, self._range.stop), self._range)
        if port := next((port for port in ports if port not in self._taken and port not in in_use), 0):
            self._take(name, port)
            self._latest = port

    def saw(self, name: str, item: ScaledService | None) -> None:
        """Note the port in a status, or that its ScaledService is gone. The port of another one is not taken over."""
        port, before = item.status.capture_port if item else 0, self.assigned(name)
        if port == before or (item and before and not port):
            return  # an assignment that is not written yet stays
        self.free(name)
        if port in self._range and port not in self._taken:
            self._take(name, port)
            self._latest = max(self._latest, port)

    def free(self, name: str) -> None:
        """Take its port from a ScaledService."""
        self._taken.discard(self._ports.pop(name, 0))

    def _take(self, name: str, port: int) -> None:
        self._ports[name] = port
        self._taken.add(port)


class CaptureController:
    """Captures Services and releases them. Keys are those of Services, as `namespace/name`.

    `on_status` is called with a ScaledService and its status, `on_blocker` with the reason to keep it awake, or None.
    """

    def __init__(
        self,
        api: Api,
        sources: CaptureSources,
        leads: Callable[[], bool],
        on_status: Callable[[str, CaptureStatus], None],
        on_blocker: Callable[[str, Blocker | None], None],
        timing: WorkQueueTiming = DEFAULT_TIMING,
        settle: float = SETTLE_SECONDS,
    ) -> None:
        self._api, self._leads = api, leads
        self._services, self._scaled = sources.provider.services.items, sources.provider.scaled_services.items
        self._users = sources.provider.users
        self._on_status, self._on_blocker, self._settle = on_status, on_blocker, settle
        self._observer = CaptureObserver(api, sources, self.look_at_all)
        self._ports = PortAssignments(sources.ports)
        self._service_of: dict[str, str] = {}
        """The Service of each ScaledService that wants a capture, or did, by the key of the ScaledService."""
        self._listens: dict[str, int] | None = None
        """The port of the proxies for a ScaledService in the configuration in force; None before that is known."""
        self._hidden_since: dict[str, float] = {}
        """Time since which no pod is an endpoint of a captured Service, by a monotonic clock."""
        self._released_since: dict[str, float] = {}
        """Time since which only pods are endpoints of a Service that was captured, by the same clock."""
        self._refused: dict[str, str] = {}
        """The message of the API server's refusal, by Service."""
        self._silent: dict[str, str] = {}
        """A proxy that did not answer a dial, by Service."""
        self._look_soon = NextTurn(self.look).add
        """Observes a Service once, however many of its objects change together: many ScaledServices may name it."""
        self._queue = WorkQueue(self._reconcile, "failed to capture or release a Service, retrying", timing)
        sources.slices.listeners.append(self._look_soon)

    # Inputs

    def saw(self, name: str, item: ScaledService | None) -> None:
        """Handle a new version of a ScaledService; None if it is gone."""
        self._ports.saw(name, item)
        before = self._service_of.pop(name, "")
        if item is None:
            self._on_blocker(name, None)
        elif item.spec.capture or item.status.capture_port or before:
            self._service_of[name] = service_of(item)
        for key in filter(None, {before, self._service_of.get(name)}):
            self._look_soon(key)

    def saw_service(self, key: str, service: Service | None) -> None:
        """Handle a new version of a Service; None if it is gone."""
        self._look_soon((service.captured if service else "") or key)

    def configure(self, configs: Mapping[str, ServiceConfig]) -> None:
        """Set the configurations in force."""
        captured = {name: config.spec for name, config in configs.items() if config.capture is not NO_CAPTURE}
        listens = {name: listen_port(spec) for name, spec in captured.items() if spec.listen}
        before, self._listens = self._listens or {}, listens
        changed = {name for name in listens.keys() | before if listens.get(name) != before.get(name)}
        for key in {self._service_of[name] for name in changed & self._service_of.keys()}:
            self.look(key)

    async def run(self) -> None:
        """Watch the proxies, and write, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._observer.run())
            while not self._is_synced():
                await asyncio.sleep(POLL_SECONDS)
            self.look_at_all()
            await self._queue.run()

    def look_at_all(self) -> None:
        """Observe all Services that are captured, were, or are to be."""
        services = self._services.items()
        captured = {service.captured or key for key, service in services if service.captured or service.is_captured}
        for key in captured | set(self._service_of.values()):
            self.look(key)

    def look(self, key: str) -> None:
        """Observe a Service, report, and queue its next step, if this replica leads."""
        if isinstance(self._report(key), Action) and self._leads():
            self._queue.add(key)

    # Deletion of a ScaledService

    def blocker(self, name: str) -> str | None:
        """Return why a ScaledService that is being deleted may not go yet, for people; None if it may."""
        key = self._service_of.get(name, "")
        service = self._services.get(key)
        if service is None:
            return None
        step = self._next(service, self._observer.owner(key), self._observer.observe(service))
        if step is not None:
            return f"Service {key} is captured: {step.reason if isinstance(step, Wait) else step}"
        return "nodes may still lead callers of its Service to the proxies" if self._ports.assigned(name) else None

    async def release(self, item: ScaledService) -> None:
        """Give the pods back to the Service of a ScaledService that goes now. Raises `ApiError` and `Unreachable`."""
        service = self._services.get(service_of(item))
        if service and service.is_captured and self._observer.owner(service.metadata.key) is None:
            await requests.set_hidden(self._api, service, hidden=False)

    # Decisions

    def _is_synced(self) -> bool:
        return self._listens is not None and self._observer.synced

    def _is_relevant(self, key: str, service: Service) -> bool:
        """Return whether a Service is captured, was, or is to be. Most are not, and their endpoints change often."""
        users = self._users(key)
        return (
            service.is_captured
            or any(name in self._service_of for name in users)
            or bool(self._observer.companion(key) or self._observer.proxy_slices(key))
        )

    def _next(self, service: Service, owner: ScaledService | None, seen: CaptureObjects) -> Action | Wait | None:
        key = service.metadata.key
        if owner is None:
            # Until its pods are ready, callers wake it at the proxies.
            former = self._former_owner(service)
            required = self._required(former, service) if former else None
            return next_to_release(seen, bool(self._users(key)), required)
        if companion_of(key) in self._services and self._observer.companion(key) is None:
            return Wait(f"Service {companion_of(key)} exists, and zenvoy did not create it; rename it")
        port = self._ports.assigned(owner.metadata.key)
        if port == 0:
            return without_proxy(seen, "every port of the proxy for captured Services is in use")
        if not self._has_listener(owner.metadata.key):
            return without_proxy(seen, f"the proxies do not listen on port {port}")
        return next_to_capture(seen, self._required(owner, service))

    def _has_listener(self, name: str) -> bool:
        """Return whether the proxies listen on the port of a ScaledService."""
        port = self._ports.assigned(name)
        return port != 0 and (self._listens or {}).get(name) == port

    def _former_owner(self, service: Service) -> ScaledService | None:
        """Return a ScaledService that captured a Service, and on whose port the proxies still listen."""
        users = [name for name in self._users(service.metadata.key) if self._has_listener(name)]
        return self._scaled.get(users[0]) if users and len(service.spec.ports) == 1 else None

    def _note_settled(self, since: dict[str, float], key: str, holds: bool) -> bool:
        """Note since when something holds, and return whether every node has applied it; look again once it has."""
        if not holds:
            since.pop(key, None)
            return False
        now = time.monotonic()
        if key not in since:
            since[key] = now
            asyncio.get_running_loop().call_later(self._settle, self._look_soon, key)
        return now - since[key] >= self._settle

    def _free_ports(self, key: str, owner: ScaledService | None, is_done: bool) -> None:
        """Free the ports of ScaledServices for which a Service is not captured, once no caller is led to them."""
        users = [name for name in self._users(key) if self._ports.assigned(name)]
        freed = [name for name in users if owner is None or owner.metadata.key != name]
        if self._note_settled(self._released_since, key, holds=is_done and bool(freed)):
            for name in freed:
                self._ports.free(name)

    # Reports

    def _report(self, key: str) -> Action | Wait | None:
        """Observe a Service, report to the ScaledServices that name it, and return the next step."""
        service = self._services.get(key)
        if service is None or not self._is_relevant(key, service):
            return None
        owner = self._observer.owner(key)
        if owner and self._leads():
            self._ports.assign(owner.metadata.key, (self._listens or {}).values())
        seen = self._observer.observe(service)
        step = self._next(service, owner, seen) if self._is_synced() else Wait("not observed yet")
        is_closed = self._note_settled(self._hidden_since, key, holds=self._is_synced() and seen.is_closed)
        self._free_ports(key, owner, is_done=step is None)
        for name in self._users(key):
            self._report_to(name, key, owner, step, is_closed)
        return step

    def _report_to(
        self, name: str, key: str, owner: ScaledService | None, step: Action | Wait | None, is_closed: bool
    ) -> None:
        """Report the capture of a Service to one of the ScaledServices that name it.

        `is_closed` is True if no caller reaches its pods without the proxy.
        """
        item = self._scaled[name]
        capture, port = self._observer.capture(item), self._ports.assigned(name)
        if not capture.wanted:
            self._on_status(name, CaptureStatus(port=port))
            self._on_blocker(name, None)
            return
        problem = capture.problem
        if problem is None and owner is not None and owner.metadata.key != name:
            what = f"{owner.metadata.key}, which is older, captures the same Service"
            problem = Problem(Reason.CAPTURE_TAKEN, "spec.capture", what, TURN_OFF)
        self._on_status(name, self._status(key, port, problem, step))
        message = f"callers of Service {key} may reach its pods without the proxy"
        self._on_blocker(name, None if is_closed else Blocker(Reason.BYPASSED, message))

    def _status(self, key: str, port: int, problem: Problem | None, step: Action | Wait | None) -> CaptureStatus:
        if problem:
            return CaptureStatus(False, problem.reason, f"{problem.message}; {problem.remedy}", port)
        if refused := self._refused.get(key):
            return CaptureStatus(False, Reason.REFUSED, f"refused by the API server: {refused}", port)
        if key in self._hidden_since and not isinstance(step, Wait):
            return CaptureStatus(True, CAPTURED, f"new connections to Service {key} reach a proxy", port)
        silent = self._silent.get(key) if step in _ADDS_PROXIES else None
        text = silent or (step.reason if isinstance(step, Wait) else f"next: {step}")
        return CaptureStatus(False, IN_PROGRESS, text, port)

    # Writes

    async def _reconcile(self, key: str) -> None:
        """Write the next step for one Service, if this replica leads."""
        service = self._services.get(key)
        if service is None:
            return
        owner = self._observer.owner(key)
        step = self._next(service, owner, self._observer.observe(service))
        if not isinstance(step, Action):
            return
        if not self._leads():
            self._queue.add_after(key)
            return
        user = owner or self._former_owner(service)
        try:
            if await self._may_write(step, service, user):
                await self._write(step, service, user)
        except ApiError as error:
            if error.status in (NOT_FOUND, CONFLICT) or is_namespace_terminating(error):
                self._queue.add_after(key, TRY_AGAIN_SECONDS)  # the informers are about to report that change
                return
            if not is_transient(error):
                self._refused[key] = error.message
                self._report(key)  # without queueing it: the queue waits before it tries again
            raise
        if self._refused.pop(key, None):
            self.look(key)

    async def _may_write(self, step: Action, service: Service, user: ScaledService | None) -> bool:
        """Return whether a step leaves callers with an endpoint; otherwise queue the Service again.

        An informer may be late, so a step that takes endpoints away is confirmed by what the API server has.
        """
        key = service.metadata.key
        if step in _ADDS_PROXIES and user and not service.is_captured:
            if silent := await requests.silent_proxy(self._required(user, service).slices):
                self._silent[key] = f"no answer from {silent}"
                self._report(key)
                self._queue.add_after(key, DIAL_AGAIN_SECONDS)
                return False
            self._silent.pop(key, None)
        if step.breaks:
            read = await self._observer.read(key)
            if read is None or self._next(read[0], self._observer.owner(key), read[1]) is not step:
                self._queue.add_after(key, TRY_AGAIN_SECONDS)
                return False
        return True

    async def _write(self, step: Action, service: Service, user: ScaledService | None) -> None:
        key, namespace = service.metadata.key, service.metadata.namespace
        companion = self._observer.companion(key)
        match step:
            case Action.WRITE_COMPANION if user:
                body = self._required(user, service).companion
                await requests.write(self._api, SERVICES, namespace, body, companion)
            case Action.WRITE_SLICES if user:
                bodies = self._required(user, service).slices
                await requests.write_slices(self._api, namespace, bodies, self._observer.proxy_slices(key))
            case Action.HIDE_PODS | Action.SHOW_PODS:
                await requests.set_hidden(self._api, service, hidden=step is Action.HIDE_PODS)
                log.info(str(step), service=key)
            case Action.DELETE_SLICES:
                await requests.delete_slices(self._api, self._observer.proxy_slices(key))
            case Action.DELETE_COMPANION if companion:
                await requests.delete(self._api, SERVICES, companion.metadata)

    def _required(self, owner: ScaledService, service: Service) -> RequiredObjects:
        return self._observer.required(owner, service, self._ports.assigned(owner.metadata.key))
