"""The stream to the reconciler: gRPC in a thread of its own, messages to and from the holder's loop.

The holder never waits for it. A message is encoded by the loop and put into a queue that a thread of grpcio empties;
what comes is decoded here and handed to the loop. When a stream ends another is tried, with exponential backoff and
jitter; keepalive pings end one whose other side vanished without a word. (A server must permit pings that often:
`grpc.http2.min_ping_interval_without_data_ms` at most `KEEPALIVE_SECONDS`, or it ends the stream by ENHANCE_YOUR_CALM.)
"""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

import grpc
import msgspec
import structlog

from tproxy.control import tls as secure
from tproxy.control.reporter import Link
from tproxy.control.tls import Tls
from tproxy.io.loop import Loop
from tproxy.wire import DOWN, ENCODER, METHOD, Down, Up

log = structlog.get_logger("tproxy")

KEEPALIVE_SECONDS = 10.0
FIRST_BACKOFF_SECONDS = 0.05
LAST_BACKOFF_SECONDS = 2.0
MOST_QUEUED = 4096
"""Messages that the other side has not taken yet. Past them the stream is given up: the next one begins with totals."""

_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # The first message has the assignments of all services, each with all its endpoints.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
]


class Receiver(Protocol):
    """The holder, as far as the stream is concerned. Called in the loop's thread."""

    def opened(self, link: Link) -> None: ...

    def received(self, link: Link, down: Down) -> None: ...

    def closed(self, link: Link, why: str) -> None: ...


class _Attempt:
    """One stream: what it sends is what is put into its queue. `overflow` is called when nobody takes it from there."""

    def __init__(self, overflow: Callable[[], object]) -> None:
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._overflow = overflow

    def send(self, message: Up) -> None:
        """Hand over a message."""
        if self._queue.qsize() < MOST_QUEUED:
            self._queue.put(ENCODER.encode(message))
        else:
            self._overflow()

    def end(self) -> None:
        """Nothing more comes."""
        self._queue.put(None)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._queue.get, None)


def backoff_seconds(failures: int, chance: float) -> float:
    """How long to wait after so many failures in a row; `chance` in [0, 1) spreads holders that fail together."""
    return min(LAST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, 16)) * (0.5 + chance / 2)


class Stream:
    """Keeps a stream to `target`, `host:port`, until it is closed."""

    def __init__(
        self,
        target: str,
        loop: Loop,
        receiver: Receiver,
        keepalive_seconds: float = KEEPALIVE_SECONDS,
        tls: Tls | None = None,
    ) -> None:
        self._target, self._tls = target, tls
        self._options: list[tuple[str, int | str]] = [
            *_OPTIONS,
            ("grpc.keepalive_time_ms", int(keepalive_seconds * 1000)),
            ("grpc.keepalive_timeout_ms", int(keepalive_seconds * 1000 / 3)),
            # The keepalive time-out alone is not enough: the ping itself has a longer one, which then decides.
            ("grpc.http2.ping_timeout_ms", int(keepalive_seconds * 1000 / 3)),
        ]
        self._loop = loop
        self._receiver = receiver
        self._ended = threading.Event()
        self._call: grpc.Call | None = None
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def close(self) -> None:
        """End it, and wait until it has ended."""
        self._ended.set()
        call = self._call
        if call is not None:
            call.cancel()
        self._thread.join(2)

    def _give_up(self) -> None:
        call = self._call
        if call is not None and call.is_active():
            log.error("the reconciler takes nothing; another stream is tried")
            call.cancel()

    def _run(self) -> None:
        failures = 0
        while not self._ended.is_set():
            if self._converse():
                failures = 0
            self._ended.wait(backoff_seconds(failures, random.random()))
            failures += 1

    def _converse(self) -> bool:
        """One stream from its beginning to its end; whether the other side ever spoke."""
        attempt = _Attempt(self._give_up)
        spoke = False
        why = "the stream ended"
        soon = self._loop.call_soon_threadsafe
        try:
            channel = secure.channel(self._target, self._options, self._tls)
        except OSError as error:
            log.error("the certificates for the reconciler cannot be read", error=str(error))
            return False
        try:
            soon(lambda: self._receiver.opened(attempt))
            self._call = call = channel.stream_stream(METHOD)(iter(attempt))
            if self._ended.is_set():
                call.cancel()
            for data in call:
                down = DOWN.decode(data)
                spoke = True
                soon(lambda down=down: self._receiver.received(attempt, down))  # type: ignore[misc]
        except grpc.RpcError as error:
            why = f"{error.code().name}: {error.details()}"
        except (msgspec.MsgspecError, ValueError) as error:
            why = f"a message that is none: {error}"
            log.error("the reconciler does not speak this protocol", why=why)
        except Exception as error:  # such as a thread that cannot be started: without this one nobody would ever wake
            why = repr(error)
            log.error("the stream failed, by a fault or for want of something", exc_info=error)
        finally:
            self._call = None
            attempt.end()
            soon(lambda: self._receiver.closed(attempt, why))
            channel.close()
        return spoke
