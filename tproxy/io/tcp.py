"""Operations on TCP sockets that are known by their descriptor.

Python offers these calls on socket objects only, so each function borrows the descriptor for one call.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios

from tproxy import address
from tproxy.protocols import client_address
from tproxy.protocols.client_address import ProxyHeader, forwarded_for

_HEAD_BYTES = 16_384
KEEPALIVE_SECONDS = 60
KEEPALIVE_PROBES = 4
ESTABLISHED, CLOSED, CLOSE_WAIT = 1, 7, 8
"""From linux/tcp_states.h."""
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""The value of SO_LINGER that makes close(2) send a reset."""
_TCP_INFO = struct.Struct("=B127xQ8xI52xQ")
"""From linux/tcp.h, struct tcp_info: tcpi_state, tcpi_bytes_received, tcpi_notsent_bytes, tcpi_bytes_sent."""


class BorrowedSocket(socket.socket):
    """A socket object whose descriptor stays open when its `with` block ends."""

    __slots__ = ()

    def __exit__(self, *_: object) -> None:
        self.detach()


def borrow(fd: int) -> BorrowedSocket:
    """Return a socket object for a descriptor of either IP family.

    Naming the family saves three system calls. AF_INET6 has the longer address, and the kernel says which one it wrote.
    """
    return BorrowedSocket(socket.AF_INET6, socket.SOCK_STREAM, 0, fd)


def keep_alive(sock: socket.socket, seconds: int) -> None:
    """Probe the peer after so many seconds without data; without an answer, close the connection after twice that.

    The connections that a listening socket accepts have the same options.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, seconds // KEEPALIVE_PROBES))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)


def local_address(fd: int) -> str:
    """Return the `ip:port` that an accepted connection was made to. Raises OSError."""
    with borrow(fd) as sock:
        name = sock.getsockname()
    return address.join(name[0], name[1])


def peer_address(fd: int) -> str | None:
    """Return the `ip:port` that a connection came from or leads to; None if it is not connected."""
    try:
        with borrow(fd) as sock:
            name = sock.getpeername()
    except OSError:
        return None
    return address.join(name[0], name[1])


def state(fd: int) -> int:
    """Return the state of a connection (tcp(7), TCP_INFO)."""
    with borrow(fd) as sock:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def set_option(fd: int, option: int, value: int | bytes) -> None:
    """Set a socket option. Raises OSError."""
    with borrow(fd) as sock:
        sock.setsockopt(socket.SOL_SOCKET, option, value)


def end_writes(fd: int) -> None:
    """Send the end of the stream. Raises OSError."""
    with borrow(fd) as sock:
        sock.shutdown(socket.SHUT_WR)


def reset(fd: int) -> None:
    """Close a connection with a reset, so that its client knows that nothing more is read."""
    try:
        set_option(fd, socket.SO_LINGER, RESET_ON_CLOSE)
    except OSError:
        pass
    finally:
        os.close(fd)


def peek(fd: int, limit: int) -> bytes:
    """Return the unread bytes of a connection, which stay unread; empty if there are none."""
    try:
        with borrow(fd) as sock:
            return sock.recv(limit, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return b""


def discard(fd: int, count: int) -> None:
    """Read so many bytes, which have all arrived, and drop them. A connection that was reset may have fewer."""
    try:
        while count > 0 and (data := os.read(fd, count)):
            count -= len(data)
    except OSError:
        return


def peek_header(fd: int) -> ProxyHeader | None:
    """Return the PROXY header of a connection; None if more bytes are needed."""
    unread = peek(fd, client_address.SIZE_USUAL)
    header = client_address.read_header(unread)
    if header is None and len(unread) == client_address.SIZE_USUAL:
        header = client_address.read_header(peek(fd, client_address.SIZE_MAX))
    return header


def peek_client(fd: int, has_header: bool) -> str | None:
    """Return `ip:port` from the PROXY header or `ip` from the request; None if that is missing or names no client."""
    if has_header:
        header = peek_header(fd)
        return header.client if header else None
    return forwarded_for(peek(fd, _HEAD_BYTES))


def unacknowledged_bytes(fd: int) -> int:
    """Return the number of bytes written that the peer has not acknowledged (tcp(7), SIOCOUTQ)."""
    try:
        return int.from_bytes(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)), "little")
    except OSError:
        return 0


def is_untouched(fd: int) -> bool:
    """Return whether a connection is open and no process on this machine has read from it or written to it.

    It is untouched if the unread bytes are all that ever arrived: tcp(7), TCP_INFO and SIOCINQ.
    """
    try:
        with borrow(fd) as sock:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        unread = int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), "little")
    except OSError:
        return False
    if len(info) < _TCP_INFO.size:
        return False
    tcp_state, received, unsent, sent = _TCP_INFO.unpack(info)
    received -= tcp_state == CLOSE_WAIT  # a FIN counts as one byte
    return tcp_state in (ESTABLISHED, CLOSE_WAIT) and received == unread and not (unsent or sent)
