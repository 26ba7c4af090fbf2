"""The runtime on one machine: services of a file as processes, with their records in SQLite.

`zenvoy up` starts it as a process of its own, see `up.py`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from reconciler.app import sample_source
from reconciler.app.admin import EngineOperations
from reconciler.app.runtime import STREAM_CLAIMS, UNKNOWN_SERVICES, BackgroundTasks, Runtime, Served, stream_server
from reconciler.app.shutdown import drain, stop_programs
from reconciler.busy_checks import BusyCheckRunner
from reconciler.concurrency import in_thread
from reconciler.core.address import Address, split_address
from reconciler.core.events import ProgramOutdated
from reconciler.core.record import State, Transition
from reconciler.core.spec import Protocol
from reconciler.core.traffic import Sample
from reconciler.engine.engine import Adapters
from reconciler.engine.hold_addresses import AnyIp
from reconciler.engine.sampling import Sampler
from reconciler.envoy.prometheus.settings import PrometheusSettings
from reconciler.envoy.xds_router import XdsRouter
from reconciler.local.file_watch import load, log_problems, watch
from reconciler.local.listen_addresses import TLS, ListenAddresses, when_free
from reconciler.local.open_files import raise_limit
from reconciler.local.processes.backend import ProcessBackend
from reconciler.local.services_file import FileProblem, ServicesFile
from reconciler.local.sockets import listening_sockets
from reconciler.local.sqlite_store import SqliteStore
from reconciler.local.state_dir import ADMIN_SOCKET, GRPC_SOCKET, NODE, SHORTEN_STOP, StateDir
from reconciler.metrics.metrics import Sources
from reconciler.ports.backend import WorkloadStatus
from reconciler.ports.clock import Clock
from reconciler.ports.holders import HoldStatus
from reconciler.server.admission import Admission
from reconciler.server.holders import HolderStreams
from reconciler.server.http.connections import report_exhaustion
from reconciler.server.http.server import Http

if TYPE_CHECKING:
    from reconciler.server.credentials.material import Files

log = structlog.get_logger()

GRPC_GRACE_SECONDS = 0.2
ANNOUNCE_SECONDS = 0.02
FIRST_ATTEMPT_SECONDS = 1.0
MAX_SHOWN = 20
"""Mistakes of the services file that `status` and `doctor` receive."""


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """The settings that `zenvoy up` hands to the reconciler."""

    file: Path
    state_dir: StateDir
    holder_port: int
    metrics: str | None
    """An `ip:port` for metrics and health."""
    grpc: str | None
    """A further `ip:port` for Envoys and holders."""
    certificates: Files | None = None
    """The certificates of `grpc`; None: it is open, on the loopback device."""
    prometheus: PrometheusSettings | None = None
    """None: samples come from Envoy's admin port."""
    taken: Mapping[str, Address] = field(default_factory=dict)
    """The listen addresses of options of `zenvoy up`, by option; the file cannot use them."""
    umask: int = -1
    """The umask of services; -1: that of this process."""


