"""The runtime of a reconciler: the parts that are the same on one machine and in a cluster.

`Runtime` connects the engine with its alarm, its metrics and its log. `stream_server` serves Envoys and holders.
`BackgroundTasks` keeps the process running until it is stopped or a task fails. `local_runtime` and `cluster_runtime`
add the adapters in which a machine and a cluster differ.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import structlog

from reconciler.alarm import SchedulerAlarm
from reconciler.core.busy import BusyAnswer
from reconciler.core.record import Transition
from reconciler.core.spec import Spec
from reconciler.core.traffic import Pace, Sample
from reconciler.engine.engine import Adapters, Engine
from reconciler.engine.hold_addresses import HoldRange
from reconciler.engine.lifecycles import Lifecycles, Programs
from reconciler.engine.service import Wake
from reconciler.envoy.xds_router import CLAIMS as XDS_CLAIMS
from reconciler.envoy.xds_router import DEFAULT_PROXY, XdsRouter, grpc_options
from reconciler.local.open_files import limit
from reconciler.metrics.metrics import Metrics, Sources
from reconciler.ports.backend import WorkloadStatus
from reconciler.ports.clock import Clock
from reconciler.ports.holders import HoldStatus
from reconciler.ports.router import ProxySettings
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


def stream_server(router: XdsRouter, holders: HolderStreams, admission: Admission) -> grpc.aio.Server:
    """Return a gRPC server, not started, for the xDS and holder streams; `admission` decides who may open one."""
    server = grpc.aio.server(options=grpc_options(limit("soft")), interceptors=(admission,))
    server.add_generic_rpc_handlers((router.server.handler(), holders.handler()))
    return server


class TransitionNotifier:
    """Reports each transition and wake once: as log line, as metric, and to a further listener.

    Nothing here decides anything, and no client waits for it: it reports after the effects of a transition.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.on_transition: Callable[[Transition], None] = lambda _: None
        self.on_wake: Callable[[str, Wake], None] = lambda _, __: None
        self._log = structlog.get_logger().bind()  # bound once: a wake writes four lines, and binding costs as much

    def saw(self, transition: Transition) -> None:
        """Report a transition in the next turn of the loop, after its effects."""
        asyncio.get_running_loop().call_soon(self._notify, transition)

    def woke(self, service: str, wake: Wake) -> None:
        """Report a wake that is over."""
        total, parts = wake.total(), wake.parts()
        self._metrics.woke(service, total, parts)
        self._log.info("woken", service=service, total=total, parts=parts, peer=wake.peer)
        self.on_wake(service, wake)

    def _notify(self, transition: Transition) -> None:
        self._metrics.saw(transition)
        self._log.info(
            "transition",
            service=transition.service,
            source=transition.source.value,
            target=transition.target.value,
            reason=transition.reason,
            cause=transition.event,
            **({"reference": transition.reference} if transition.reference else {}),
        )
        self.on_transition(transition)


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
        """Answer Envoys from now on. Call it once all services, routes, and messages exist: see `_tune_gc`."""
        self.opened = True
        self._router.server.open()
        _tune_gc()

    # Inputs

    def ran(self, running: WorkloadStatus) -> None:
        """Receive the status of a workload."""
        if not self.closing:
            self.engine.ran(running)
            self.metrics.ran(running.service)

    def held(self, held: HoldStatus) -> None:
        """Receive the held and relayed connections of a service."""
        self.engine.held(held)
        self.metrics.held(held)

    def answered(self, service: str, answer: BusyAnswer) -> None:
        """Receive the answer of a busy check."""
        if not self.closing:
            self.engine.answered(service, answer)

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
        self._failure: BaseException | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stopped.set)

    def start(self, *coroutines: Coroutine[Any, Any, None]) -> list[asyncio.Task[None]]:
        """Run these until they end, fail, or are cancelled; return their tasks."""
        tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
        for task in tasks:
            task.add_done_callback(self._on_end)
        self._tasks += tasks
        return tasks

    async def until_stopped(self) -> BaseException | None:
        """Wait for a signal or a failure; return the failure."""
        await self._stopped.wait()
        return self._failure

    async def cancel(self) -> None:
        """End all tasks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._failure = self._failure or error
            self._stopped.set()


def _tune_gc() -> None:
    """Exempt all present objects from garbage collection, and collect less often.

    With many services, scanning them takes a third of each wake on average. Later cycles, such as those that stamina
    leaves at each call to the API server, are still collected. Present objects in a cycle never are; they are the most
    that this can lose.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 10, 10)
