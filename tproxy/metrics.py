"""The holder's HTTP port: /metrics, /healthz, /readyz. In a thread; everything is read at the scrape.

A service has series from its first connection on: ten thousand that were never used cost a scrape nothing. What is no
service's has the empty name: who waits at an address that the reconciler has not spoken of yet, and what is relayed
still for a service that was removed. Of the counters only refusals have it: the others would fall when those end.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from tproxy import address
from tproxy.holder import Holder

_P = "zenvoy_holder_"
MOST = 32
"""Connections at once; the budget of descriptors has a reserve for them."""
CONNECTION_SECONDS = 10.0
PAUSE_SECONDS = 0.05
BACKLOG = 64
OPENMETRICS = "application/openmetrics-text"
NOBODY = ""
"""The label `service` of what is no service's."""


class HolderCollector(Collector):
    """What the holder has counted, in the design's words."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder

    def describe(self) -> list[Metric]:
        """Nothing beforehand: registering must not read."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All series."""
        held = GaugeMetricFamily(_P + "held", "Connections that wait.", labels=["service"])
        relayed = GaugeMetricFamily(_P + "relayed", "Connections that are connected through.", labels=["service"])
        released = CounterMetricFamily(_P + "released", "Held connections that were connected.", labels=["service"])
        refused = CounterMetricFamily(_P + "refused", "Connections that were refused.", labels=["service", "reason"])
        gone = CounterMetricFamily(_P + "gone", "Held connections whose client gave up.", labels=["service"])
        moved = CounterMetricFamily(_P + "relayed_bytes", "Bytes relayed.", labels=["service", "direction"])
        for cause, count in list(self._holder.refused.items()):
            refused.add_metric([NOBODY, cause], count)
        nobodys = []
        for gate in list(self._holder.gates.values()):
            park = gate.park
            service = [park.service]
            if service == [NOBODY]:
                nobodys.append(park)
                continue
            held.add_metric(service, park.held)
            relayed.add_metric(service, park.relayed)
            released.add_metric(service, park.released)
            gone.add_metric(service, park.gone)
            for cause, count in list(park.refused.items()):
                refused.add_metric([*service, cause], count)
            live = list(gate.live)
            moved.add_metric([*service, "up"], park.relayed_bytes[0] + sum(one.bytes_up for one in live))
            moved.add_metric([*service, "down"], park.relayed_bytes[1] + sum(one.bytes_down for one in live))
        held.add_metric([NOBODY], sum(park.held for park in nobodys))
        relayed.add_metric([NOBODY], sum(park.relayed for park in nobodys))
        yield from (held, relayed, released, refused, gone, moved)
        budget = self._holder.budget
        yield GaugeMetricFamily(_P + "stream_up", "Whether the reconciler speaks to us.", value=self._holder.is_linked)
        if self._holder.keeping.is_up is not None:
            what = "Whether held connections outlive the holder: a keeper has them too; no series without --keeper."
            yield GaugeMetricFamily(_P + "keeper_up", what, value=self._holder.keeping.is_up)
        if self._holder.is_diverted_to is not None:
            what = "Mode tproxy: whether rules divert connections here; no series before that is known."
            yield GaugeMetricFamily(_P + "rules", what, value=self._holder.is_diverted_to)
        yield GaugeMetricFamily(_P + "descriptors", "Descriptors in use, the reserve included.", value=budget.used)
        yield GaugeMetricFamily(_P + "descriptors_limit", "Descriptors that may be in use.", value=budget.limit)
        yield GaugeMetricFamily(_P + "assignments", "Hold addresses assigned.", value=len(self._holder.assignments))


def _acceptable(accept: str) -> str:
    """Return an `Accept` header that prometheus-client can parse: it raises on, and repeats, what a client sends."""
    types = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return f"{OPENMETRICS}; version=1.0.0" if OPENMETRICS in types else ""


class _Server(ThreadingHTTPServer):
    """A thread for each connection, each of which has one request and `CONNECTION_SECONDS` for all of it.

    Beyond `MOST` the oldest is closed for a new one, so that probes are answered while a stranger keeps others open.
    """

    daemon_threads = True
    request_queue_size = BACKLOG
    registry: CollectorRegistry
    is_ready: Callable[[], bool]
    is_alive: Callable[[], bool]

    def __init__(self, *args: Any) -> None:
        self._open: dict[socket.socket, float] = {}
        """Since when, by the monotonic clock; the oldest first."""
        self.ended: set[socket.socket] = set()
        """Of those, the ones that are to get no answer."""
        self._lock = threading.Lock()
        super().__init__(*args)

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(PAUSE_SECONDS)  # this thread would try again at once, and forever
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._open) - len(self.ended) >= MOST:
                self._end(next(one for one in self._open if one not in self.ended))
            self._open[request] = time.monotonic()
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """End connections that have had their time; called several times a second."""
        before = time.monotonic() - CONNECTION_SECONDS
        with self._lock:
            for request in [one for one, since in self._open.items() if since <= before and one not in self.ended]:
                self._end(request)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
            self.ended.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Write nothing for each client that is gone."""

    def _end(self, request: socket.socket) -> None:
        """Wake the thread that reads or writes there, which then closes it."""
        self.ended.add(request)
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        """One of the three pages."""
        if self.connection in self.server.ended:
            return  # what looks like the end of its headers is that of the connection
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encode, content_type = choose_encoder(_acceptable(self.headers.get("Accept", "")))
            self._answer(200, content_type, encode(self.server.registry))
        elif path == "/healthz":
            alive = self.server.is_alive()
            said = b"ok\n" if alive else b"not healthy: the holder's loop does not answer\n"
            self._answer(200 if alive else 503, "text/plain; charset=utf-8", said)
        elif path == "/readyz":
            ready = self.server.is_ready() and self.server.is_alive()
            said = b"ok\n" if ready else b"not ready: not listening, or the reconciler has not spoken yet\n"
            self._answer(200 if ready else 503, "text/plain; charset=utf-8", said)
        else:
            self._answer(404, "text/plain; charset=utf-8", b"there are /metrics, /healthz and /readyz\n")

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are not worth a line."""

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class MetricsPort:
    """The HTTP port, open until `close`."""

    def __init__(self, listen: str, holder: Holder, is_ready: Callable[[], bool], is_alive: Callable[[], bool]) -> None:
        """Raises OSError if the port is taken."""
        family, target = address.sockaddr(listen)
        registry = CollectorRegistry()
        registry.register(HolderCollector(holder))
        server_class = type("_Server", (_Server,), {"address_family": family})
        self._server: _Server = server_class(target, _Handler)
        self._server.registry = registry
        self._server.is_ready, self._server.is_alive = is_ready, is_alive
        self.address = address.join(*self._server.server_address[:2])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()
