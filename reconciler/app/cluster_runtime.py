"""The runtime of one replica in a cluster: services are ScaledServices, their records are in status.

Every replica runs all of it. The leader judges, saves, notifies, and alone puts services to sleep. Followers serve
their own Envoys and holders by the leader's records, and wake services.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from reconciler.app import sample_source
from reconciler.app.admin import EngineOperations
from reconciler.app.certificates import certificates
from reconciler.app.cluster_notifier import ObjectWriters
from reconciler.app.cluster_settings import ReplicaSettings
from reconciler.app.runtime import STREAM_CLAIMS, UNKNOWN_SERVICES, BackgroundTasks, Runtime, Served, stream_server
from reconciler.busy_checks import BusyCheckRunner
from reconciler.core.access import Listed
from reconciler.engine.engine import Adapters
from reconciler.engine.sampling import Sampler
from reconciler.engine.view import moment, unknown_fields
from reconciler.envoy.xds_router import XdsRouter
from reconciler.kubernetes.capture.controller import CaptureController
from reconciler.kubernetes.capture.observer import CaptureSources
from reconciler.kubernetes.client.api import Api, connect
from reconciler.kubernetes.client.leader_election import FIRST_INDEX, LeaderElection, LeaseTiming
from reconciler.kubernetes.client.lease_lock import LeaderElector, ticks
from reconciler.kubernetes.client.pod_list import PodList
from reconciler.kubernetes.config.busy import BusyReasons
from reconciler.kubernetes.config.conflicts import reserved_ports
from reconciler.kubernetes.config.provider import KubernetesProvider, Problems, ServiceConfigs
from reconciler.kubernetes.config.resolve import ClusterConfig
from reconciler.kubernetes.types.scaled_service import ScaledService
from reconciler.kubernetes.workloads.backend import KubernetesBackend
from reconciler.kubernetes.workloads.warm_connections import WARM_CONNECTIONS
from reconciler.local.open_files import raise_limit
from reconciler.metrics.metrics import Sources
from reconciler.ports.backend import WorkloadStatus
from reconciler.ports.clock import Clock
from reconciler.replication.fleet import ReplicaContext
from reconciler.replication.leader import CLAIMS as PEER_CLAIMS
from reconciler.replication.peers import Peers
from reconciler.server.admission import Admission
from reconciler.server.credentials import material
from reconciler.server.holders import HolderStreams
from reconciler.server.http.connections import report_exhaustion
from reconciler.server.http.server import Http

log = structlog.get_logger()

FORGET_AT_ONCE = 0.0
"""A disconnected Envoy or holder may be connected to another replica: the leader decides when it is gone."""
GRPC_GRACE_SECONDS = 0.5
FLUSH_SECONDS = 3.0
POLL_SECONDS = 0.05
OBSERVE_SECONDS = 15.0
"""Time to observe all workloads; after it, the replica stands for election without the missing ones."""
PLAINTEXT = (
    "the gRPC port is open without TLS: any process that reaches it can read every route, wake services and keep them "
    "awake; remove --plaintext (in the chart: mtls.enabled=true)"
)


class ClusterRuntime:
    """One replica."""

    def __init__(self, settings: ReplicaSettings, api: Api, wake_api: Api) -> None:
        """`wake_api` is a second connection to the API server, for wakes only."""
        self._settings, self._api = settings, api
        self._configured: tuple[ServiceConfigs, Problems] | None = None
        self._started = False
        self._observed: set[str] = set()
        pace = sample_source.pace(settings.sample_interval, settings.prometheus)
        self._runtime = Runtime(self._sources(), pace, settings.hold)
        self.engine = self._runtime.engine
        api.called = wake_api.called = self._runtime.metrics.called
        self._certificates = certificates(settings, api)
        self._admission = Admission({**STREAM_CLAIMS, **PEER_CLAIMS}, self._listed)
        self._watch_own_endpoints()
        self._busy = BusyReasons(self.engine.set_busy_until)
        self._provider = self._make_provider()
        self._elector = self._make_elector()
        self._replicate()
        self._publish()
        members, services = self._peers.members, self._provider.services.items
        may_sleep, namespaces = (lambda: members.unknown() is None), settings.namespaces
        self._backend = KubernetesBackend(api, wake_api, services, self._ran, may_sleep, namespaces, self._leads)
        self._capture = self._make_capture()
        self._busy_checks = BusyCheckRunner(self._backend.ask_busy, self._runtime.answered)
        self._sampler = self._make_sampler()
        operations = EngineOperations(
            engine=self.engine,
            router=self._router,
            streams=self._holders,
            prometheus=settings.prometheus,
            statistics="Envoys' statistics",
            opened=lambda: self._runtime.opened,
            unready=lambda: None if self._runtime.opened else UNKNOWN_SERVICES,
            replicas=self.replicas,
            connected=members.connected,
        )
        self._http = Http(operations, self._runtime.metrics.scrape, _no_envoy)

    # Parts

    def _watch_own_endpoints(self) -> None:
        """Make the lists of zenvoy's own endpoints, which decide what streams are accepted."""
        settings, relisted = self._settings, self._admission.relisted
        ours, proxies = settings.lease_namespace, settings.proxies_service
        self._replicas = PodList(self._api, ours, settings.peers_service, ticks, relisted, own=settings.pod_ip)
        self._proxies = PodList(self._api, ours, proxies, ticks, relisted) if proxies else None

    def _make_provider(self) -> KubernetesProvider:
        settings = self._settings
        ports = settings.http_port, settings.tls_port, settings.hold.diverted, settings.capture_ports
        return KubernetesProvider(
            self._api,
            self._leads,
            self._configure,
            self._saw_object,
            self._busy.called_busy,
            ClusterConfig(settings.listen_host, settings.policy, settings.capture_ports),
            namespaces=settings.namespaces,
            reserved=reserved_ports(*ports),
            on_service=lambda key, service: self._capture.saw_service(key, service),
        )

    def _make_capture(self) -> CaptureController:
        ports, service = self._settings.capture_ports, self._settings.proxies_service
        proxies = (self._settings.lease_namespace, service) if ports and service else None
        sources = CaptureSources(self._provider, self._backend.endpoint_slices, proxies, ports)
        return CaptureController(self._api, sources, self._leads, self._writers.store.set_capture, self._busy.bypassed)

    def _make_elector(self) -> LeaderElector:
        settings = self._settings
        duration = settings.lease_duration
        timing = LeaseTiming(duration, margin=duration / 3, every=duration / 7.5)
        candidate = LeaderElection(settings.pod_name, timing, self._wanted_indexes, self._unused_index)
        place, address = (settings.lease_namespace, settings.lease_name), settings.peer_address
        return LeaderElector(self._api, place, candidate, address, self._lead, self._follow, self._allocate)

    def _replicate(self) -> None:
        """Make the streams of this replica, and the view of all replicas that the engine works with."""
        settings, found = self._settings, self._certificates
        clock, valid = Clock(ticks=ticks), self._elector.valid
        context = ReplicaContext(settings.pod_ip, self._replicas, valid, clock, settings.lease_duration, self._proxies)
        secure = (lambda: material.channel(found.read())) if found else None
        peers = Peers(context, self._elector.renew_now, secure, settings.server_name or None)
        shared = peers.replication
        routed, faults, acked = shared.router.routed, shared.faults.found, self._runtime.metrics.acked
        self._router = XdsRouter(routed, _rejected, acked, self._joined, FORGET_AT_ONCE, faults)
        self._holders = HolderStreams(shared.holders.held, time.time, FORGET_AT_ONCE, self._joined)
        shared.attach(self.engine, self._router, self._holders, self._runtime.held)
        self._peers = peers
        self._grpc = stream_server(self._router, self._holders, self._admission)

    def _publish(self) -> None:
        """Make what writes to ScaledServices."""
        writers = ObjectWriters(
            self._api,
            self._provider,
            self._elector,
            self._settings.pod_name,
            self.engine,
            needed_for=self._needed_for,
            release=lambda item: self._capture.release(item),
        )
        faults = self._peers.replication.faults
        faults.on_change.append(lambda: writers.problems.rejected(faults.all()))
        self._runtime.notifier.on_transition = writers.transitions.saw
        self._runtime.notifier.on_wake = writers.transitions.woke
        self._writers = writers

    def _make_sampler(self) -> Sampler:
        settings, members = self._settings, self._peers.members
        prometheus, ports = settings.prometheus, settings.stats_ports
        admin = sample_source.admin(lambda: members.ledger.stats(), ports)
        self._source = sample_source.prometheus(prometheus, members.envoys) if prometheus else admin
        spacing = sample_source.spacing(prometheus)
        return Sampler(self._source.sample, settings.sample_interval, spacing, Clock(), self._runtime.sampled)

    def _sources(self) -> Sources:
        """Return the sources of metrics. Only the leader counts services, or each would be counted by every replica."""
        return Sources(
            services=lambda: self.engine.services if self.engine.leads else {},
            envoys=lambda: self._router.server.nodes(),
            holders=lambda: self._holders.connected,
            all_holders=lambda: self._peers.members.ledger.holders.connected,
            ready=lambda: self._runtime.opened,
            leads=self._leads,
            refused_streams=lambda: self._admission.refused,
            plaintext=lambda: self._certificates is None,
            expiries=self._expiries,
        )

    # Life

    async def run(self) -> None:
        """Run until SIGTERM. Raises the error of a failed task."""
        report_exhaustion()
        tasks = BackgroundTasks()
        try:
            await self._http.serve_probes(*self._settings.http)
            if self._settings.inspect:
                await self._http.serve_readings(*self._settings.inspect)
        except OSError:
            await self._backend.close()
            raise
        parts = (self._provider, self._replicas, self._peers, self._capture, *self._writers.parts)
        optional = [part for part in (self._proxies, self._certificates) if part]
        tasks.start(*(part.run() for part in (*parts, *optional)), self._sampler.run(), self._begin())
        [electing] = tasks.start(self._elect())
        failure = await tasks.until_stopped()
        log.info("stopping")
        await self._close(tasks, electing)
        if failure:
            raise failure

    async def _begin(self) -> None:
        """Start the engine and answer Envoys and holders, once every service is known."""
        while not (self._configured and self._replicas.synced and (self._proxies is None or self._proxies.synced)):
            await asyncio.sleep(POLL_SECONDS)
        shared, arm, ask_busy = self._peers.replication, self._runtime.alarm.arm, self._busy_checks.ask
        store, ask = self._writers.store, self._sampler.ask
        adapters = Adapters(self._backend, shared.router, shared.holders, arm, store, ask, shared, ask_busy)
        self._runtime.start(adapters, self._router)
        self._peers.follow(None)
        self._started = True
        self._configure(*self._configured)
        self._grpc.add_generic_rpc_handlers((self._peers.server.handler(),))
        while not (self.engine.synced and self._peers.synced):
            await asyncio.sleep(POLL_SECONDS)
        # Not before: a holder that knows half of the services refuses the clients of the other half.
        await self._listen()
        self._runtime.open()
        log.info("serving", services=len(self.engine.services), leads=self._leads())

    async def _listen(self) -> None:
        """Open the gRPC port once there is a certificate to serve with; without mutual TLS at once."""
        if not self._certificates:
            log.warning(PLAINTEXT, grpc=self._settings.grpc)
            self._grpc.add_insecure_port(self._settings.grpc)
        while self._certificates:
            try:
                server = material.Server(self._certificates.read)
            except material.NoCertificates:
                await asyncio.sleep(POLL_SECONDS)
            else:
                self._grpc.add_secure_port(self._settings.grpc, server.credentials)
                break
        await self._grpc.start()

    async def _elect(self) -> None:
        """Stand for election once all workloads are observed: a new leader starts from what runs."""
        services, end = self.engine.services, time.monotonic() + OBSERVE_SECONDS
        while not (self._started and (self._observed >= services.keys() or time.monotonic() >= end)):
            await asyncio.sleep(POLL_SECONDS)
        await self._elector.run()

    async def _close(self, tasks: BackgroundTasks, electing: asyncio.Task[None]) -> None:
        """Write what is pending, since only the leader may write; then let another replica lead."""
        self._runtime.closing = True
        await self._writers.close(FLUSH_SECONDS)
        electing.cancel()
        await tasks.cancel()
        await self._busy_checks.close()
        await self._backend.close()  # a scale to zero in progress completes before another replica may lead
        await self._elector.close()
        await self._peers.close()
        await self._router.server.close()
        await self._grpc.stop(GRPC_GRACE_SECONDS)
        await self._source.close()
        self._runtime.close()
        await self._http.close()

    # Leadership

    def _leads(self) -> bool:
        return self._elector.valid()

    def _lead(self, since: float) -> None:
        self._peers.lead(since)
        self._backend.lead(True)
        self._writers.lead()
        self._provider.lead()
        self._capture.look_at_all()
        self._runtime.metrics.lead()
        self._writers.transitions.repeat(self.engine.leadership.unreported())

    def _follow(self, leader: str | None) -> None:
        if self._started:
            self._peers.follow(leader)
        self._backend.lead(False)
        self._writers.store.follow()

    def _allocate(self) -> None:
        """Give hold addresses to the services that waited for an index, which then accept commands."""
        if len(self.engine.services) > self._settings.hold.size:
            return  # every hold address is in use; further indexes would repeat them
        self.engine.allocate()
        self._writers.commands.again()

    def _wanted_indexes(self) -> int:
        return sum(1 for service in self.engine.services.values() if service.record is None)

    def _unused_index(self) -> int:
        """Return the first index after all that records use."""
        items = self._provider.scaled_services.items.values()
        used = (self._settings.hold.index(address) for item in items if (address := item.status.hold_address))
        return max((index + 1 for index in used if index is not None), default=FIRST_INDEX)

    # Configuration

    def _configure(self, entries: ServiceConfigs, problems: Problems) -> None:
        self._configured = entries, problems
        if not self._started or self._runtime.closing:
            return
        specs = [entry.spec for entry in entries.values()]
        if len(specs) > (room := self._settings.hold.size):
            log.error("more services than hold addresses; some stay awake: widen the hold ports", addresses=room)
        settings, host = self._settings, self._settings.listen_host
        http, tls = f"{host}:{settings.http_port}", f"{host}:{settings.tls_port}"
        try:
            self._runtime.configure(specs, Served(http, tls, specs, proxy=settings.proxy))
        except ValueError as error:
            log.error("failed to apply services; keeping the previous ones", problems=str(error).splitlines())
            return
        self._backend.configure(entries)
        self._capture.configure(entries)
        self._writers.finalizers.configure(entries.keys())
        self._writers.problems.configured(problems)

    def _saw_object(self, name: str, item: ScaledService | None) -> None:
        self._capture.saw(name, item)
        self._writers.saw(name, item)

    def _needed_for(self, name: str) -> str | None:
        """Return why a service that is being deleted is still needed; None when it may go."""
        is_missing, members = self._backend.is_missing(name), self._peers.members
        blocker = self._runtime.lifecycles.deletion_blocker(name, members.envoys(), members.unknown(), is_missing)
        return blocker or (None if is_missing else self._capture.blocker(name))

    def _listed(self) -> Listed:
        """Return the endpoints that decide what streams are accepted."""
        return Listed(self._proxies.pods if self._proxies else None, self._replicas.names())

    # Reports

    def _ran(self, running: WorkloadStatus) -> None:
        if self._runtime.closing:
            return
        self._observed.add(running.service)
        self._runtime.ran(running)
        self._writers.store.set_diagnosis(running.service, running.diagnosis)
        self._writers.commands.again(running.service)

    def _joined(self) -> None:
        self._peers.members.came_or_went(self._router.stats(), self._holders.connected)

    def replicas(self) -> dict[str, Any]:
        return {
            "replica": self._settings.pod_name,
            "leads": self._leads(),
            "leader": self._elector.holder,
            "plaintext": self._certificates is None,
            "certificates": {name: moment(until) for name, until in self._expiries().items()},
            "replicas": sorted(self._replicas.names()),
            "connected": sorted(self._peers.connected()),
            **unknown_fields(self._peers.members.unknown() if self._leads() else None),
        }

    def _expiries(self) -> Mapping[str, float]:
        return self._certificates.expiries if self._certificates else {}


async def run_until_stopped(settings: ReplicaSettings, kubeconfig: Path | None, context: str | None) -> None:
    """Run one replica. Raises `NoCluster` when there is no cluster to connect to."""
    raise_limit()
    api = await connect(kubeconfig, context)
    wake_api = await connect(kubeconfig, context, WARM_CONNECTIONS)
    try:
        await ClusterRuntime(settings, api, wake_api).run()
    finally:
        await wake_api.close()
        await api.close()


async def _no_envoy() -> bytes:
    raise OSError("this pod has no Envoy; each Envoy serves its own statistics")


def _rejected(node: str, reason: str) -> None:
    log.error("Envoy rejected a configuration update; keeping the previous one", envoy=node, reason=reason)
