"""One replica of a cluster's reconciler: every part, and what each is told of the others. Counterpart: `controller.py`.

Each replica has all of it. Whoever leads judges, saves, tells, and alone puts to sleep; the others serve their own
Envoys and holders by the leader's word, and wake.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
import structlog

from reconciler.alarm import Alarm
from reconciler.app import sample_source
from reconciler.app.admin import EngineOperations
from reconciler.app.certificates import certificates
from reconciler.app.cluster_settings import Settings
from reconciler.app.leaving import Leaving
from reconciler.app.notifier import Teller
from reconciler.core.departure import still_needed
from reconciler.core.doubt import words
from reconciler.core.entitlement import Listed
from reconciler.core.events import Event
from reconciler.core.spec import Spec
from reconciler.core.traffic import Sample
from reconciler.engine.engine import Engine
from reconciler.engine.sampling import Sampler
from reconciler.engine.view import moment
from reconciler.envoy.admin_stats import AdminStats
from reconciler.envoy.prometheus.settings import PrometheusSettings
from reconciler.envoy.xds_router import CLAIMS as XDS_CLAIMS
from reconciler.envoy.xds_router import XdsRouter, grpc_options, service_of_stat
from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.leader_election import FIRST_INDEX, LeaderElection
from reconciler.kubernetes.client.leader_election import LeaseTiming as LeaseTerms
from reconciler.kubernetes.client.lease_lock import LeaderElector, ticks
from reconciler.kubernetes.client.proxies import ProxyList
from reconciler.kubernetes.client.replicas import ReplicaList
from reconciler.kubernetes.config.commands import CommandController
from reconciler.kubernetes.config.conflicts import reserved_ports
from reconciler.kubernetes.config.provider import KubernetesProvider, Problems, ServiceConfigs
from reconciler.kubernetes.config.resolve import ClusterConfig as ClusterSettings
from reconciler.kubernetes.status.event_recorder import EventRecorder
from reconciler.kubernetes.status.finalizer import FinalizerController
from reconciler.kubernetes.status.status_writer import StatusWriter
from reconciler.kubernetes.types.scaled_service import ScaledService
from reconciler.kubernetes.workloads.backend import KubernetesBackend
from reconciler.local.open_files import limit
from reconciler.metrics import Metrics, World
from reconciler.ports.backend import Running
from reconciler.ports.holders import Held
from reconciler.replication import CLAIMS as PEER_CLAIMS
from reconciler.replication import Peers, Terms
from reconciler.server import credentials
from reconciler.server.admission import Admission
from reconciler.server.holders import CLAIMS as HOLDER_CLAIMS
from reconciler.server.holders import HolderStreams
from reconciler.server.http import Http

log = structlog.get_logger()

ANY = "0.0.0.0"
AT_ONCE = 0.0
"""An Envoy or a holder that went away may be at another replica, which is for the leader to tell."""


class _Engine(Engine):
    """What all holders say is told to others too; it comes to the engine from all replicas."""

    also_held: Callable[[Held], None]

    def held(self, held: Held) -> None:
        super().held(held)
        self.also_held(held)


class Replica:
    """Made, and not yet started. `urgent` is a second way to the API server, for wakes only."""

    def __init__(self, settings: Settings, api: Api, urgent: Api) -> None:
        self._settings, self._api = settings, api
        self._asked: tuple[ServiceConfigs, Problems] | None = None
        self._opened = self._started = self._closing = False
        self._reported: set[str] = set()
        pace = sample_source.pace(settings.sample_interval, settings.prometheus)
        hold = settings.hold
        self._metrics = Metrics(self._world())
        api.called = urgent.called = self._metrics.called
        self._catalogue = self._watched()
        items, services = self._catalogue.scaled_services.items, self._catalogue.services.items
        tell = self._tell = Teller(lambda: self.engine.services, items, self._metrics)
        self.engine = _Engine(time.time, pace, hold.address, tell.saw, tell.woke, hold.listens_at, hold.size)
        self.engine.also_held = self._metrics.held
        self._certificates = certificates(settings, api)
        self._alarm = Alarm(self.engine.passed)
        self._watch_own_endpoints()
        self._elector = self._candidate()
        self._peers = self._among_others()
        envoys, holders = self._peers.routed, self._peers.held
        self._router = XdsRouter(
            envoys, ticks, _rejected, self._metrics.acked, self._joined, AT_ONCE, self._peers.merged.found
        )
        self._leaving = Leaving(time.time, ticks, self._router.envoys)
        self._holders = HolderStreams(holders, time.time, AT_ONCE, self._joined)
        self._peers.attach(self._router, self._holders)
        merged = self._peers.merged
        self._store = StatusWriter(api, items, self._leads, self._elector.next_index)
        self._events = EventRecorder(api, items, services, self._leads, settings.pod_name)
        self._finalizers = FinalizerController(api, items, self._leads, self._events.left, needed=self._needed)
        self._commands = CommandController(items, self._leads, self._obey, self._store.set_command)
        tell.attach(self._store, self._events, self._commands)
        self._backend = KubernetesBackend(
            api, urgent, self._ran, lambda: merged.doubt() is None, settings.namespaces, self._leads
        )
        self._sampler = self._sampling_of(settings.prometheus)
        self._grpc = grpc.aio.server(options=grpc_options(limit("soft")), interceptors=(self._admission,))
        self._http = Http(self._operations(), self._metrics.scrape, _no_envoy)

    # How it is made

    def _watch_own_endpoints(self) -> None:
        """Make what decides which streams are served: the endpoints of zenvoy's own Services."""
        self._admission = Admission({**XDS_CLAIMS, **HOLDER_CLAIMS, **PEER_CLAIMS}, self._listed)
        settings, relisted = self._settings, self._admission.relisted
        ours, proxies = settings.lease_namespace, settings.proxies_service
        self._replicas = ReplicaList(self._api, ours, settings.peers_service, settings.pod_ip, relisted)
        self._proxies = ProxyList(self._api, ours, proxies, ticks, relisted) if proxies else None

    def _operations(self) -> EngineOperations:
        asked = self._settings.prometheus
        source = f"Prometheus at {asked.url}" if asked else "Envoys' statistics"
        opened, router, holders = lambda: self._opened, self._router, self._holders
        return EngineOperations(
            self.engine, router, holders, opened, source, self._standing, self._peers.merged.connected
        )

    def _watched(self) -> KubernetesProvider:
        settings = self._settings
        return KubernetesProvider(
            self._api,
            self._leads,
            self._configure,
            self._saw_object,
            ClusterSettings(policy=settings.policy),
            namespaces=settings.namespaces,
            reserved=reserved_ports(settings.http_port, settings.tls_port, settings.hold.diverted),
        )

    def _candidate(self) -> LeaderElector:
        settings = self._settings
        duration = settings.lease_duration
        terms = LeaseTerms(duration, margin=duration / 3, every=duration / 7.5)
        candidate = LeaderElection(settings.pod_name, terms, self._wanted_indexes, self._unused_index)
        place, address = (settings.lease_namespace, settings.lease_name), settings.peer_address
        return LeaderElector(self._api, place, candidate, address, self._lead, self._follow, self._allocate)

    def _among_others(self) -> Peers:
        found, settle = self._certificates, self._settings.lease_duration
        everybody, valid = self._replicas.addresses, self._elector.valid
        ended = self._proxies.ended if self._proxies else (lambda _: False)
        terms = Terms(self._settings.pod_ip, everybody, valid, time.time, ticks, settle, ended)
        secure = (lambda: credentials.channel(found.read())) if found else None
        peers = Peers(terms, self.engine, self._elector.renew_now, secure, self._settings.server_name or None)
        peers.merged.on_faults.append(lambda: self._tell.rejected(peers.merged.faults()))
        return peers

    def _listed(self) -> Listed:
        """Return the endpoints that decide which streams are served."""
        return Listed(self._proxies.pods() if self._proxies else None, self._replicas.addresses())

    def _sampling_of(self, asked: PrometheusSettings | None) -> Sampler:
        merged = self._peers.merged
        ports = self._settings.stats_ports
        admin = AdminStats(merged.stats, time.time, sample_source.ADMIN_TIMEOUT_SECONDS, service_of_stat, ports)
        self._source = sample_source.prometheus(asked, merged.envoys) if asked else admin
        interval, spacing = self._settings.sample_interval, sample_source.spacing(asked)
        return Sampler(self._source, interval, spacing, time.time, self._sampled)

    def _world(self) -> World:
        """What metrics look at. Of services only the leader tells, or each would be counted once a replica."""
        return World(
            services=lambda: self.engine.services if self.engine.leads else {},
            envoys=lambda: self._router.nodes(),
            holders=lambda: self._holders.connected,
            all_holders=lambda: self._peers.merged.ledger.holders.connected,
            ready=lambda: self._opened,
            leads=self._leads,
            now=time.time,
            ticks=time.monotonic,
            refused_streams=lambda: self._admission.refused,
            plaintext=lambda: self._certificates is None,
            expiries=self._expiries,
        )

    # Who leads

    def _leads(self) -> bool:
        return self._elector.valid()

    def _lead(self, since: float) -> None:
        self._peers.lead(since)
        self._backend.lead(True)
        self._store.lead()
        self._events.lead()
        self._finalizers.lead()
        self._commands.lead()
        self._catalogue.lead()
        self._metrics.lead()
        self._tell.again(self.engine.untold())

    def _follow(self, leader: str | None) -> None:
        if self._started:
            self._peers.follow(leader)
        self._backend.lead(False)
        self._store.follow()

    def _allocate(self) -> None:
        """There are indexes again: services that waited for one have a record now, and hear commands."""
        if len(self.engine.services) > self._settings.hold.size:
            return  # each index is that of an address in use; asking for more and more would change nothing
        self.engine.allocate()
        self._commands.again()

    def _wanted_indexes(self) -> int:
        return sum(1 for service in self.engine.services.values() if service.record is None)

    def _unused_index(self) -> int:
        """Beyond all that are in use, as far as records tell."""
        items = self._catalogue.scaled_services.items.values()
        used = (self._settings.hold.index(address) for item in items if (address := item.status.hold_address))
        return max((index + 1 for index in used if index is not None), default=FIRST_INDEX)

    def _expiries(self) -> Mapping[str, float]:
        return self._certificates.expiries if self._certificates else {}

    def _standing(self) -> dict[str, Any]:
        """Who leads, for people."""
        return {
            "replica": self._settings.pod_name,
            "leads": self._leads(),
            "leader": self._elector.holder,
            "plaintext": self._certificates is None,
            "certificates": {name: moment(until) for name, until in self._expiries().items()},
            "replicas": sorted(self._replicas.addresses()),
            "connected": sorted(self._peers.connected()),
            "doubt": words(self._peers.merged.doubt()) if self._leads() else None,
        }

    # What is seen

    def _configure(self, entries: ServiceConfigs, problems: Problems) -> None:
        """New services are routed before they are looked at, old ones are off the route before they are left alone."""
        self._asked = entries, problems
        if not self._started or self._closing:
            return
        specs = [entry.spec for entry in entries.values()]
        if len(specs) > (room := self._settings.hold.size):
            log.error("more services than hold addresses; some stay awake: widen the hold ports", addresses=room)
        self._leaving.configure(self.engine.services, entries.keys())
        if not self._route(specs):
            return
        self.engine.configure(specs)
        self._metrics.configured()
        self._backend.configure(entries)
        self._finalizers.configure(entries.keys())
        self._tell.wrong(problems)

    def _route(self, specs: Sequence[Spec]) -> bool:
        """Tell Envoys of all services, and of those that leave; whether they can be served."""
        http, tls = f"{ANY}:{self._settings.http_port}", f"{ANY}:{self._settings.tls_port}"
        try:
            self._router.configure(http, tls, specs, self._leaving.specs)
        except ValueError as error:
            log.error("what is asked for cannot be served; what was before stays", problems=str(error).splitlines())
            return False
        return True

    def _needed(self, name: str) -> str | None:
        """Why a service that is being deleted cannot go yet."""
        service, merged = self.engine.services.get(name), self._peers.merged
        if service is None or service.record is None:
            return None  # nobody was ever led to where one waits
        if not (service.seen.held or merged.envoys() or merged.doubt()):
            return None  # there is nobody to lead anyone there
        is_missing = self._backend.is_missing(name)
        return still_needed(service.record, service.spec, service.seen, is_missing, time.time())

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
        self._tell.ran(running)

    def _joined(self) -> None:
        """Envoys and holders of ours came or went."""
        self._peers.came_or_went(self._router.stats(), self._holders.connected)

    def _sampled(self, sample: Sample) -> None:
        if self._leaving.sampled(sample) and self._asked:  # a follower has no samples: it leaves them the whole time
            self._route([entry.spec for entry in self._asked[0].values()])
        if self._leads():
            self.engine.sampled(sample)
            self._metrics.sampled(sample, self.engine.doubt)


async def _no_envoy() -> bytes:
    """Each Envoy shows its own statistics."""
    raise OSError("there is none in this pod; each Envoy shows its statistics itself")


def _rejected(node: str, why: str) -> None:
    log.error("Envoy rejected a configuration; its last good one stays in force", envoy=node, why=why)