class LocalRuntime:
    """One reconciler on one machine."""

    def __init__(self, settings: LocalSettings, file: ServicesFile, problems: Sequence[FileProblem] = ()) -> None:
        """`problems` are those of the file on disk, if `file` is its last valid content."""
        self._settings, self._file, self._problems = settings, file, problems
        self._ending = False
        self._faults: Mapping[str, str] = {}
        self._late: list[asyncio.Task[None]] = []
        directory, prometheus = settings.state_dir, settings.prometheus
        pace = sample_source.pace(file.sample_interval, prometheus)
        self._runtime = Runtime(self._sources(), pace, AnyIp(settings.holder_port))
        self.engine = self._runtime.engine
        self._runtime.notifier.on_transition = self._saw
        self._store = SqliteStore(directory.records)
        self._admission = Admission(STREAM_CLAIMS, reserved=frozenset((NODE,)))
        routed, acked = self.engine.routed, self._runtime.metrics.acked
        self._router = XdsRouter(routed, self._rejected, acked, faults=self._found_faults)
        self._holders = HolderStreams(self._held, time.time)
        self._grpc = stream_server(self._router, self._holders, self._admission)
        self._further_grpc = stream_server(self._router, self._holders, self._admission)
        self._listening = ListenAddresses(directory.path)
        self._backend = ProcessBackend(directory.path, self._ran, settings.umask)
        self._busy_checks = BusyCheckRunner(self._backend.ask_busy, self._runtime.answered)
        self._admin = sample_source.admin(lambda: {NODE: Path(ADMIN_SOCKET)})
        self._source = sample_source.prometheus(prometheus, self._router.envoys) if prometheus else self._admin
        spacing = sample_source.spacing(prometheus)
        self._sampler = Sampler(self._sample, file.sample_interval, spacing, Clock(), self._sampled)
        operations = EngineOperations(
            engine=self.engine,
            router=self._router,
            streams=self._holders,
            prometheus=prometheus,
            statistics="Envoy's admin port",
            opened=lambda: self._runtime.opened,
            unready=self.unready,
            machine=self.machine,
        )
        metrics, statistics = self._runtime.metrics, self._admin.prometheus_text
        self._http = Http(operations, metrics.scrape, lambda: statistics(NODE))

    def _sources(self) -> Sources:
        return Sources(
            services=lambda: self.engine.services,
            envoys=lambda: self._router.server.nodes(),
            holders=lambda: self._holders.connected,
            all_holders=lambda: self._holders.connected,
            ready=lambda: self._runtime.opened,
            leads=lambda: True,
            records_failing=lambda: self._store.failing is not None,
            refused_streams=lambda: self._admission.refused,
        )

    # Life

    async def run(self) -> None:
        """Run until SIGTERM, which ends all services. Raises the error of a failed task; then services keep running."""
        report_exhaustion()
        loop, reload, shorten = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        tasks = BackgroundTasks()
        loop.add_signal_handler(signal.SIGHUP, reload.set)
        loop.add_signal_handler(SHORTEN_STOP, shorten.set)
        await self._start()
        tasks.start(
            self._sampler.run(),
            watch(self._settings.file, reload.set),
            self._keep_reloading(reload),
            self._listening.run(lambda: self._file, self._move),
            self._announce(),
        )
        failure = await tasks.until_stopped()
        await tasks.cancel()
        if not failure:
            await self._end_services(shorten)
        await self._close()
        if failure:
            raise failure

    async def _start(self) -> None:
        await self._store.open()
        arm, ask, ask_busy = self._runtime.alarm.arm, self._sampler.ask, self._busy_checks.ask
        adapters = Adapters(self._backend, self._router, self._holders, arm, self._store, ask, ask_busy=ask_busy)
        self._runtime.start(adapters, self._router, self._backend)
        self._apply(self._file)
        before = os.umask(0o177)  # a process that connects there acts as an Envoy or a holder
        try:
            self._grpc.add_insecure_port(f"unix:{GRPC_SOCKET}")
        finally:
            os.umask(before)
        await self._grpc.start()
        Path(GRPC_SOCKET).chmod(0o600)
        await self._http.serve_control(self._settings.state_dir.control)
        await self._start_late()

    async def _start_late(self) -> None:
        """Listen on the addresses of options. If another program has one, the rest starts without it."""
        metrics, further = self._settings.metrics, self._settings.grpc
        if metrics:
            serving = when_free("--metrics", metrics, lambda: self._http.serve_probes(*split_address(metrics)))
            self._late.append(asyncio.create_task(serving))
        if further:
            joining = when_free("--grpc", further, lambda: self._join(further, self._settings.certificates))
            self._late.append(asyncio.create_task(joining))
        if self._late:
            await asyncio.wait(self._late, timeout=FIRST_ATTEMPT_SECONDS)

    async def _join(self, address: str, files: Files | None) -> None:
        """Accept further Envoys and holders."""
        if files is None:
            self._further_grpc.add_insecure_port(address)
            await self._further_grpc.start()
            return
        from reconciler.server.credentials import material  # slow to import, and rarely needed

        try:
            self._further_grpc.add_secure_port(address, material.Server(files.read).credentials)
            await self._further_grpc.start()
        except material.NoCertificates as error:  # they were valid when `up` started
            log.error(
                "failed to listen for further Envoys and holders until the next start", grpc=address, error=str(error)
            )

    async def _announce(self) -> None:
        """Log once connections are accepted."""
        while self._starting():
            await asyncio.sleep(ANNOUNCE_SECONDS)
        log.info("serving", http=self._file.listen_http, tls=self._file.listen_tls, services=len(self._file.services))

    def _starting(self) -> str | None:
        """Return what clients still wait for, or None once they are served at every address in force."""
        if not self._runtime.opened:
            return UNKNOWN_SERVICES
        if not self._router.server.serves(NODE):
            return "Envoy has not applied its listeners yet"
        if not self._holders.connected:
            return "the holder is not connected yet"
        if closed := self._closed_addresses():
            return f"Envoy does not listen on {', '.join(closed)} yet"
        return None

    def _closed_addresses(self) -> list[str]:
        """Return where Envoy does not listen yet: a listener that it has acknowledged may still wait for its routes."""
        has_tls = any(entry.spec.protocol is Protocol.TLS for entry in self._file.services)
        addresses = {at for owner, at in self._listening.served.items() if has_tls or owner != TLS}
        ports = {one.port for one in listening_sockets()}
        return sorted(address for address in addresses if split_address(address)[1] not in ports)

    async def _end_services(self, shorten: asyncio.Event) -> None:
        """Drain and stop all services, while everything else still works."""
        self._ending = True
        shorten.clear()
        await drain(self._backend, self.engine.services, self._admin, lambda: self._router.envoys() - {NODE}, shorten)
        self._runtime.closing = True
        await stop_programs(self._backend, shorten)

    async def _close(self) -> None:
        self._runtime.closing = True
        for task in self._late:
            task.cancel()
        await self._busy_checks.close()
        await self._http.close()
        await self._source.close()
        await self._admin.close()
        await self._router.server.close()
        await asyncio.gather(*(server.stop(GRPC_GRACE_SECONDS) for server in (self._grpc, self._further_grpc)))
        self._backend.leave()
        self._runtime.close()
        await self._store.close()

    # Configuration

    async def _keep_reloading(self, reload: asyncio.Event) -> None:
        while True:
            await reload.wait()
            reload.clear()
            try:
                await self._reload()
            except Exception:
                log.exception("failed to apply the file: this is a bug in zenvoy", file=str(self._settings.file))

    async def _reload(self) -> None:
        settings = self._settings
        copy = settings.state_dir.last_good_of(settings.file)
        file = await in_thread(lambda: load(settings.file, copy, settings.taken), "services file")
        self._problems = [] if isinstance(file, ServicesFile) else file
        if not isinstance(file, ServicesFile):
            log_problems(file)
        elif file == self._file:
            log.info("the file has not changed", file=str(self._settings.file))
            self._listening.retry()
        else:
            async with self._listening.lock:
                await self._listening.probe(file)
                self._apply(file)
            self._listening.retry()
            log.info("the file is applied", file=str(self._settings.file), services=len(file.services))

    def _apply(self, file: ServicesFile) -> None:
        self._listening.choose(file)
        self._runtime.configure([entry.spec for entry in file.services], self._served(file))
        self._sampler.interval = file.sample_interval
        self.engine.pace = sample_source.pace(file.sample_interval, self._settings.prometheus)
        self._file = file
        self._run_programs()
        for name in self._backend.outdated():
            self._renew(name)

    def _run_programs(self) -> None:
        programs = {entry.spec.name: entry.program for entry in self._file.services}
        self._backend.configure(programs, frozenset(self._runtime.lifecycles.removed))

    def _served(self, file: ServicesFile) -> Served:
        """Return the listeners and services of a file, at the addresses that are in force."""
        return Served(*self._listening.routed(file), proxy=file.proxy)

    def _move(self) -> None:
        """Give Envoy other listen addresses for the same file."""
        try:
            self._runtime.route(self._served(self._file))
        except ValueError as error:
            log.error("failed to apply other listen addresses", error=str(error))

    def _renew(self, service: str) -> None:
        """Let a service whose program changed sleep once, so that it wakes as the new one; not one that is paused."""
        if not self.engine.services[service].spec.paused:
            self.engine.command(service, ProgramOutdated("its program changed"))

    # Reports

    def _ran(self, running: WorkloadStatus) -> None:
        self._runtime.ran(running)
        if not self._runtime.opened and self.engine.synced and not self._runtime.closing:
            self._runtime.open()

    def _held(self, held: HoldStatus) -> None:
        """Receive the report of a holder, unless it only describes the holder's own end."""
        if not (self._runtime.closing or (self._ending and held.held is None)):
            self._runtime.held(held)

    async def _sample(self) -> Sample:
        self._runtime.lifecycles.before_sample()
        return await self._source.sample()

    def _sampled(self, sample: Sample) -> None:
        if self._runtime.closing:
            return
        if self._runtime.sampled(sample):
            self._run_programs()

    def _rejected(self, node: str, reason: str) -> None:
        log.error("Envoy rejected a configuration update; keeping the previous one", envoy=node, reason=reason)
        if node == NODE:
            self._listening.distrust()

    def _found_faults(self, faults: Mapping[str, str]) -> None:
        """Log what Envoy rejects of services, once."""
        for name, message in faults.items() - self._faults.items():
            log.error("Envoy rejected part of a service; other services are not affected", service=name, reason=message)
        self._faults = faults

    def _saw(self, transition: Transition) -> None:
        """Replace the program of a service that became idle and whose program changed."""
        if transition.target is State.Idle and transition.service in self._backend.outdated():
            self._renew(transition.service)

    # Facts for the admin API

    def unready(self) -> str | None:
        busy = self._listening.busy
        return self._starting() or (busy[0] if busy else None)

    def machine(self) -> dict[str, Any]:
        """Return the states of the records' file and of listen addresses, and the mistakes in the services file."""
        store, listening = self._store, self._listening
        found = self._problems or self._file.unavailable
        shown = [str(problem) for problem in found[:MAX_SHOWN]]
        return {
            "records": {"failing": store.failing, "setAside": store.set_aside, "unsaved": store.unsaved},
            "listens": {"on": sorted({*listening.served.values()}), "busy": listening.busy},
            "file": {"path": str(self._settings.file), "rejected": bool(self._problems), "problems": shown},
        }


async def run_until_stopped(settings: LocalSettings, file: ServicesFile, problems: Sequence[FileProblem] = ()) -> None:
    """Run one reconciler; `problems` are those of the file on disk, if `file` is its last valid content."""
    raise_limit()
    await LocalRuntime(settings, file, problems).run()
