"""The holder's end of the keeper: sends it every held connection, and adopts those of an earlier holder.

Messages are sent at the end of a round of the loop, so that they do not delay a wake. Only the adoption blocks, before
the holder listens. Without a keeper, or while it does not answer, everything else continues.
Counterpart: `tproxy/keeper.py`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from tproxy.hold_queue import HeldConnection
from tproxy.io import tcp
from tproxy.io.loop import Loop
from tproxy.keeper import INODE, KEPT, PER_MESSAGE, SINCE, receive

log = structlog.get_logger("tproxy")

ADOPT_SECONDS = 5.0
"""Timeout of each message during adoption."""
RECONNECT_SECONDS = 1.0
PING_SECONDS = 3.0
"""Interval of pings. A keeper that does not answer before the next ping is killed: a connection stays open as long as
the keeper has a descriptor of it."""
MAX_QUEUED = 1024
"""Messages that a keeper has not read; beyond this number the link is closed."""


class KeeperClient:
    """Stores a second descriptor of every held connection in the keeper at the Unix socket `path`; None: no keeper."""

    def __init__(self, loop: Loop, path: Path | None, held: Callable[[], Iterable[HeldConnection]]) -> None:
        self._loop, self._path, self._all_held = loop, path, held
        self._link: socket.socket | None = None
        self._added: list[HeldConnection] = []
        self._removed: list[int] = []
        self._failures = 0
        """Attempts to connect that failed in a row."""
        self._out: deque[tuple[bytes, list[HeldConnection]]] = deque()
        self._is_writing = self._is_closed = self._is_pinged = False

    @property
    def is_connected(self) -> bool | None:
        """True if a keeper is connected; None if none is configured."""
        return None if self._path is None else self._link is not None

    def adopt(self) -> list[tuple[int, float]]:
        """Return the connections of an earlier holder, oldest first: descriptors and monotonic hold times.

        Connections that the earlier holder read from or wrote to are closed: they had been released.
        """
        if self._path is None or (link := self._connect()) is None:
            return []
        found: list[tuple[int, float]] = []
        try:
            link.settimeout(ADOPT_SECONDS)
            link.send(b"A")
            while True:
                data, descriptors = receive(link)
                if data[:1] != b"G":
                    break
                found += zip(descriptors, (since for (since,) in SINCE.iter_unpack(data[1:])), strict=False)
        except OSError as error:
            log.warning("failed to adopt connections of an earlier holder", error=str(error))
        self._use(link)
        return [(fd, since) for fd, since in found if self._is_adoptable(fd)]

    def keep(self, held: HeldConnection) -> None:
        """Send a connection to the keeper, after the current round of the loop."""
        if self._path is not None:
            self._schedule()
            self._added.append(held)

    def drop(self, fd: int) -> None:
        """Remove a connection from the keeper. Must precede reading from it and closing it."""
        if self._link is not None:
            self._schedule()
            self._removed.append(os.fstat(fd).st_ino)

    def close(self) -> None:
        """Close the link. The keeper keeps what is held, for the next holder."""
        self._is_closed = True
        if self._link is not None:
            self._disconnect(self._link)

    def _is_adoptable(self, fd: int) -> bool:
        if tcp.is_untouched(fd):
            return True
        self.drop(fd)
        os.close(fd)
        return False

    def _schedule(self) -> None:
        if not (self._added or self._removed):
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        added, self._added = [held for held in self._added if held.fd >= 0], []
        removed, self._removed = self._removed, []
        if self._link is None:
            return
        for at in range(0, len(added), PER_MESSAGE):
            self._out.append((b"K", added[at : at + PER_MESSAGE]))
        for at in range(0, len(removed), 2 * PER_MESSAGE):
            self._out.append((b"D" + b"".join(map(INODE.pack, removed[at : at + 2 * PER_MESSAGE])), []))
        self._write(self._link)

    def _write(self, link: socket.socket) -> None:
        try:
            while self._out:
                data, batch = self._out[0]
                held = [one for one in batch if one.fd >= 0]
                if data == b"K":
                    data += b"".join(KEPT.pack(os.fstat(one.fd).st_ino, one.since) for one in held)
                socket.send_fds(link, [data], [one.fd for one in held])
                self._out.popleft()
        except BlockingIOError:
            if len(self._out) > MAX_QUEUED:
                self._disconnect(link)
        except OSError:
            self._disconnect(link)
        if self._link is not None and self._is_writing is not bool(self._out):
            self._is_writing = bool(self._out)
            self._loop.modify(link.fileno(), select.EPOLLIN | (select.EPOLLOUT if self._is_writing else 0))

    def _connect(self) -> socket.socket | None:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            link.connect(str(self._path))
        except OSError as error:
            link.close()
            self._failures += 1
            if self._failures == 2:  # at the first failure the keeper may be starting
                log.warning("keeper not reachable; held connections end with this process", error=error.strerror)
            self._loop.call_later(RECONNECT_SECONDS, self._reconnect)
            return None
        self._failures = 0
        return link

    def _use(self, link: socket.socket) -> None:
        link.setblocking(False)
        self._link, self._is_pinged = link, False
        self._loop.register(link.fileno(), select.EPOLLIN, self._on_events)
        self._loop.call_later(PING_SECONDS, lambda: self._ping(link))

    def _ping(self, link: socket.socket) -> None:
        if link is not self._link:
            return
        if self._is_pinged:
            log.error("keeper does not answer; killing it")
            _kill(link)
            self._disconnect(link)
            return
        self._is_pinged = True
        self._out.append((b"P", []))
        self._write(link)
        self._loop.call_later(PING_SECONDS, lambda: self._ping(link))

    def _on_events(self, events: int) -> None:
        """Write queued messages, or read the answer to a ping or the end of the link."""
        link = self._link
        if link is None:
            return
        if events & ~select.EPOLLOUT:
            try:
                self._is_pinged = not link.recv(1)
            except BlockingIOError:
                return
            except OSError:
                self._is_pinged = True
            if self._is_pinged:
                self._disconnect(link)
        else:
            self._write(link)

    def _disconnect(self, link: socket.socket) -> None:
        self._loop.unregister(link.fileno())
        link.close()
        self._link, self._is_writing = None, False
        self._out.clear()
        if not self._is_closed:
            self._loop.call_later(RECONNECT_SECONDS, self._reconnect)

    def _reconnect(self) -> None:
        """Send all held connections again: the keeper is empty or out of date."""
        if self._is_closed or self._link is not None or (link := self._connect()) is None:
            return
        self._use(link)
        self._out.append((b"F", []))
        self._added = list(self._all_held())
        self._removed.clear()
        self._flush()


def _kill(link: socket.socket) -> None:
    """Kill the process at the other end, if it is visible from here; its supervisor restarts it."""
    pid, _, _ = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if pid > 0:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
