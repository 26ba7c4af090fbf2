"""A relay in a thread, with the outer ends of its connections in the test's thread."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from tproxy.io.loop import Loop
from tproxy.relay.relay import Attempt, Relay, RelayedConnection

T = TypeVar("T")
PATIENCE_SECONDS = 60.0
MIB = 1 << 20


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def tcp_pair(receive_buffer: int | None = None) -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets: the one that dialled and the accepted one, whose buffer may have a fixed size."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if receive_buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        dialled = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    for end in (dialled, accepted):
        end.settimeout(PATIENCE_SECONDS)
    return dialled, accepted


def last_attempt() -> Attempt:
    """Return an attempt after which nothing is repeated."""
    return Attempt(skip=0, deadline=0.0, on_lost=lambda *_: None)


class Rig:
    """A relay in a thread of its own, and the outer ends of its connections. It owns them (`RelayOwner`)."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.done: queue.Queue[RelayedConnection] = queue.Queue()
        self.first_bytes = 0
        self.loop = Loop(on_error=self.errors.append)
        self.relay = Relay(self.loop)
        self.ends: list[socket.socket] = []
        self.thread = threading.Thread(target=self.loop.run)
        self.thread.start()

    def call(self, fn: Callable[[], T]) -> T:
        """Call `fn` in the loop's thread and return its result."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            try:
                future.set_result(fn())
            except Exception as error:
                future.set_exception(error)

        self.loop.call_soon_threadsafe(run)
        return future.result(PATIENCE_SECONDS)

    def on_first_byte(self) -> None:
        self.first_bytes += 1

    def on_relay_ended(self, relayed: RelayedConnection) -> None:
        self.done.put(relayed)

    def connect(self) -> tuple[socket.socket, socket.socket, RelayedConnection]:
        """Return a client, its upstream, and the relayed connection between them."""
        client, inner_client = tcp_pair()
        inner_upstream, upstream = tcp_pair()
        self.ends += [client, upstream]
        for inner in (inner_client, inner_upstream):
            inner.setblocking(False)
        fds = inner_client.detach(), inner_upstream.detach()
        return client, upstream, self.call(lambda: self.relay.start(*fds, self, last_attempt()))

    def finished(self) -> RelayedConnection:
        """Return the next connection that has ended."""
        return self.done.get(timeout=PATIENCE_SECONDS)

    def finished_after(self, action: Callable[[], object]) -> RelayedConnection:
        """Return the connection that ends after `action`, both of whose ends are closed here."""
        action()
        for end in self.ends:
            end.close()
        return self.finished()

    def close(self) -> None:
        self.call(self.relay.close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
        for end in self.ends:
            end.close()


@contextlib.contextmanager
def new_rig() -> Iterator[Rig]:
    """Yield a rig, which must leave no error and no descriptor behind."""
    gc.collect()  # sockets that earlier tests dropped would be closed during this one
    before = open_descriptors()
    rig = Rig()
    try:
        yield rig
    finally:
        rig.close()
    assert rig.errors == []
    assert open_descriptors() == before


def read(end: socket.socket, size: int) -> bytes:
    """Read exactly `size` bytes, or all until the end."""
    data = bytearray()
    while len(data) < size and (chunk := end.recv(min(size - len(data), MIB))):
        data += chunk
    return bytes(data)


def read_all(end: socket.socket) -> bytes:
    return read(end, 1 << 40)


@contextlib.contextmanager
def sending(end: socket.socket, *chunks: bytes, then_end: bool = False) -> Iterator[None]:
    """Send in a thread while the body reads."""

    def send() -> None:
        for chunk in chunks:
            end.sendall(chunk)
        if then_end:
            end.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    yield
    thread.join()
