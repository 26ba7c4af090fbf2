"""The stream to the reconciler: gRPC in a thread of its own, messages to and from the holder's loop.

The holder never waits for it. The loop encodes a message and puts it into a queue, which a thread of grpcio empties.
Received messages are decoded here and passed to the loop. When a stream ends, another one is opened, with exponential
backoff and jitter. Keepalive pings end a stream whose other end disappeared; a server must permit them
(`grpc.http2.min_ping_interval_without_data_ms` at most `KEEPALIVE_SECONDS`), or it ends the stream with
ENHANCE_YOUR_CALM.

Reports are sent over the current stream: the first held connection of a service at once, other changes within
milliseconds.
"""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc
import msgspec
import structlog

from tproxy.hold_queue import HoldQueue
from tproxy.io.loop import Loop, Timer
from tproxy.wire import DOWN, ENCODER, METHOD, AssignmentUpdate, HolderHello, HolderReport

log = structlog.get_logger("tproxy")

KEEPALIVE_SECONDS = 10.0
BACKOFF_SECONDS_MIN = 0.05
BACKOFF_SECONDS_MAX = 2.0
MAX_QUEUED = 4096
"""Messages that the other end has not taken. Beyond this number the stream is closed: the next one begins with
totals."""
COALESCE_SECONDS = 0.003

Options = list[tuple[str, int | str]]

_OPTIONS: Options = [
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # The first message has the assignments of all services, each with all its endpoints.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files for mutual TLS: the holder's certificate, its key, and the CAs of the reconciler's certificate."""

    certificate: Path
    key: Path
    authority: Path
    server_name: str | None = None
    """DNS name in the reconciler's certificate; None: the host of the target."""


class Link:
    """The sending side of one stream. `on_overflow` is called when the other end does not take messages."""

    def __init__(self, on_overflow: Callable[[], object]) -> None:
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._on_overflow = on_overflow

    def send(self, message: HolderReport) -> None:
        """Queue a message. Never blocks; after the stream has ended, the message is lost."""
        if self._queue.qsize() < MAX_QUEUED:
            self._queue.put(ENCODER.encode(message))
        else:
            self._on_overflow()

    def end(self) -> None:
        """End the stream after the queued messages."""
        self._queue.put(None)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._queue.get, None)


class HoldReporter:
    """Reports changed queues, as totals, over the current stream."""

    def __init__(self, loop: Loop, hello: HolderHello, queues: Callable[[], Iterable[HoldQueue]]) -> None:
        self._loop = loop
        self._hello = hello
        self._queues = queues
        self._link: Link | None = None
        self._acked = 0
        self._changed: dict[str, HoldQueue] = {}
        self._timer: Timer | None = None

    def report(self, queue: HoldQueue, at_once: bool = False) -> None:
        """Report a queue that changed, together with others unless `at_once`."""
        if self._link is None:
            return
        self._changed[queue.address] = queue
        if at_once:
            self._flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(COALESCE_SECONDS, self._flush)

    def report_rules(self, rules: bool) -> None:
        """Mode tproxy: report whether rules redirect connections to the holder, now and on each new stream."""
        self._hello = HolderHello(self._hello.holder, self._hello.mode, rules)
        if self._link is not None:
            self._link.send(HolderReport(acked=self._acked, rules=rules))

    def acknowledge(self, link: Link, version: int) -> None:
        """Report that an `AssignmentUpdate` of this stream is in force."""
        if self._link is link:
            self._acked = version
            self._flush(force=True)

    def connected(self, link: Link) -> None:
        """Report everything over a new stream."""
        self._link = link
        self._acked = 0
        self._changed.clear()
        link.send(
            HolderReport(hello=self._hello, counts=tuple(queue.count() for queue in self._queues() if queue.used))
        )

    def disconnected(self, link: Link) -> None:
        """Stop reporting over a stream that has ended."""
        if self._link is link:
            self._link = None

    def _flush(self, force: bool = False) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._link is not None and (self._changed or force):
            counts = tuple(queue.count() for queue in self._changed.values())
            self._changed.clear()
            self._link.send(HolderReport(acked=self._acked, counts=counts))


