"""The holder's end of the keeper: what is held is sent there, and what an earlier holder left there is adopted.

Each round of the loop sends at most a few messages, after the wake that they could delay. Nothing here waits, but for
the adoption before the holder listens. Without a keeper, or while it does not answer, everything else continues.
Counterpart: `keeper.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import termios
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from tproxy.hold_queue import Held
from tproxy.io.loop import Loop
from tproxy.keeper import INODE, KEPT, PER_MESSAGE, SINCE, receive, send

log = structlog.get_logger("tproxy")

ADOPT_SECONDS = 5.0
"""How long the start of a holder waits for each message of what it adopts."""
AGAIN_SECONDS = 1.0
PING_SECONDS = 3.0
"""How often the keeper is pinged. One that does not answer until the next ping is killed: a connection that it still
has a descriptor of cannot be closed."""
MAX_QUEUED = 1024
"""Drops that a keeper which does not read has not taken, in messages; beyond it the link is closed."""
_CLOSE_WAIT, _ESTABLISHED = 8, 1  # linux/tcp_states.h
_INFO = struct.Struct("=B127xQ8xI52xQ")
"""Of linux/tcp.h, struct tcp_info: tcpi_state, tcpi_bytes_received, tcpi_notsent_bytes, tcpi_bytes_sent."""


class Keeping:
    """Keeps a second descriptor of every held connection in the keeper at a Unix socket; `path` None: no keeper."""

    def __init__(self, loop: Loop, path: Path | None, held: Callable[[], Iterable[Held]]) -> None:
        self._loop, self._path, self._all_held = loop, path, held
        self._link: socket.socket | None = None
        self._fresh: list[Held] = []
        self._gone: list[int] = []
        self._failed = 0
        """Attempts to connect that failed, since one succeeded."""
        self._out: deque[tuple[bytes, list[Held]]] = deque()
        self._scheduled = self._writing = self._closed = self._pinged = False

    @property
    def is_up(self) -> bool | None:
        """Whether a keeper is connected; None: there is to be none."""
        return None if self._path is None else self._link is not None

    def adopt(self) -> list[tuple[int, float]]:
        """Return what an earlier holder left, oldest first: descriptors, and since when they are held (monotonic).

        Only connections on which nothing was read or written: any other one had been released.
        """
        if self._path is None or (link := self._connected()) is None:
            return []
        found: list[tuple[int, float]] = []
        try:
            link.settimeout(ADOPT_SECONDS)
            send(link, b"A", [])
            while True:
                data, descriptors = receive(link)
                if data[:1] != b"G":
                    break
                found += zip(descriptors, (since for (since,) in SINCE.iter_unpack(data[1:])), strict=False)
        except OSError as error:
            log.warning("connections of an earlier holder cannot be adopted", why=str(error))
        self._use(link)
        return [one for one in found if self._is_adopted(one[0])]

    def keep(self, held: Held) -> None:
        """Keep this connection, once the present round of the loop is over."""
        if self._path is not None:
            self._fresh.append(held)
            self._schedule()

    def drop(self, descriptor: int) -> None:
        """Keep this connection no longer: it is about to be read from, or closed."""
        if self._link is not None:
            self._gone.append(os.fstat(descriptor).st_ino)
            self._schedule()

    def close(self) -> None:
        """Close the link. What is still held stays with the keeper, for the next holder."""
        self._closed = True
        if self._link is not None:
            self._unlink(self._link)

    def _is_adopted(self, descriptor: int) -> bool:
        if is_untouched(descriptor):
            return True
        self.drop(descriptor)
        os.close(descriptor)
        return False

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        fresh, self._fresh = [held for held in self._fresh if held.fd >= 0], []
        gone, self._gone = self._gone, []
        if self._link is None:
            return
        for at in range(0, len(fresh), PER_MESSAGE):
            self._out.append((b"K", fresh[at : at + PER_MESSAGE]))
        for at in range(0, len(gone), 2 * PER_MESSAGE):
            self._out.append((b"D" + b"".join(map(INODE.pack, gone[at : at + 2 * PER_MESSAGE])), []))
        self._write(self._link)

    def _write(self, link: socket.socket) -> None:
        try:
            while self._out:
                data, batch = self._out[0]
                kept = [held for held in batch if held.fd >= 0]
                if data == b"K":
                    data += b"".join(KEPT.pack(os.fstat(held.fd).st_ino, held.since) for held in kept)
                send(link, data, [held.fd for held in kept])
                self._out.popleft()
        except BlockingIOError:
            if len(self._out) > MAX_QUEUED:
                self._unlink(link)
        except OSError:
            self._unlink(link)
        if self._link is not None and self._writing is not bool(self._out):
            self._writing = bool(self._out)
            self._loop.modify(link.fileno(), select.EPOLLIN | (select.EPOLLOUT if self._writing else 0))

    def _connected(self) -> socket.socket | None:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            link.connect(str(self._path))
        except OSError as error:
            link.close()
            self._failed += 1
            if self._failed == 2:  # the first time it may only just be starting
                log.warning("the keeper does not answer; held connections end with the holder", why=error.strerror)
            self._again()
            return None
        self._failed = 0
        return link

    def _use(self, link: socket.socket) -> None:
        link.setblocking(False)
        self._link, self._pinged = link, False
        self._loop.register(link.fileno(), select.EPOLLIN, self._stirred)
        self._loop.call_later(PING_SECONDS, lambda: self._ping(link))

    def _ping(self, link: socket.socket) -> None:
        if link is not self._link:
            return
        if self._pinged:
            log.error("the keeper does not answer and is killed")
            _kill(link)
            self._unlink(link)
            return
        self._pinged = True
        self._out.append((b"P", []))
        self._write(link)
        self._loop.call_later(PING_SECONDS, lambda: self._ping(link))

    def _stirred(self, events: int) -> None:
        """Write what could not be written, and read the answer to a ping, or the end."""
        link = self._link
        if link is None:
            return
        if events & ~select.EPOLLOUT:
            try:
                self._pinged = not link.recv(1)
            except BlockingIOError:
                return
            except OSError:
                self._pinged = True
            if self._pinged:
                self._unlink(link)
        else:
            self._write(link)

    def _unlink(self, link: socket.socket) -> None:
        self._loop.unregister(link.fileno())
        link.close()
        self._link, self._writing = None, False
        self._out.clear()
        if not self._closed:
            self._again()

    def _again(self) -> None:
        self._loop.call_later(AGAIN_SECONDS, self._reconnect)

    def _reconnect(self) -> None:
        """Start over with an empty keeper, or one that has what is out of date."""
        if self._closed or self._link is not None or (link := self._connected()) is None:
            return
        self._use(link)
        self._out.append((b"F", []))
        self._fresh = list(self._all_held())
        self._gone.clear()
        self._flush()


def _kill(link: socket.socket) -> None:
    """Kill the process at the other end, if it is one that we see; its supervisor starts another."""
    pid, _, _ = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if pid > 0:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def is_untouched(descriptor: int) -> bool:
    """Return whether a connection is open, and nothing on it was ever read or written by a process here.

    What has arrived and is still unread is all that has arrived: tcp(7), TCP_INFO and SIOCINQ.
    """
    view = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, descriptor)
    try:
        info = view.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
        unread = int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), "little")
    except OSError:
        return False
    finally:
        view.detach()
    if len(info) < _INFO.size:
        return False
    state, received, unsent, sent = _INFO.unpack(info)
    received -= state == _CLOSE_WAIT  # a FIN counts as one byte
    return state in (_ESTABLISHED, _CLOSE_WAIT) and received == unread and not (unsent or sent)
