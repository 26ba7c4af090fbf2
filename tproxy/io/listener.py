"""The listening socket, in either mode, and a listener that accepts from it without spinning."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from typing import Literal

from tproxy import address
from tproxy.io import tcp
from tproxy.io.loop import Loop, Timer

Mode = Literal["anyip", "tproxy"]

INHERITED = "fd:"
BACKLOG = 65_535
"""The kernel uses net.core.somaxconn if that is less."""
ACCEPTS_PER_EVENT = 256
PAUSE_SECONDS = 0.05
_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_OUT_OF_MEMORY = (errno.ENOBUFS, errno.ENOMEM)
_IPV6_TRANSPARENT = 75  # linux/in6.h
_IP_TRANSPARENT = 19  # linux/in.h


class CannotListen(Exception):
    """The socket could not be opened; the text has the reason and the remedy."""


def open_socket(listen: str, mode: Mode) -> socket.socket:
    """Return the listening socket at `ip:port`, or the one inherited as `fd:N`. Raises CannotListen.

    IPv6 includes IPv4. Connections to an inherited socket wait in the kernel while there is no holder, so a restart
    refuses none.
    """
    if listen.startswith(INHERITED):
        return _inherited(listen, mode)
    family, target = address.sockaddr(listen)
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if mode == "tproxy":
            _make_transparent(sock, family)
        sock.bind(target)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise CannotListen(_explain(error, listen, mode)) from error
    except BaseException:
        sock.close()
        raise
    return sock


def _inherited(listen: str, mode: Mode) -> socket.socket:
    try:
        sock = socket.socket(fileno=int(listen.removeprefix(INHERITED)))
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError(errno.EINVAL, "not a listening socket")
        sock.setblocking(False)
        sock.set_inheritable(False)
        if mode == "tproxy":
            _make_transparent(sock, sock.family)
    except OSError as error:
        raise CannotListen(f"cannot listen on {listen}: {error.strerror}; pass an inherited listening socket") from None
    return sock


def _make_transparent(sock: socket.socket, family: int) -> None:
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
    except PermissionError as error:
        raise CannotListen(
            "mode tproxy requires CAP_NET_ADMIN: run as root, add "
            "`securityContext: {capabilities: {add: [NET_ADMIN]}}` to the container, or use --mode anyip"
        ) from error


def _explain(error: OSError, listen: str, mode: Mode) -> str:
    _, port = address.split(listen)
    if error.errno == errno.EADDRINUSE:
        return f"cannot listen on {listen}: the port is in use{_user_of(port)}; stop it or choose another --listen"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"cannot listen on {listen}: ports below 1024 require CAP_NET_BIND_SERVICE; choose a higher one"
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return f"cannot listen on {listen}: this machine does not have the address; use 0.0.0.0:{port}"
    return f"cannot listen on {listen} ({mode}): {error.strerror}"


def _user_of(port: int) -> str:
    """Return the process that listens on a port, if /proc shows it."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/net/{table}", encoding="ascii") as file:
                rows = [line.split() for line in file][1:]
        except OSError:
            continue
        inodes |= {
            f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port
        }
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if any(os.readlink(entry.path) in inodes for entry in os.scandir(f"/proc/{pid}/fd")):
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    command = file.read().replace(b"\0", b" ").decode(errors="replace").strip()
                return f" by process {pid} ({command[:120]})"
        except OSError:
            continue
    return ""


class Listener:
    """Accepts connections while it is open, and passes their descriptors, which are non-blocking, to `on_accepted`.

    `on_shed` is called for a connection that was reset because the process has no descriptor left.
    """

    def __init__(
        self, loop: Loop, sock: socket.socket, on_accepted: Callable[[int], None], on_shed: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._on_accepted, self._on_shed = on_accepted, on_shed
        self._open_spare()
        self._pause: Timer | None = None
        self.address = tcp.local_address(sock.fileno())
        self.is_open = True
        loop.register(sock.fileno(), select.EPOLLIN, self._on_events)

    def close(self) -> None:
        """Accept the connections that the kernel has already accepted; it refuses later ones."""
        if not self.is_open:
            return
        self.is_open = False
        if self._pause is None:
            self._loop.unregister(self._sock.fileno())
        else:
            self._pause.cancel()
        while self._accept():
            pass
        self._sock.close()
        if self._spare >= 0:
            os.close(self._spare)

    def _on_events(self, _events: int) -> None:
        for _ in range(ACCEPTS_PER_EVENT):
            if not self._accept():
                return

    def _accept(self) -> bool:
        """Accept one connection and return whether there may be more."""
        try:
            fd, _ = self._sock._accept()  # type: ignore[attr-defined]
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _OUT_OF_DESCRIPTORS:
                return self._shed()
            if error.errno in _OUT_OF_MEMORY:
                return self._pause_accepting()
            return True  # the connection broke before it was accepted: accept(2) returns its error
        os.set_blocking(fd, False)
        self._on_accepted(fd)
        return True

    def _shed(self) -> bool:
        """Reset one connection with the help of the spare descriptor; otherwise epoll would report it forever."""
        if self._spare >= 0:
            os.close(self._spare)
        try:
            fd, _ = self._sock._accept()  # type: ignore[attr-defined]
        except OSError:
            shed = False
        else:
            shed = True
            tcp.reset(fd)
            self._on_shed()
        return (self._open_spare() and shed) or self._pause_accepting()

    def _open_spare(self) -> bool:
        try:
            self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._spare = -1
        return self._spare >= 0

    def _pause_accepting(self) -> bool:
        if self.is_open and self._pause is None:
            self._loop.unregister(self._sock.fileno())
            self._pause = self._loop.call_later(PAUSE_SECONDS, self._resume)
        return False

    def _resume(self) -> None:
        self._pause = None
        if self._spare < 0 and not self._open_spare():
            self._pause = self._loop.call_later(PAUSE_SECONDS, self._resume)
            return
        self._loop.register(self._sock.fileno(), select.EPOLLIN, self._on_events)
