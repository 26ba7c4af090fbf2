"""The holder's HTTP port: /metrics, /healthz, /readyz. It runs in a thread and reads everything at the scrape.

A service has series from its first connection on: services that were never used cost a scrape nothing. The empty
service label covers connections that belong to no service: those held at an address before its first assignment, and
those relayed for a service that was removed. Of the counters, only refusals have it: the others would decrease when
such connections end.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from tproxy import address
from tproxy.holder import Holder
from tproxy.io import tcp
from tproxy.io.listener import Listener
from tproxy.io.loop import Loop

MAX_CONNECTIONS = 32
"""The budget of descriptors has a reserve for them."""
CONNECTION_SECONDS = 10.0
PAUSE_SECONDS = 0.05
BACKLOG = 64
LOOP_SECONDS = 2.0
"""The time that the loop has to answer a health check."""
OPENMETRICS = "application/openmetrics-text"
NO_SERVICE = ""
"""The value of the label `service` for connections that belong to no service."""
_PREFIX = "zenvoy_holder_"


class HolderCollector:
    """The metrics of a holder."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        yield from self._connections()
        holder, budget = self._holder, self._holder.budget
        yield _gauge("stream_up", "1 if the reconciler is connected.", holder.is_connected)
        if holder.keeper.is_connected is not None:
            help_text = "1 if a keeper is connected, so that held connections survive the holder; only with --keeper."
            yield _gauge("keeper_up", help_text, holder.keeper.is_connected)
        if holder.is_redirected is not None:
            help_text = "Mode tproxy: 1 if rules redirect connections to the holder; absent until that is known."
            yield _gauge("redirect_up", help_text, holder.is_redirected)
        yield _gauge("descriptors", "File descriptors in use, including the reserve.", budget.used)
        yield _gauge("descriptors_limit", "Maximum number of file descriptors in use.", budget.limit)
        yield _gauge("assignments", "Hold addresses assigned.", len(holder.assignments))

    def _connections(self) -> Iterator[Metric]:
        held = GaugeMetricFamily(_PREFIX + "held", "Held connections.", labels=["service"])
        relayed = GaugeMetricFamily(_PREFIX + "relayed", "Relayed connections.", labels=["service"])
        released = CounterMetricFamily(_PREFIX + "released", "Held connections that were released.", labels=["service"])
        refused = CounterMetricFamily(_PREFIX + "refused", "Refused connections.", labels=["service", "reason"])
        gone = CounterMetricFamily(_PREFIX + "gone", "Held connections whose client disconnected.", labels=["service"])
        silent = GaugeMetricFamily(
            _PREFIX + "silent", "Connections that count as held only from their first byte.", labels=["service"]
        )
        help_text = "Connections that ended before their first byte and woke nothing, such as probes."
        silent_ended = CounterMetricFamily(_PREFIX + "silent_ended", help_text, labels=["service"])
        help_text = "Released connections held again, because their endpoint ended them without an answer."
        redialed = CounterMetricFamily(_PREFIX + "redialed", help_text, labels=["service"])
        moved = CounterMetricFamily(_PREFIX + "relayed_bytes", "Relayed bytes.", labels=["service", "direction"])
        for cause, count in list(self._holder.refused.items()):
            refused.add_metric([NO_SERVICE, cause], count)
        held_unassigned = relayed_unassigned = 0
        for queue in [one.queue for one in list(self._holder.addresses.values())]:
            service = [queue.assignment.service]
            if service == [NO_SERVICE]:
                held_unassigned += queue.held
                relayed_unassigned += len(queue.relayed)
                continue
            held.add_metric(service, queue.held)
            relayed.add_metric(service, len(queue.relayed))
            released.add_metric(service, queue.released)
            gone.add_metric(service, queue.gone)
            redialed.add_metric(service, queue.redialed)
            silent.add_metric(service, len(queue.silent))
            silent_ended.add_metric(service, queue.silent_ended)
            for cause, count in list(queue.refused.items()):
                refused.add_metric([*service, cause], count)
            current = list(queue.relayed)
            moved.add_metric([*service, "up"], queue.bytes_up + sum(one.bytes_up for one in current))
            moved.add_metric([*service, "down"], queue.bytes_down + sum(one.bytes_down for one in current))
        held.add_metric([NO_SERVICE], held_unassigned)
        relayed.add_metric([NO_SERVICE], relayed_unassigned)
        yield from (held, relayed, released, refused, gone, silent, silent_ended, redialed, moved)


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, help_text, value=value)


