"""The functions that are fuzzed: each takes bytes from outside and may raise nothing.

A target asserts what must hold for any input. Errors that the product's callers handle are part of its contract; a
target lets them pass and lets everything else through.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import isfinite
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import grpc
import msgspec

from reconciler.core.busy import of_status
from reconciler.core.reasons import Reason
from reconciler.core.record import Record, State
from reconciler.core.spec import Spec
from reconciler.core.traffic import Sample
from reconciler.envoy.admin_stats import Parser, UnusableStatsError
from reconciler.envoy.prometheus.settings import PrometheusSettings
from reconciler.envoy.prometheus.stats import PrometheusStats
from reconciler.envoy.xds_router import service
from reconciler.http_get import parse_status
from reconciler.kubernetes.config.annotations import item_of, parse_annotations
from reconciler.kubernetes.config.busy import busy_until
from reconciler.kubernetes.config.resolve import ClusterConfig, resolve
from reconciler.kubernetes.config.service_config import ServiceConfig
from reconciler.kubernetes.types.builtin import Service, ServicePort, ServiceSpec
from reconciler.kubernetes.types.objects import ObjectMeta, decoder
from reconciler.kubernetes.types.scaled_service import ScaledService
from reconciler.local import services_file
from reconciler.ports.clock import Clock
from reconciler.ports.holders import HoldOrder, HoldStatus
from reconciler.replication import messages as peer_wire
from reconciler.replication.fleet import ReplicaContext
from reconciler.replication.leader import PeerServer
from reconciler.replication.replication import Replication
from reconciler.server.holders import HolderStreams
from tests.fakes.member_list import MemberList
from tests.fuzz.messages import split
from tproxy import wire as holder_wire
from tproxy.protocols import client_address, http2
from tproxy.protocols.client_address import forwarded_for
from tproxy.protocols.refusal_response import RefusalResponse
from xds import ir
from xds.ads.codec import MalformedError
from xds.ads.delta import DeltaStream
from xds.ads.sotw import SotwStream
from xds.names import ORDER
from xds.resources.snapshot import Snapshot

LISTEN = ir.Listen(ir.SocketAddress("127.0.0.1", 10000), ir.SocketAddress("127.0.0.1", 10443))
NOW = 1_700_000_000.0
HOLD_ADDRESS = "127.64.0.1:18001"
LONGEST_REFUSAL_BYTES = 64
"""The most bytes of an answer that one byte of HTTP/2 may cause."""
LAST_STREAM = 2**31 - 1
_WEB = Service(
    ObjectMeta(name="web", namespace="shop"), ServiceSpec(selector={"app": "web"}, ports=(ServicePort("http", 80),))
)


def xds_delta(data: bytes) -> None:
    """Feed an Envoy's incremental ADS stream."""
    _converse(DeltaStream, data)


def xds_sotw(data: bytes) -> None:
    """Feed an Envoy's state-of-the-world ADS stream."""
    _converse(SotwStream, data)


def _converse(protocol: type[DeltaStream | SotwStream], data: bytes) -> None:
    world = Snapshot()
    world.configure(LISTEN, [ir.Upstream("shop/web", ir.ServiceProtocol.HTTP, ("web.shop",))])
    world.route("shop/web", (ir.SocketAddress("127.0.0.1", 8080),))
    stream = protocol(world)
    for message in split(data):
        try:
            stream.identify(message)
            stream.receive(message, NOW)
        except MalformedError:
            return
        stream.flush()
    for type_url in ORDER:
        assert set(stream.types[type_url].table) == set(world.table(type_url))


def first_bytes(data: bytes) -> None:
    """Look at what a held connection begins with, as it arrives and when all of it is there."""
    forwarded_for(data)
    header = client_address.read_header(data)
    if header is not None:
        assert header.size <= len(data)
        for end in range(max(0, min(header.size, 64) - 1)):
            assert client_address.read_header(data[:end]) in (None, header)


def refused_http2(data: bytes) -> None:
    """Refuse an HTTP/2 client, regardless of its bytes and of how they are cut into reads."""
    data = http2.PREFACE + data[len(http2.PREFACE) :]
    at_once, piecewise = (RefusalResponse("not ready", 5, LAST_STREAM) for _ in range(2))
    out = at_once.receive(data)
    assert len(out) <= LONGEST_REFUSAL_BYTES * (len(data) + 1)
    for at in range(len(data)):
        piecewise.receive(data[at : at + 1])
    assert piecewise.last_stream == at_once.last_stream
    assert piecewise.done == at_once.done


def services_yaml(data: bytes) -> None:
    """Read a services file."""
    found = services_file.read(Path("/srv/services.yaml"), data)
    if isinstance(found, services_file.ServicesFile):
        _translate([entry.spec for entry in found.services])
    else:
        assert found
        assert all(str(problem) for problem in found)


def status_line(data: bytes) -> None:
    """Read the answer of a program to a readiness probe or a busy check, and judge it."""
    status = parse_status(data)
    assert status is None or (100 <= status <= 999 and data.startswith(b"HTTP/1."))
    if status is not None:
        of_status("GET /busy", status)


