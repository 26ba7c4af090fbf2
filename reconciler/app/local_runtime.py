"""The reconciler process of `zenvoy up`: every part made, wired, started, and ended in order."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import structlog

from reconciler.alarm import Alarm
from reconciler.app import sample_source
from reconciler.app.admin import ENVOY, EngineOperations
from reconciler.app.gc_tuning import settle_memory
from reconciler.app.leaving import Leaving
from reconciler.app.renewal import Renewal
from reconciler.app.shutdown import Drain, stop_programs
from reconciler.core.events import SleepCommanded
from reconciler.core.record import State
from reconciler.core.spec import Protocol
from reconciler.core.traffic import Sample
from reconciler.engine.engine import Adapters, Engine
from reconciler.engine.sampling import Sampler
from reconciler.engine.wake import Wake
from reconciler.envoy.prometheus.settings import PrometheusSettings
from reconciler.envoy.xds_router import CLAIMS as XDS_CLAIMS
from reconciler.envoy.xds_router import XdsRouter, grpc_options
from reconciler.local.file_watch import watch
from reconciler.local.last_good import look, tell
from reconciler.local.listen_addresses import TLS, Listening, when_free
from reconciler.local.open_files import limit, raise_limit
from reconciler.local.processes import ProcessBackend
from reconciler.local.services_file import ServicesFile
from reconciler.local.services_file.addresses import Address
from reconciler.local.sockets import joined, listened_on, split
from reconciler.local.sqlite_store import SqliteStore
from reconciler.local.state_dir import ADMIN_SOCKET, GRPC_SOCKET, HURRY, NODE, StateDir
from reconciler.metrics import Metrics, World
from reconciler.ports.backend import Running
from reconciler.ports.holders import Held
from reconciler.ports.transitions import Transition
from reconciler.server.admission import Admission
from reconciler.server.holders import CLAIMS as HOLDER_CLAIMS
from reconciler.server.holders import HolderStreams
from reconciler.server.http import Http, report_exhaustion
from reconciler.threads import in_thread

if TYPE_CHECKING:
    from reconciler.server.credentials import Files

log = structlog.get_logger()

GRPC_GRACE_SECONDS = 0.2
ANNOUNCE_SECONDS = 0.02
FIRST_ATTEMPT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What the supervisor tells the reconciler."""

    file: Path
    state_dir: StateDir
    holder_port: int
    metrics: tuple[str, int] | None
    grpc: str | None
    """A further `ip:port` for Envoys and holders to join at."""
    certificates: Files | None = None
    """Of that; None: it is open, and on the loopback device."""
    prometheus: PrometheusSettings | None = None
    """None: Envoy's admin port says what is in use."""
    taken: Mapping[str, Address] = field(default_factory=dict)
    """What options of `zenvoy up` have, by option: nothing of the file can listen there."""
    umask: int = -1
    """That of services; -1: ours."""


def anyip(index: int, port: int) -> str:
    """The hold address of that index: 127.64.0.0/10, all of which Linux delivers to one socket."""
    index %= 1 << 22
    return f"127.{64 + (index >> 16)}.{index >> 8 & 255}.{index & 255}:{port}"