def _supported_type(accept: str) -> str:
    """Return an `Accept` header that prometheus-client can parse: it raises on, and repeats, what a client sends."""
    types = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return f"{OPENMETRICS}; version=1.0.0" if OPENMETRICS in types else ""


class MetricsPort(ThreadingHTTPServer):
    """The HTTP port, open until `close`.

    There is a thread for each connection, which has one request and `CONNECTION_SECONDS` for it.
    If there are `MAX_CONNECTIONS`, a new one replaces the oldest, so that probes are answered while another client
    keeps connections open.
    """

    daemon_threads = True
    request_queue_size = BACKLOG

    def __init__(self, listen: str, holder: Holder, listener: Listener) -> None:
        """Open the port. Raises OSError if it is in use."""
        self.address_family, target = address.sockaddr(listen)
        self.holder, self.listener = holder, listener
        self.open: dict[socket.socket, float] = {}
        """By connection, its monotonic start; the oldest first. Those that receive no answer any more are removed."""
        self._lock = threading.Lock()
        super().__init__(target, _Handler)
        self.address = tcp.local_address(self.socket.fileno())
        threading.Thread(target=self.serve_forever, args=(0.2,), name="metrics", daemon=True).start()

    def close(self) -> None:
        """Close the port."""
        self.shutdown()
        self.server_close()

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(PAUSE_SECONDS)  # otherwise this thread would spin
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self.open) >= MAX_CONNECTIONS:
                self._end(next(iter(self.open)))
            self.open[request] = time.monotonic()
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """End connections whose time is over; called several times a second."""
        before = time.monotonic() - CONNECTION_SECONDS
        with self._lock:
            for request in [one for one, since in self.open.items() if since <= before]:
                self._end(request)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self.open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Write no traceback for a client that disconnected."""

    def _end(self, request: socket.socket) -> None:
        """Wake the thread of the connection, which then closes it."""
        del self.open[request]
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: MetricsPort

    def do_GET(self) -> None:
        """Answer with one of the three pages."""
        if self.connection not in self.server.open:
            return  # the shutdown of the connection looks like the end of the request's headers
        path = self.path.partition("?")[0]
        is_alive = path not in ("/healthz", "/readyz") or _loop_answers(self.server.holder.loop)
        if path == "/metrics":
            encode, content_type = choose_encoder(_supported_type(self.headers.get("Accept", "")))
            self._answer(200, content_type, encode(HolderCollector(self.server.holder)))
        elif path == "/healthz":
            self._answer_text(is_alive, "not healthy: the event loop does not answer")
        elif path == "/readyz":
            is_ready = is_alive and self.server.listener.is_open and self.server.holder.is_informed
            self._answer_text(is_ready, "not ready: not listening, or no assignments received yet")
        else:
            self._answer(404, "text/plain; charset=utf-8", b"not found; use /metrics, /healthz or /readyz\n")

    def log_message(self, format: str, *args: object) -> None:
        """Log no line for each scrape."""

    def _answer_text(self, is_ok: bool, problem: str) -> None:
        body = "ok\n" if is_ok else f"{problem}\n"
        self._answer(200 if is_ok else 503, "text/plain; charset=utf-8", body.encode())

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _loop_answers(loop: Loop) -> bool:
    called = threading.Event()
    loop.call_soon_threadsafe(called.set)
    return called.wait(LOOP_SECONDS)