def service_annotations(data: bytes) -> None:
    """Read a labelled Service's annotations: a line `name: value` each."""
    lines = data.decode(errors="replace").splitlines()
    pairs = {f"zenvoy.dev/{name.strip()}": value.strip() for name, _, value in (line.partition(":") for line in lines)}
    labelled = msgspec.structs.replace(_WEB, metadata=msgspec.structs.replace(_WEB.metadata, annotations=pairs))
    until = busy_until(None, labelled)
    assert until is None or until.at > 0 or until.blocker.code is Reason.BUSY_UNTIL
    said, problems = parse_annotations(labelled, ClusterConfig())
    if not problems:
        _wanted(item_of(_WEB, said))


def scaled_service(data: bytes) -> None:
    """Decode a ScaledService's spec as the API server sends it, and resolve it."""
    try:
        item = decoder(ScaledService)(b'{"metadata":{"name":"web","namespace":"shop"},"spec":%s}' % data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return  # the API server sends only what the CRD's schema lets through, as UTF-8
    _wanted(item)


def _wanted(item: ScaledService) -> None:
    found = resolve(item, _WEB, ClusterConfig())
    if isinstance(found, ServiceConfig):
        _translate([found.spec])


def _translate(specs: list[Spec]) -> None:
    """Assert that Envoy can be configured with what validation accepted."""
    Snapshot().configure(LISTEN, [service(spec) for spec in specs])


def admin_stats(data: bytes) -> None:
    """Read the statistics that an Envoy's admin port answers with."""
    parser = Parser()
    with suppress(UnusableStatsError, ValueError):
        parser.feed(data)
        parser.reading()


def holder_stream(data: bytes) -> None:
    """Feed a holder's stream."""
    reports: list[HoldStatus] = []
    streams = HolderStreams(reports.append, lambda: NOW, forget_seconds=0.0)
    streams.order("web", HoldOrder(Spec(name="web"), HOLD_ADDRESS, (), None))
    _serve(streams.handler(), holder_wire.METHOD, data)
    for report in reports:
        assert _is_finite(report)
    assert not streams.known


def peer_stream(data: bytes) -> None:
    """Feed a follower's stream to the leader."""
    reports: list[Any] = []
    terms = ReplicaContext(
        "10.0.0.1", MemberList({"10.0.0.1", "10.0.0.2"}), lambda: True, Clock(lambda: NOW, lambda: 0.0), 0.0
    )
    replication = Replication(terms)
    engine = SimpleNamespace(routed=reports.append, held=reports.append, record_progress=lambda name: None)
    own = SimpleNamespace(route=lambda *_: None, order=lambda *_: None)
    replication.attach(engine, own, own)
    replication.lead(0.0)
    replication.holders.order("web", HoldOrder(Spec(name="web"), HOLD_ADDRESS, (), None))
    replication.share("web", Record(State.ScaledToZero, NOW, "", 1, HOLD_ADDRESS), False)
    _serve(PeerServer(replication).handler(), peer_wire.METHOD, data)
    for report in reports:
        assert _is_finite(report)
    assert replication.members.leads


def _is_finite(report: Any) -> bool:
    """Return whether people can be shown a report: JSON has no NaN and no infinity."""
    return all(
        isfinite(value)
        for value in (getattr(report, field.name) for field in fields(report))
        if isinstance(value, float)
    )


def _serve(handler: grpc.GenericRpcHandler, method: str, data: bytes) -> None:
    """Run a stream's server over the messages of an input, without a network."""
    stream = handler.service(SimpleNamespace(method=method, invocation_metadata=()))

    async def messages() -> AsyncIterator[Any]:
        for message in split(data):
            try:
                decoded = stream.request_deserializer(message)
            except (msgspec.MsgspecError, ValueError):
                return  # admission ends the stream
            yield decoded

    async def run() -> None:
        with suppress(_AbortedError):
            async for answer in stream.stream_stream(messages(), _Context()):
                stream.response_serializer(answer)

    asyncio.run(run())


class _AbortedError(Exception):
    """The server ended the stream."""


class _Context:
    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        assert len(details) < 500
        raise _AbortedError


class _Prometheus(ThreadingHTTPServer):
    """A Prometheus that answers each query with the next of these bodies."""

    bodies: tuple[bytes, ...] = ()

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, _Prometheus)
        body = self.server.bodies[0 if "time%28%29" in self.path else -1]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing: there is one request for each input."""


@cache
def _prometheus() -> _Prometheus:
    return _Prometheus()


def prometheus_answer(data: bytes) -> None:
    """Take a sample from a Prometheus: its answers about the time and about the series."""
    server = _prometheus()
    server.bodies = (*split(data), b"")[:2]
    settings = PrometheusSettings(server.url, scrape_interval=1.0)

    async def sample() -> Sample:
        stats = PrometheusStats(settings, lambda: NOW, lambda: frozenset({"envoy-1"}))
        try:
            return await stats.sample()
        finally:
            await stats.close()

    taken = asyncio.run(sample())
    assert {*taken.envoys, *taken.missing} == {"envoy-1"}


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        admin_stats,
        first_bytes,
        holder_stream,
        peer_stream,
        prometheus_answer,
        refused_http2,
        scaled_service,
        service_annotations,
        services_yaml,
        status_line,
        xds_delta,
        xds_sotw,
    )
}
