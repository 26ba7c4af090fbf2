"""The one listening socket, in either mode, and accepting from it without ever spinning."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Literal

from tproxy import address
from tproxy.io.loop import Loop, Timer
from tproxy.io.refuser import reset

Mode = Literal["anyip", "tproxy"]

INHERITED = "fd:"
BACKLOG = 65_535
"""The kernel takes net.core.somaxconn when that is less."""
ACCEPTS_AT_ONCE = 256
PAUSE_SECONDS = 0.05
_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_OUT_OF_MEMORY = (errno.ENOBUFS, errno.ENOMEM)
_IPV6_TRANSPARENT = 75  # linux/in6.h
_IP_TRANSPARENT = 19  # linux/in.h


class CannotListen(Exception):
    """The socket could not be opened; the text says why and what to do."""


def open_socket(listen: str, mode: Mode) -> socket.socket:
    """The listening socket at `ip:port`, or the one inherited as `fd:N`. An IPv6 one takes IPv4 too.

    Connections to an inherited one wait in the kernel while there is no holder, so its restart refuses nobody.
    Raises CannotListen.
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
            raise OSError(errno.EINVAL, "it does not listen")
        sock.setblocking(False)
        sock.set_inheritable(False)
        if mode == "tproxy":
            _make_transparent(sock, sock.family)
    except OSError as error:
        raise CannotListen(f"cannot listen on {listen}: {error.strerror}; hand down a listening socket") from None
    return sock


def _make_transparent(sock: socket.socket, family: int) -> None:
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
    except PermissionError as error:
        raise CannotListen(
            "mode tproxy needs the capability CAP_NET_ADMIN: run as root, give the container "
            "`securityContext: {capabilities: {add: [NET_ADMIN]}}`, or use --mode anyip, which needs none"
        ) from error


def _explain(error: OSError, listen: str, mode: Mode) -> str:
    _, port = address.split(listen)
    if error.errno == errno.EADDRINUSE:
        return f"cannot listen on {listen}: the port is taken{_holder_of(port)}; end that, or choose another --listen"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"cannot listen on {listen}: ports below 1024 need CAP_NET_BIND_SERVICE; choose one above"
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return f"cannot listen on {listen}: this machine has no such address; use 0.0.0.0:{port}"
    return f"cannot listen on {listen} ({mode}): {error.strerror}"


def _holder_of(port: int) -> str:
    """Who listens on a port, if /proc shows it to us."""
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
    """Accepts connections for as long as it is open, and gives each descriptor (non-blocking) to `on_accept`."""

    def __init__(
        self, loop: Loop, sock: socket.socket, on_accept: Callable[[int], None], on_overflow: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._on_accept = on_accept
        self._on_overflow = on_overflow
        self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._pause: Timer | None = None
        self.family = int(sock.family)
        name = sock.getsockname()
        self.address = address.join(name[0], name[1])
        self.is_open = True
        loop.register(sock.fileno(), select.EPOLLIN, self._ready)

    def close(self) -> None:
        """Accept what the kernel has accepted already, and no more: what comes next is refused by the kernel."""
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

    def _ready(self, _events: int) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            if not self._accept():
                return

    def _accept(self) -> bool:
        """Whether there may be more."""
        try:
            fd, _ = self._sock._accept()  # type: ignore[attr-defined]
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _OUT_OF_DESCRIPTORS:
                return self._shed()
            if error.errno in _OUT_OF_MEMORY:
                return self._pause_accepting()
            return True  # That connection broke before it was accepted: accept(2) hands on its error.
        os.set_blocking(fd, False)
        self._on_accept(fd)
        return True

    def _shed(self) -> bool:
        """No descriptor is left: refuse one connection over the spare one, or accept() would report it for ever."""
        if self._spare >= 0:
            os.close(self._spare)
        try:
            fd, _ = self._sock._accept()  # type: ignore[attr-defined]
        except OSError:
            shed = False
        else:
            shed = True
            reset(fd)
            self._on_overflow()
        try:
            self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._spare = -1
            shed = False
        return shed or self._pause_accepting()

    def _pause_accepting(self) -> bool:
        if self.is_open and self._pause is None:
            self._loop.unregister(self._sock.fileno())
            self._pause = self._loop.call_at(time.monotonic() + PAUSE_SECONDS, self._resume)
        return False

    def _resume(self) -> None:
        self._pause = None
        if self._spare < 0:
            try:
                self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self._pause = self._loop.call_at(time.monotonic() + PAUSE_SECONDS, self._resume)
                return
        self._loop.register(self._sock.fileno(), select.EPOLLIN, self._ready)
