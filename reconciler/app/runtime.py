"""The runtime of a reconciler: the parts that are the same on one machine and in a cluster.

`Runtime` connects the engine with its alarm, its metrics and its log. `StreamServer` serves Envoys and holders.
`BackgroundTasks` keeps the process running until it is stopped or a task fails. `local_runtime` and `cluster_runtime`
add the adapters in which a machine and a cluster differ.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import structlog

from reconciler.alarm import SchedulerAlarm
from reconciler.app.notifier import TransitionNotifier
from reconciler.core.busy import BusyAnswer
from reconciler.core.spec import Spec
from reconciler.core.traffic import Pace, Sample
from reconciler.engine.engine import Adapters, Engine
from reconciler.engine.hold_addresses import HoldRange
from reconciler.engine.lifecycles import Lifecycles, Programs
from reconciler.envoy.xds_router import CLAIMS as XDS_CLAIMS
from reconciler.envoy.xds_router import DEFAULT_PROXY, FORGET_SECONDS, XdsRouter, grpc_options
from reconciler.local.open_files import limit
from reconciler.metrics import Metrics, Sources
from reconciler.ports.backend import WorkloadStatus
from reconciler.ports.clock import Clock
from reconciler.ports.holders import HoldStatus
from reconciler.ports.proxy import ProxySettings
from reconciler.ports.replicas import RecordProgress
from reconciler.ports.router import RouteState
from reconciler.server.admission import Admission, Claims
from reconciler.server.holders import CLAIMS as HOLDER_CLAIMS
from reconciler.server.holders import HolderStreams

log = structlog.get_logger()

STREAM_CLAIMS: Claims = {**XDS_CLAIMS, **HOLDER_CLAIMS}
"""The gRPC methods of Envoys and holders, with the roles that may call them."""
UNKNOWN_SERVICES = "not all services are known yet"
"""The reason why a runtime that is not `opened` is not ready."""
GC_ALLOCATIONS = 20_000
"""Allocations between two garbage collections. Python's default, 700, is a fraction of one wake."""


@dataclass(frozen=True, slots=True)
class Reports:
    """The receivers of reports from Envoys and holders."""

    routed: Callable[[RouteState], None]
    held: Callable[[HoldStatus], None]
    rejected: Callable[[str, str], None]
    """Receives the node id of an Envoy that rejected an update, and Envoy's message."""
    faults: Callable[[Mapping[str, str]], None]
    """Receives what Envoys reject, by service, whenever it changes."""
    joined: Callable[[], None] = lambda: None
    """Called when an Envoy or a holder connects or disconnects, before any other report of it."""


@dataclass(frozen=True, slots=True)
class Served:
    """The listeners and services that Envoys receive."""

    http: str | None
    """`ip:port` of the listener for HTTP."""
    tls: str | None
    """`ip:port` of the listener for TLS."""
    specs: Sequence[Spec]
    unreachable: Sequence[Spec] = ()
    """Services without a listener; connections to them continue."""
    proxy: ProxySettings = DEFAULT_PROXY
    """The settings of the listeners."""


class StreamServer:
    """The xDS and holder streams; `admission` decides who may open one."""

    def __init__(
        self,
        reports: Reports,
        acknowledged: Callable[[str], None],
        admission: Admission,
        forget_seconds: float = FORGET_SECONDS,
    ) -> None:
        """`forget_seconds` is the time after which a disconnected Envoy or holder is no longer expected."""
        self._admission = admission
        self._servers: list[grpc.aio.Server] = []
        self.router = XdsRouter(
            reports.routed,
            time.monotonic,
            reports.rejected,
            acknowledged,
            reports.joined,
            forget_seconds,
            reports.faults,
        )
        self.holders = HolderStreams(reports.held, time.time, forget_seconds, reports.joined)

    def add_server(self, *handlers: grpc.GenericRpcHandler) -> grpc.aio.Server:
        """Return a gRPC server, not started, for the streams and for further handlers."""
        server = grpc.aio.server(options=grpc_options(limit("soft")), interceptors=(self._admission,))
        server.add_generic_rpc_handlers((self.router.handler(), self.holders.handler(), *handlers))
        self._servers.append(server)
        return server

    async def close(self, grace_seconds: float) -> None:
        """Close all streams and servers."""
        await self.router.close()
        await asyncio.gather(*(server.stop(grace_seconds) for server in self._servers))


