"""An xDS client to write conversations with: it speaks betterproto2, so that our code does not judge itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from tests.xds import oracle as api
from tests.xds.oracle import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
    Status,
)
from xds import ir
from xds.ads.delta import DeltaStream
from xds.ads.sotw import SotwStream
from xds.ads.stream import Receipt, Stream
from xds.names import CDS, EDS, LDS, RDS
from xds.resources.snapshot import Snapshot, resource

SHORT = {CDS: "CDS", EDS: "EDS", LDS: "LDS", RDS: "RDS"}
LISTEN = ir.Listen(http=ir.SocketAddress("127.0.0.1", 10000), tls=ir.SocketAddress("127.0.0.1", 10001))
HELD = (ir.SocketAddress("127.64.0.7", 18001),)
PODS = (ir.SocketAddress("10.0.0.1", 8080), ir.SocketAddress("fd00::1", 8080))


def http(name: str) -> ir.Upstream:
    return ir.Upstream(name, ir.ServiceProtocol.HTTP, (f"{name}.localhost",))


def tcp(name: str, port: int) -> ir.Upstream:
    return ir.Upstream(name, ir.ServiceProtocol.TCP, listen=ir.SocketAddress("127.0.0.1", port))


def world(*services: ir.Upstream) -> Snapshot:
    """Return a world in which these services are asleep."""
    made = Snapshot()
    made.configure(LISTEN, services)
    for service in services:
        made.route(service.name, HELD)
    return made


@dataclass(frozen=True)
class Answer:
    """A response, read by betterproto2."""

    type_url: str
    nonce: str
    version: str
    names: tuple[str, ...]
    removed: tuple[str, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    """By name, the version that a delta response gives, or the hash of what a state-of-the-world response has."""
    leads_to: frozenset[str] = frozenset()
    """The clusters that routes lead to."""

    def __str__(self) -> str:
        gone = "".join(f" -{name}" for name in self.removed)
        return f"{SHORT[self.type_url]}{''.join(f' {name}' for name in sorted(self.names))}{gone}"


def leads_to(resources: Iterable[api.Any]) -> frozenset[str]:
    """Return the clusters that these resources lead to, if they are routes."""
    unpacked = [packed.unpack() for packed in resources]
    configurations = [message for message in unpacked if isinstance(message, api.route_v3.RouteConfiguration)]
    return frozenset(
        route.route.cluster
        for configuration in configurations
        for host in configuration.virtual_hosts
        for route in host.routes
        if route.route is not None and route.route.cluster
    )


class Client(ABC):
    """The common part of the clients of both protocols."""

    world: Snapshot
    stream: Stream
    now: float

    @abstractmethod
    def asks(self, type_url: str, *names: str) -> list[Answer]:
        """Subscribe and return the answers."""

    @abstractmethod
    def answers(self, answer: Answer, error: str | None = None, *, nonce: str | None = None) -> Receipt:
        """Accept an answer, or reject it."""

    @abstractmethod
    def hears(self) -> list[Answer]:
        """Return what is due."""

    def settles(self) -> list[str]:
        """Accept everything until nothing more comes, and return what came."""
        heard = []
        while answers := self.hears():
            for answer in answers:
                heard.append(str(answer))
                self.answers(answer)
        return heard

    def joins(self, *, endpoints: Iterable[str]) -> list[str]:
        """Do as Envoy does on its first connection, and return all that came."""
        came = [*self.asks(CDS), *self.asks(EDS, *endpoints), *self.asks(LDS), *self.asks(RDS, "http")]
        for answer in came:
            self.answers(answer)
        return [*map(str, came), *self.settles()]


class DeltaClient(Client):
    """A client of the incremental protocol."""

    def __init__(self, of: Snapshot) -> None:
        self.world = of
        self.stream = DeltaStream(of)
        self.now = 100.0

    def asks(
        self, type_url: str, *names: str, drops: Iterable[str] = (), has: dict[str, str] | None = None
    ) -> list[Answer]:
        """Subscribe (and unsubscribe) and return the answers."""
        request = DeltaDiscoveryRequest(
            node=api.core_v3.Node(id="envoy"),
            type_url=type_url,
            resource_names_subscribe=list(names),
            resource_names_unsubscribe=list(drops),
            initial_resource_versions=has or {},
        )
        self.receipt = self.stream.receive(bytes(request), self.now)
        return self.hears()

    def answers(self, answer: Answer, error: str | None = None, *, nonce: str | None = None) -> Receipt:
        """Accept an answer, or reject it."""
        status = None if error is None else Status(code=13, message=error)
        request = DeltaDiscoveryRequest(
            type_url=answer.type_url, response_nonce=answer.nonce if nonce is None else nonce, error_detail=status
        )
        self.now += 1
        return self.stream.receive(bytes(request), self.now)

    def hears(self) -> list[Answer]:
        """Return what is due."""
        return [self._read(data) for data in self.stream.flush()]

    @staticmethod
    def _read(data: bytes) -> Answer:
        message = DeltaDiscoveryResponse.parse(data)
        for framed in message.resources:
            assert framed.resource is not None
            assert framed.resource.type_url == message.type_url
            assert SotwClient._name(framed.resource) == framed.name
        versions = tuple((framed.name, framed.version) for framed in message.resources)
        return Answer(
            message.type_url,
            message.nonce,
            message.system_version_info,
            tuple(name for name, _ in versions),
            tuple(message.removed_resources),
            versions,
            leads_to([framed.resource for framed in message.resources if framed.resource]),
        )


class SotwClient(Client):
    """A client of the state-of-the-world protocol; it repeats its names and its last version, as Envoy does."""

    def __init__(self, of: Snapshot) -> None:
        self.world = of
        self.stream = SotwStream(of)
        self.now = 100.0
        self.names: dict[str, tuple[str, ...]] = {}
        self.last: dict[str, Answer] = {}
        self.versions: dict[str, str] = {}

    def asks(self, type_url: str, *names: str, nonce: str | None = None) -> list[Answer]:
        """Subscribe to exactly these and return the answers."""
        self.names[type_url] = names
        last = self.last.get(type_url)
        self._request(type_url, (last.nonce if last else "") if nonce is None else nonce)
        return self.hears()

    def answers(self, answer: Answer, error: str | None = None, *, nonce: str | None = None) -> Receipt:
        """Accept an answer, or reject it."""
        if error is None:
            self.versions[answer.type_url] = answer.version
        return self._request(answer.type_url, answer.nonce if nonce is None else nonce, error)

    def _request(self, type_url: str, nonce: str, error: str | None = None) -> Receipt:
        request = DiscoveryRequest(
            version_info=self.versions.get(type_url, ""),
            node=api.core_v3.Node(id="envoy"),
            resource_names=list(self.names.get(type_url, ())),
            type_url=type_url,
            response_nonce=nonce,
            error_detail=None if error is None else Status(code=13, message=error),
        )
        self.now += 1
        return self.stream.receive(bytes(request), self.now)

    def hears(self) -> list[Answer]:
        """Return what is due."""
        heard = [self._read(data) for data in self.stream.flush()]
        self.last.update((answer.type_url, answer) for answer in heard)
        return heard

    @staticmethod
    def _read(data: bytes) -> Answer:
        message = DiscoveryResponse.parse(data)
        names = [SotwClient._name(packed) for packed in message.resources]
        versions = tuple(
            (name, resource(name, packed.value).version) for name, packed in zip(names, message.resources, strict=True)
        )
        return Answer(
            message.type_url,
            message.nonce,
            message.version_info,
            tuple(names),
            versions=versions,
            leads_to=leads_to(message.resources),
        )

    @staticmethod
    def _name(packed: api.Any) -> str:
        message = packed.unpack()
        return str(getattr(message, "name", None) or message.cluster_name)  # type: ignore[union-attr]