class Receiver(Protocol):
    """The holder, as the stream sees it. Called in the loop's thread."""

    def opened(self, link: Link) -> None: ...

    def received(self, link: Link, down: AssignmentUpdate) -> None: ...

    def closed(self, link: Link, error: str) -> None: ...


class ReconcilerStream:
    """Keeps a stream open to `target`, `host:port`, until it is closed."""

    def __init__(
        self, target: str, loop: Loop, receiver: Receiver, keepalive_seconds: float, tls: TlsFiles | None
    ) -> None:
        self._target, self._tls = target, tls
        self._options: Options = [
            *_OPTIONS,
            ("grpc.keepalive_time_ms", int(keepalive_seconds * 1000)),
            ("grpc.keepalive_timeout_ms", int(keepalive_seconds * 1000 / 3)),
            # The keepalive timeout alone is not enough: the ping itself has a longer one, which would decide.
            ("grpc.http2.ping_timeout_ms", int(keepalive_seconds * 1000 / 3)),
        ]
        self._loop = loop
        self._receiver = receiver
        self._closed = threading.Event()
        self._call: grpc.Call | None = None
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the stream and wait for its thread."""
        self._closed.set()
        call = self._call
        if call is not None:
            call.cancel()
        self._thread.join(2)

    def _on_overflow(self) -> None:
        call = self._call
        if call is not None and call.is_active():
            log.error("reconciler does not read; reconnecting")
            call.cancel()

    def _run(self) -> None:
        failures = 0
        while not self._closed.is_set():
            if self._serve_stream():
                failures = 0
            self._closed.wait(backoff_seconds(failures, random.random()))
            failures += 1

    def _serve_stream(self) -> bool:
        """Serve one stream until it ends, and return whether the other end sent any message."""
        link = Link(self._on_overflow)
        received = False
        reason = "the stream ended"
        soon = self._loop.call_soon_threadsafe
        try:
            channel = open_channel(self._target, self._options, self._tls)
        except OSError as error:
            log.error("failed to read the TLS files", error=str(error))
            return False
        try:
            soon(lambda: self._receiver.opened(link))
            self._call = call = channel.stream_stream(METHOD)(iter(link))
            if self._closed.is_set():
                call.cancel()
            for data in call:
                down = DOWN.decode(data)
                received = True
                soon(lambda down=down: self._receiver.received(link, down))  # type: ignore[misc]
        except grpc.RpcError as error:
            reason = f"{error.code().name}: {error.details()}"
        except (msgspec.MsgspecError, ValueError) as error:
            reason = f"invalid message: {error}"
            log.error("reconciler uses another protocol", error=reason)
        except Exception as error:  # for example, no thread can be started; if this thread ended, no service would wake
            reason = repr(error)
            log.error("stream failed unexpectedly", exc_info=error)
        finally:
            self._call = None
            link.end()
            soon(lambda: self._receiver.closed(link, reason))
            channel.close()
        return received


def backoff_seconds(failures: int, chance: float) -> float:
    """Return the delay after `failures` in a row; `chance` in [0, 1) spreads holders that fail together."""
    return min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_MIN * 2.0 ** min(failures, 16)) * (0.5 + chance / 2)


def open_channel(target: str, options: Options, tls: TlsFiles | None) -> grpc.Channel:
    """Return a channel to the reconciler. Raises `OSError` if a file cannot be read.

    The files are read for each stream, so that replaced certificates need no restart.
    """
    if tls is None:
        return grpc.insecure_channel(target, options=options)
    credentials = grpc.ssl_channel_credentials(
        tls.authority.read_bytes(), tls.key.read_bytes(), tls.certificate.read_bytes()
    )
    override = [("grpc.ssl_target_name_override", tls.server_name)] if tls.server_name else []
    return grpc.secure_channel(target, credentials, options=[*options, *override])
