"""The reconciler process of a cluster: every part made, wired, started and ended in order. Counterpart: `reconcile.py`.

Each replica has all of it. Whoever leads judges, saves, tells, and alone puts to sleep; the others serve their own
Envoys and holders by the leader's word, and wake.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
import structlog

from reconciler.adapters import credentials
from reconciler.adapters.admin_stats import AdminStats
from reconciler.adapters.alarm import Alarm
from reconciler.adapters.holders import HolderStreams
from reconciler.adapters.http import Http
from reconciler.adapters.kubernetes.api import Api, connect
from reconciler.adapters.kubernetes.backend import KubernetesBackend
from reconciler.adapters.kubernetes.calls import WARM_CONNECTIONS
from reconciler.adapters.kubernetes.catalogue import Catalogue, Entries, Problems
from reconciler.adapters.kubernetes.commands import Commands
from reconciler.adapters.kubernetes.election import FIRST_INDEX, Election
from reconciler.adapters.kubernetes.election import Terms as LeaseTerms
from reconciler.adapters.kubernetes.events import Events
from reconciler.adapters.kubernetes.finalizer import Finalizers
from reconciler.adapters.kubernetes.lease import Elector, ticks
from reconciler.adapters.kubernetes.replicas import ReplicaList
from reconciler.adapters.kubernetes.resources import ScaledService
from reconciler.adapters.kubernetes.status import StatusStore
from reconciler.adapters.metrics import Metrics, World
from reconciler.adapters.peers import Peers, Terms
from reconciler.adapters.prometheus.settings import PrometheusSettings
from reconciler.adapters.xds_router import GRPC_OPTIONS, XdsRouter, service_of_stat
from reconciler.app import traffic
from reconciler.app.cluster.settings import Settings
from reconciler.app.operations import EngineOperations
from reconciler.core.events import Event
from reconciler.core.traffic import Sample
from reconciler.engine.engine import Adapters, Engine
from reconciler.engine.sampling import Sampler
from reconciler.engine.wake import Wake
from reconciler.ports.backend import Running
from reconciler.ports.holders import Held
from reconciler.ports.transitions import Transition

log = structlog.get_logger()

ANY = "0.0.0.0"
GRPC_GRACE_SECONDS = 0.5
FLUSH_SECONDS = 3.0
LOOK_SECONDS = 0.05
SEEN_SECONDS = 15.0
"""How long the first look at all targets may take before the lease is asked for without it."""
AT_ONCE = 0.0
"""An Envoy or a holder that went away may be at another replica, which is for the leader to tell."""


class _Engine(Engine):
    """What all holders say is told to others too; it comes to the engine from all replicas."""

    also_held: Callable[[Held], None]

    def held(self, held: Held) -> None:
        super().held(held)
        self.also_held(held)


class Controller:
    """One replica. `urgent` is a second way to the API server, for wakes only."""

    def __init__(self, settings: Settings, api: Api, urgent: Api) -> None:
        self._settings, self._api = settings, api
        self._asked: tuple[Entries, Problems] | None = None
        self._opened = self._started = self._closing = False
        self._reported: set[str] = set()
        self._troubled: set[str] = set()
        stale_after = traffic.stale_after(settings.sample_interval, settings.prometheus)
        hold = settings.hold
        self.engine = _Engine(time.time, stale_after, hold.address, self._saw, self._woke, hold.listens_at)
        self._alarm = Alarm(self.engine.passed)
        self._metrics = Metrics(self._world())
        self.engine.also_held = self._metrics.held
        api.called = urgent.called = self._metrics.called
        self._catalogue = Catalogue(api, self._leads, self._configure, self._saw_object, namespaces=settings.namespaces)
        self._replicas = ReplicaList(api, settings.lease_namespace, settings.peers_service)
        self._elector = self._candidate()
        self._peers = self._among_others()
        envoys, holders = self._peers.routed, self._peers.held
        self._router = XdsRouter(envoys, time.time, _rejected, self._metrics.acked, self._joined, AT_ONCE)
        self._holders = HolderStreams(holders, time.time, AT_ONCE, self._joined)
        self._peers.attach(self._router, self._holders)
        items, services = self._catalogue.scaled_services.items, self._catalogue.services.items
        self._store = StatusStore(api, items, self._leads, self._elector.next_index)
        self._events = Events(api, items, services, self._leads, settings.pod_name)
        self._finalizers = Finalizers(api, items, self._leads, self._events.left)
        self._commands = Commands(items, self._leads, self._obey, self._store.set_command)
        self._backend = KubernetesBackend(api, urgent, self._ran, self._elector.valid, settings.namespaces)
        self._sampler = self._sampling_of(settings.prometheus)
        self._grpc = grpc.aio.server(options=GRPC_OPTIONS)
        asked = f"Prometheus at {settings.prometheus.url}" if settings.prometheus else "Envoys' statistics"
        operations = EngineOperations(
            self.engine, self._router, self._holders, lambda: self._opened, asked, self._standing
        )
        self._http = Http(operations, self._metrics.scrape, _no_envoy)

    # How it is made

    def _candidate(self) -> Elector:
        settings = self._settings
        terms = lease_terms(settings.lease_duration)
        candidate = Election(settings.pod_name, terms, self._wanted_indexes, self._unused_index)
        place, address = (settings.lease_namespace, settings.lease_name), settings.peer_address
        return Elector(self._api, place, candidate, address, self._lead, self._follow, self._allocate)

    def _among_others(self) -> Peers:
        files, settle = self._settings.certificates, self._settings.lease_duration
        everybody, valid = self._replicas.addresses, self._elector.valid
        terms = Terms(self._settings.pod_ip, everybody, valid, time.time, ticks, settle)
        secure = (lambda: credentials.channel(files)) if files else None
        return Peers(terms, self.engine, self._elector.hurry, secure, self._settings.server_name)

    def _sampling_of(self, asked: PrometheusSettings | None) -> Sampler:
        merged = self._peers.merged
        admin = AdminStats(merged.stats, time.time, traffic.ADMIN_TIMEOUT_SECONDS, service_of_stat)
        self._source = traffic.prometheus(asked, merged.envoys) if asked else admin
        interval, spacing = self._settings.sample_interval, traffic.spacing(asked)
        return Sampler(self._source, interval, spacing, time.time, self._sampled)

    def _world(self) -> World:
        """What metrics look at. Of services only the leader tells, or each would be counted once a replica."""
        return World(
            services=lambda: self.engine.services if self.engine.leads else {},
            envoys=lambda: self._router.nodes(),
            holders=lambda: self._holders.connected,
            ready=lambda: self._opened,
            leads=self._leads,
            now=time.time,
            ticks=time.monotonic,
        )

    # How it runs

    async def run(self) -> None:
        """Until SIGTERM. Raises what broke."""
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        await self._http.serve_probes(*self._settings.http, readings=True)
        work = (
            self._catalogue.run(),
            self._replicas.run(),
            self._store.run(),
            self._events.run(),
            self._finalizers.run(),
            self._sampler.run(),
        )
        tasks = [asyncio.create_task(one) for one in (*work, self._begin())]
        electing = asyncio.create_task(self._elect())
        for task in (*tasks, electing):
            task.add_done_callback(lambda _: stopped.set() if _failed([*tasks, electing]) else None)
        await stopped.wait()
        log.info("stopping")
        faults = _failed([*tasks, electing])
        await self._close(tasks, electing)
        if faults:
            raise faults[0]

    async def _begin(self) -> None:
        """Answer Envoys and holders, once every service is known: a part of the world is shown to nobody."""
        while self._asked is None or not self._replicas.synced:
            await asyncio.sleep(LOOK_SECONDS)
        self._alarm.start()
        self._metrics.start()
        merged = self._peers.merged
        self.engine.start(Adapters(self._backend, merged, merged, self._alarm, self._store, self._sampler.ask, merged))
        self._peers.follow(None)
        self._started = True
        self._configure(*self._asked)
        handlers = (self._router.handler(), self._holders.handler(), self._peers.handler())
        self._grpc.add_generic_rpc_handlers(handlers)
        self._listen()
        await self._grpc.start()
        while not (self.engine.synced and self._peers.synced):
            await asyncio.sleep(LOOK_SECONDS)
        self._opened = True
        self._router.open()
        log.info("serving", services=len(self.engine.services), leads=self._leads())

    def _listen(self) -> None:
        files = self._settings.certificates
        if files:
            self._grpc.add_secure_port(self._settings.grpc, credentials.Server(files).credentials)
        else:
            self._grpc.add_insecure_port(self._settings.grpc)

    async def _elect(self) -> None:
        """Stand for election once all targets were looked at: a new leader begins with what runs."""
        end = time.monotonic() + SEEN_SECONDS
        while not (self._started and self._seen()) and (not self._started or time.monotonic() < end):
            await asyncio.sleep(LOOK_SECONDS)
        await self._elector.run()

    def _seen(self) -> bool:
        return self._reported >= self.engine.services.keys()

    async def _close(self, tasks: list[asyncio.Task[None]], electing: asyncio.Task[None]) -> None:
        """What was said is written first, as who does not lead writes nothing; then the next one may lead."""
        self._closing = True
        if self._leads():
            await asyncio.gather(self._store.flush(FLUSH_SECONDS), self._events.flush(FLUSH_SECONDS))
        electing.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, electing, return_exceptions=True)
        await self._elector.close()
        await self._peers.close()
        await self._router.close()
        await self._grpc.stop(GRPC_GRACE_SECONDS)
        await self._backend.close()
        await self._source.close()
        self._alarm.close()
        self._metrics.close()
        await self._http.close()

    # Who leads

    def _leads(self) -> bool:
        return self._elector.valid()

    def _lead(self, since: float) -> None:
        self._peers.lead(since)
        self._store.lead()
        self._events.lead()
        self._finalizers.lead()
        self._commands.lead()
        self._catalogue.lead()

    def _follow(self, leader: str | None) -> None:
        if self._started:
            self._peers.follow(leader)
        self._store.follow()

    def _allocate(self) -> None:
        """There are indexes again: services that waited for one have a record now, and hear commands."""
        self.engine.allocate()
        self._commands.again()

    def _wanted_indexes(self) -> int:
        return sum(1 for service in self.engine.services.values() if service.record is None)

    def _unused_index(self) -> int:
        """Beyond all that are in use, as far as records tell."""
        items = self._catalogue.scaled_services.items.values()
        used = (self._settings.hold.index(address) for item in items if (address := item.status.hold_address))
        return max((index + 1 for index in used if index is not None), default=FIRST_INDEX)

    def _standing(self) -> dict[str, Any]:
        """Who leads, for people."""
        return {
            "replica": self._settings.pod_name,
            "leads": self._leads(),
            "leader": self._elector.holder,
            "replicas": sorted(self._replicas.addresses()),
            "connected": sorted(self._peers.connected()),
            "doubt": self._peers.merged.doubt() if self._leads() else None,
        }

    # What is seen

    def _configure(self, entries: Entries, problems: Problems) -> None:
        """New services are routed before they are looked at, old ones are off the route before they are left alone."""
        self._asked = entries, problems
        if not self._started:
            return
        specs = [entry.spec for entry in entries.values()]
        http, tls = f"{ANY}:{self._settings.http_port}", f"{ANY}:{self._settings.tls_port}"
        self._router.configure(http, tls, specs)
        self.engine.configure(specs)
        self._metrics.configured()
        self._backend.configure(entries)
        self._finalizers.configure(entries.keys())
        troubled = problems.keys() | self._commands.troubled
        for name in self._troubled | troubled:
            found = (*problems.get(name, ()), *self._commands.problems(name))
            item = self._catalogue.scaled_services.items.get(name)
            self._store.set_problems(name, found, item.metadata.generation if item else 0)
            self._events.problems(name, found)
        self._troubled = set(troubled)

    def _saw_object(self, name: str, item: ScaledService | None) -> None:
        self._store.saw(name, item)
        self._finalizers.saw(name, item)
        self._commands.saw(name, item)

    def _obey(self, name: str, event: Event) -> bool:
        """Whether there was somebody to hear the command."""
        service = self.engine.services.get(name)
        if service is None or service.record is None:
            return False
        self.engine.command(name, event)
        return True

    def _ran(self, running: Running) -> None:
        if self._closing:
            return
        self._reported.add(running.service)
        self.engine.ran(running)
        self._metrics.ran(running.service)
        self._store.set_seen(running.service, running.trouble)
        self._commands.again(running.service)

    def _joined(self) -> None:
        """Envoys and holders of ours came or went."""
        nodes = self._router.nodes().values()
        self._peers.came_or_went({node.id: node.stats for node in nodes}, self._holders.connected)

    def _sampled(self, sample: Sample) -> None:
        if self._leads():
            self.engine.sampled(sample)
            self._metrics.sampled(sample, self.engine.doubt)

    # What is told

    def _saw(self, transition: Transition) -> None:
        """Tell of it once what follows from it is on its way: nobody who waits should wait for a log line."""
        asyncio.get_running_loop().call_soon(self._tell, transition)

    def _tell(self, transition: Transition) -> None:
        service = self.engine.services.get(transition.service)
        self._metrics.saw(transition)
        self._events.saw(transition, service.wake.peer if service and service.wake else None)
        log.info(
            "transition",
            service=transition.service,
            source=transition.source.value,
            target=transition.target.value,
            reason=transition.reason,
            cause=transition.event,
        )

    def _woke(self, service: str, wake: Wake) -> None:
        total, parts = wake.total(), wake.parts()
        self._metrics.woke(service, total, parts)
        self._events.woke(service, total, parts, wake.peer)
        log.info("woken", service=service, total=total, parts=parts, peer=wake.peer)


def lease_terms(duration: float) -> LeaseTerms:
    """For a Lease of so many seconds: the holder stops a third earlier, and renews it several times before."""
    return LeaseTerms(duration, margin=duration / 3, every=duration / 7.5)


async def run_until_stopped(settings: Settings, kubeconfig: Path | None, context: str | None) -> None:
    """Run one replica. Raises `NoCluster` when there is no cluster to talk to."""
    api = await connect(kubeconfig, context)
    urgent = await connect(kubeconfig, context, WARM_CONNECTIONS)
    try:
        await Controller(settings, api, urgent).run()
    finally:
        await urgent.close()
        await api.close()


def _failed(tasks: Iterable[asyncio.Task[None]]) -> list[BaseException]:
    ended = [task for task in tasks if task.done() and not task.cancelled()]
    return [error for task in ended if (error := task.exception())]


async def _no_envoy() -> str:
    """Each Envoy shows its own statistics."""
    raise OSError("there is none in this pod; each Envoy shows its statistics itself")


def _rejected(node: str, why: str) -> None:
    log.error("Envoy rejected a configuration; its last good one stays in force", envoy=node, why=why)