class Runtime:
    """The engine, its inputs, and its observers. Inputs may arrive before `start`, which connects the outputs."""

    def __init__(self, sources: Sources, pace: Pace, hold: HoldRange) -> None:
        self._sources = sources
        self.metrics = Metrics(sources)
        self.notifier = TransitionNotifier(self.metrics)
        self._clock = Clock()
        self.engine = Engine(self._clock, pace, hold, self.notifier)
        self.alarm = SchedulerAlarm(self.engine.passed)
        self.opened = False
        """True once Envoys are answered."""
        self.closing = False
        """True while the process ends: reports then describe the end, not the services."""
        self._served: Served | None = None

    def start(self, adapters: Adapters, router: XdsRouter, programs: Programs | None = None) -> None:
        """Start timers and metrics, and restore the records. Without `programs`, no program is replaced here."""
        self._router = router
        self.lifecycles = Lifecycles(self._clock, self.engine, router.envoys, programs)
        self.alarm.start()
        self.metrics.start()
        self.engine.start(adapters)

    def configure(self, specs: Sequence[Spec], served: Served) -> None:
        """Replace all services. Raises `ValueError` if none can be served; the engine then keeps the present ones.

        Routes come first: a new service is routed before it runs, and a removed one loses its route before it stops.
        """
        self.lifecycles.configure(specs)
        self.route(served)
        self.engine.configure(specs)
        self.metrics.configured()

    def route(self, served: Served) -> None:
        """Send Envoys the listeners, the services, and removed services that are still in use. Raises `ValueError`."""
        present = {spec.name for spec in (*served.specs, *served.unreachable)}
        removed = [spec for name, spec in self.lifecycles.removed.items() if name not in present]
        self._router.configure(served.http, served.tls, served.specs, [*served.unreachable, *removed], served.proxy)
        self._served = served

    def open(self) -> None:
        """Answer Envoys from now on."""
        self.opened = True
        self._router.open()

    # Inputs

    def ran(self, running: WorkloadStatus) -> None:
        """Receive the status of a workload."""
        if not self.closing:
            self.engine.ran(running)
            self.metrics.ran(running.service)

    def routed(self, state: RouteState) -> None:
        """Receive the state of a route."""
        self.engine.routed(state)

    def held(self, held: HoldStatus) -> None:
        """Receive the held and relayed connections of a service."""
        self.engine.held(held)
        self.metrics.held(held)

    def answered(self, service: str, answer: BusyAnswer) -> None:
        """Receive the answer of a busy check."""
        if not self.closing:
            self.engine.answered(service, answer)

    def record_progress(self, name: str) -> RecordProgress | None:
        """Return the progress of a service at this replica."""
        return self.engine.record_progress(name)

    def sampled(self, sample: Sample) -> bool:
        """Receive a sample; return whether it completes the removal of a service, whose route then ends."""
        if self._sources.leads():
            self.engine.sampled(sample)
            self.metrics.sampled(sample, self.engine.unknown)
        if self._served is None or not self.lifecycles.sampled(sample):
            return False
        try:
            self.route(self._served)
        except ValueError as error:
            log.error("failed to remove services from Envoy", error=str(error))
        return True

    def close(self) -> None:
        """Stop timers and metrics."""
        self.alarm.close()
        self.metrics.close()


class BackgroundTasks:
    """Long-running tasks of the process. The first one that fails stops the process."""

    def __init__(self) -> None:
        """Needs a running loop; SIGTERM and SIGINT stop the process from now on."""
        self._stopped = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stopped.set)

    def start(self, *coroutines: Coroutine[Any, Any, None]) -> None:
        """Run these until they end, fail, or are cancelled."""
        for coroutine in coroutines:
            self.start_one(coroutine)

    def start_one(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run one coroutine, and return its task."""
        task = asyncio.create_task(coroutine)
        task.add_done_callback(self._on_end)
        self._tasks.append(task)
        return task

    async def until_stopped(self) -> BaseException | None:
        """Wait for a signal or a failure; return the failure."""
        await self._stopped.wait()
        return self.failure()

    async def cancel(self) -> None:
        """End all tasks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def failure(self) -> BaseException | None:
        """Return the error of the first task that failed."""
        return next(iter(_errors(self._tasks)), None)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if _errors([task]):
            self._stopped.set()


def tune_gc() -> None:
    """Exempt all present objects from garbage collection, and collect less often.

    Call it once services, routes, and messages exist. With many services, scanning them takes a fifth of each wake.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 10, 10)


def _errors(tasks: Iterable[asyncio.Task[None]]) -> list[BaseException]:
    ended = [task for task in tasks if task.done() and not task.cancelled()]
    return [error for task in ended if (error := task.exception())]