class Reconciler:
    """One reconciler on one machine."""

    def __init__(self, settings: Settings, file: ServicesFile) -> None:
        self._settings, self._file = settings, file
        self._log = log.bind()  # bound once: a wake writes four lines, and binding costs as much as writing one
        self._opened = self._ending = self._closing = False
        self._faults: Mapping[str, str] = {}
        pace = sample_source.pace(file.sample_interval, settings.prometheus)
        self.engine = Engine(time.time, pace, lambda index: anyip(index, settings.holder_port), self._saw, self._woke)
        directory = settings.state_dir
        self._store = SqliteStore(directory.records)
        self._alarm = Alarm(self.engine.passed)
        self._metrics = Metrics(self._world())
        self._holders = HolderStreams(self._held, time.time)
        acked = self._metrics.acked
        self._router = XdsRouter(self.engine.routed, time.monotonic, self._rejected, acked, faults=self._found_faults)
        self._listening = Listening(directory.path)
        self._backend = ProcessBackend(directory.path, self._ran, settings.umask)
        self._leaving = Leaving(time.time, time.monotonic, self._router.envoys)
        self._renewal = Renewal(time.time, time.monotonic, self._backend, self.engine.services, self._router.envoys)
        self._admin = sample_source.admin(NODE, Path(ADMIN_SOCKET))
        asked = settings.prometheus
        self._source = sample_source.prometheus(asked, self._router.envoys) if asked else self._admin
        self._sampler = Sampler(self, file.sample_interval, sample_source.spacing(asked), time.time, self._sampled)
        source = f"Prometheus at {asked.url}" if asked else ENVOY
        operations = EngineOperations(
            self.engine,
            self._router,
            self._holders,
            lambda: self._opened,
            source,
            records=self._records,
            listens=self._listens_at,
        )
        self._http = Http(operations, self._metrics.scrape, lambda: self._admin.prometheus_text(NODE))
        self._admission = Admission({**XDS_CLAIMS, **HOLDER_CLAIMS}, reserved=frozenset((NODE,)))
        self._grpc, self._further_grpc = self._grpc_server(), self._grpc_server()
        self._late: list[asyncio.Task[None]] = []

    def _world(self) -> World:
        """What metrics look at."""
        return World(
            services=lambda: self.engine.services,
            envoys=lambda: self._router.nodes(),
            holders=lambda: self._holders.connected,
            all_holders=lambda: self._holders.connected,
            ready=lambda: self._opened,
            leads=lambda: True,
            now=time.time,
            ticks=time.monotonic,
            records_failing=lambda: self._store.failing is not None,
            refused_streams=lambda: self._admission.refused,
        )

    def _listens_at(self) -> dict[str, Any]:
        """Return the listen addresses in force, and what is said of those that another program has."""
        listening = self._listening
        return {"on": sorted({*listening.served.values()}), "busy": [str(busy) for busy in listening.busy]}

    def _records(self) -> dict[str, Any]:
        """What people are told of the file with the records."""
        store = self._store
        return {"failing": store.failing, "setAside": store.set_aside, "unsaved": store.unsaved}

    async def run(self) -> None:
        """Until SIGTERM, with which services end. Raises what broke; services then go on, and are the next one's."""
        stopped, reload, hurry = asyncio.Event(), asyncio.Event(), asyncio.Event()
        report_exhaustion()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stopped.set)
        loop.add_signal_handler(signal.SIGINT, stopped.set)
        loop.add_signal_handler(signal.SIGHUP, reload.set)
        loop.add_signal_handler(HURRY, hurry.set)
        await self._start()
        tasks = [
            asyncio.create_task(self._sampler.run()),
            asyncio.create_task(watch(self._settings.file, reload.set)),
            asyncio.create_task(self._keep_reloading(reload)),
            asyncio.create_task(self._listening.run(lambda: self._file, self._move)),
        ]
        for task in tasks:
            task.add_done_callback(lambda _: stopped.set())
        announcing = asyncio.create_task(self._announce())
        await stopped.wait()
        for task in (*tasks, announcing):
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        faults = [result for result in results if isinstance(result, Exception)]
        if not faults:
            await self._end_services(hurry)
        await self._close()
        if faults:
            raise faults[0]

    async def _end_services(self, hurry: asyncio.Event) -> None:
        """End all services in order, while everything else still works."""
        self._ending = True
        hurry.clear()
        backend, services = self._backend, self.engine.services
        drain = Drain(backend, services, self._admin, lambda: self._router.envoys() - {NODE}, time.monotonic)
        await drain.run(hurry)
        self._closing = True
        await stop_programs(backend, hurry, time.monotonic)

    async def _start(self) -> None:
        self._alarm.start()
        self._metrics.start()
        await self._store.open()
        adapters = Adapters(self._backend, self._router, self._holders, self._alarm, self._store, self._sampler.ask)
        self.engine.start(adapters)
        self._apply(self._file)
        before = os.umask(0o177)  # whoever connects there speaks for Envoy or a holder
        try:
            self._grpc.add_insecure_port(f"unix:{GRPC_SOCKET}")
        finally:
            os.umask(before)
        await self._grpc.start()
        Path(GRPC_SOCKET).chmod(0o600)
        await self._http.serve_control(self._settings.state_dir.control)
        await self._start_late()

    async def _start_late(self) -> None:
        """Serve at the addresses of options, which nothing else waits for while another program has them."""
        metrics, further = self._settings.metrics, self._settings.grpc
        if metrics:
            serving = when_free("--metrics", joined(*metrics), lambda: self._http.serve_probes(*metrics))
            self._late.append(asyncio.create_task(serving))
        if further:
            joining = when_free("--grpc", further, lambda: self._join(further, self._settings.certificates))
            self._late.append(asyncio.create_task(joining))
        if self._late:
            await asyncio.wait(self._late, timeout=FIRST_ATTEMPT_SECONDS)

    def _grpc_server(self) -> grpc.aio.Server:
        server = grpc.aio.server(options=grpc_options(limit("soft")), interceptors=(self._admission,))
        server.add_generic_rpc_handlers((self._router.handler(), self._holders.handler()))
        return server

    async def _join(self, address: str, files: Files | None) -> None:
        """Let Envoys and holders join that are not `up`'s own."""
        if files is None:
            self._further_grpc.add_insecure_port(address)
            await self._further_grpc.start()
            return
        from reconciler.server import credentials  # takes a while, and few need it

        try:
            self._further_grpc.add_secure_port(address, credentials.Server(files.read).credentials)
            await self._further_grpc.start()
        except credentials.NoCertificates as error:  # they were there when `up` started
            log.error("no further Envoy or holder can join until the next start", grpc=address, error=str(error))

    async def _close(self) -> None:
        self._closing = True
        for task in self._late:
            task.cancel()
        await self._http.close()
        self._metrics.close()
        await self._source.close()
        await self._admin.close()
        await self._router.close()
        await asyncio.gather(*(server.stop(GRPC_GRACE_SECONDS) for server in (self._grpc, self._further_grpc)))
        self._backend.leave()
        self._alarm.close()
        await self._store.close()

    def _apply(self, file: ServicesFile) -> None:
        """New services are routed before they run, old ones are off the route before they stop."""
        specs = [entry.spec for entry in file.services]
        self._leaving.configure(self.engine.services, {spec.name for spec in specs})
        self._listening.choose(file)
        self._route(file)
        self.engine.configure(specs)
        self._metrics.configured()
        self._sampler.interval = file.sample_interval
        self.engine.pace = sample_source.pace(file.sample_interval, self._settings.prometheus)
        self._file = file
        self._run_programs()
        for name in self._backend.outdated():
            self._renew(name)

    def _run_programs(self) -> None:
        programs = {entry.spec.name: entry.program for entry in self._file.services}
        self._backend.configure(programs, self._leaving.names)

    def _let_go(self) -> None:
        """Nothing is in flight any more to some that are no longer in the file."""
        self._route(self._file)
        self._run_programs()

    def _route(self, file: ServicesFile) -> None:
        http, tls, specs, nowhere = self._listening.routed(file)
        present = {spec.name for spec in (*specs, *nowhere)}  # of the last good file, where the new one is not applied
        leaving = [spec for spec in self._leaving.specs if spec.name not in present]
        self._router.configure(http, tls, specs, [*nowhere, *leaving])

    def _move(self) -> None:
        """Let Envoy listen on other addresses of the same file."""
        try:
            self._route(self._file)
        except ValueError as error:
            log.error("other listen addresses cannot be applied", why=str(error))

    def _rejected(self, node: str, why: str) -> None:
        log.error("Envoy rejected a configuration", envoy=node, why=why)
        if node == NODE:
            self._listening.doubt()

    def _ran(self, running: Running) -> None:
        if self._closing:
            return  # what ends because we end is neither a crash nor a sleep
        self.engine.ran(running)
        self._metrics.ran(running.service)
        if not self._opened and self.engine.synced:
            self._opened = True
            self._router.open()
            settle_memory()

    def _held(self, held: Held) -> None:
        if self._closing or (self._ending and held.held is None):
            return  # a holder that ends because all ends is no news
        self.engine.held(held)
        self._metrics.held(held)

    async def sample(self) -> Sample:
        """What the sampler asks for."""
        self._renewal.look()
        return await self._source.sample()

    def _sampled(self, sample: Sample) -> None:
        if self._closing:
            return
        self.engine.sampled(sample)
        self._metrics.sampled(sample, self.engine.doubt)
        self._renewal.sampled(sample)
        if self._leaving.sampled(sample):
            self._let_go()

    async def _announce(self) -> None:
        """Say so once Envoy takes connections and the holder can tell of them."""
        while not (self._router.serves(NODE) and self._holders.connected and self._listens()):
            await asyncio.sleep(ANNOUNCE_SECONDS)
        log.info("serving", http=self._file.listen_http, tls=self._file.listen_tls, services=len(self._file.services))

    def _listens(self) -> bool:
        """A listener that Envoy has acknowledged may yet be waiting for its routes."""
        has_tls = any(entry.spec.protocol is Protocol.TLS for entry in self._file.services)
        addresses = [at for owner, at in self._listening.served.items() if has_tls or owner != TLS]
        return listened_on().issuperset(split(address)[1] for address in addresses)

    def _found_faults(self, faults: Mapping[str, str]) -> None:
        """Log what Envoy rejects of services, once."""
        for name, message in faults.items() - self._faults.items():
            self._log.error("Envoy rejects a part of a service; the others are served", service=name, why=message)
        self._faults = faults

    def _saw(self, transition: Transition) -> None:
        """Tell of it once what follows from it is on its way: nobody who waits should wait for a log line."""
        asyncio.get_running_loop().call_soon(self._tell, transition)

    def _tell(self, transition: Transition) -> None:
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
        if transition.target is State.Idle and transition.service in self._backend.outdated():
            self._renew(transition.service)

    def _renew(self, service: str) -> None:
        """Let a service whose program changed sleep once, so that it wakes as the new one; not one that is paused."""
        if not self.engine.services[service].spec.paused:
            self.engine.command(service, SleepCommanded("its program changed"))

    def _woke(self, service: str, wake: Wake) -> None:
        total, parts = wake.total(), wake.parts()
        self._metrics.woke(service, total, parts)
        self._log.info("woken", service=service, total=total, parts=parts, peer=wake.peer)

    async def _keep_reloading(self, reload: asyncio.Event) -> None:
        while True:
            await reload.wait()
            reload.clear()
            try:
                await self._reload()
            except Exception:
                log.exception("the file cannot be applied, by a fault of zenvoy", file=str(self._settings.file))

    async def _reload(self) -> None:
        settings = self._settings
        copy = settings.state_dir.last_good_of(settings.file)
        file = await in_thread(lambda: look(settings.file, copy, settings.taken), "services file")
        if not isinstance(file, ServicesFile):
            tell(file)
        elif file == self._file:
            log.info("the file has not changed", file=str(self._settings.file))
            self._listening.retry()
        else:
            async with self._listening.lock:
                await self._listening.look(file)
                self._apply(file)
            self._listening.retry()
            log.info("the file is applied", file=str(self._settings.file), services=len(file.services))


async def reconcile_until_stopped(settings: Settings, file: ServicesFile) -> None:
    """Run one reconciler; it is made on the loop, which some parts need."""
    raise_limit()
    await Reconciler(settings, file).run()
