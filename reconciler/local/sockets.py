"""TCP addresses of this machine: those that are available, the sockets that listen, and the processes that have them.

Sources: https://docs.kernel.org/networking/proc_net_tcp.html (and ip-sysctl.html), unix(7)
"""

from __future__ import annotations

import errno
import os
import random
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from reconciler.core.address import Address, join_address, split_address
from reconciler.local.state_dir import CHILD_MARK

BACKLOG = 65_535
"""The kernel takes net.core.somaxconn when that is less."""
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
FIRST_PORT = 20_000
ATTEMPTS = 1_000
LISTEN = "0A"
_ACCEPTS = 0x10000
"""The flag of a Unix socket that listens."""
_VERSIONS = {"": socket.AF_INET, "6": socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class ListeningSocket:
    """One TCP socket that listens."""

    host: str
    port: int
    inode: str


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach an `ip:port`."""
    return ip_address(split_address(address)[0]).is_loopback


def taken(metrics: str | None, holder_metrics: str | None, grpc: str | None) -> dict[str, Address]:
    """Return what these options of `zenvoy up` listen on, by option. Raises `ValueError`."""
    options = {"--metrics": metrics, "--holder-metrics": holder_metrics, "--grpc": grpc}
    return {option: Address.of(*split_address(address)) for option, address in options.items() if address}


def unavailable(address: str) -> str | None:
    """Return why `ip:port` is unavailable, with the process that uses it if known; None if it is available."""
    error = _error_of_listening(address)
    return _described(address, error) if error else None


def in_use(address: str) -> str | None:
    """Return the reason why `ip:port` is in use, with the process that uses it; None also for other errors."""
    error = _error_of_listening(address)
    return _described(address, error) if error and error.errno == errno.EADDRINUSE else None


def _error_of_listening(address: str) -> OSError | None:
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return error
    return None


def _described(address: str, error: OSError) -> str:
    port = split_address(address)[1]
    user, state_dir = command_of(port), next(filter(None, map(_state_dir, listeners(port))), None)
    owner = f" (of the `zenvoy up` with the state directory {state_dir})" if state_dir else ""
    return f"{address}: {error.strerror}" + (f"; it is used by {user}{owner}" if user else "")


def _state_dir(pid: int) -> str | None:
    """Return the state directory of the `zenvoy up` that a process belongs to, if it does."""
    try:
        environment = b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
        state_dir = os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return None
    return state_dir if f"\0{CHILD_MARK}=".encode() in environment else None


def state_dirs_listening(address: str) -> list[Path]:
    """Return the state directories of each `zenvoy up` that listens on the port of `ip:port`."""
    found = {_state_dir(pid) for pid in listeners(split_address(address)[1])}
    return [Path(state_dir) for state_dir in sorted(filter(None, found))]


def listening_socket(preferred: int = 0) -> socket.socket:
    """Return a socket that listens on all IPv4 addresses, at the port `preferred` if it is free. Raises `OSError`."""
    try:
        return socket.create_server(("0.0.0.0", preferred), backlog=BACKLOG)
    except OSError:
        return socket.create_server(("0.0.0.0", 0), backlog=BACKLOG)


def listening_sockets() -> list[ListeningSocket]:
    """Return all sockets that listen."""
    return _inet_sockets("tcp", LISTEN)


def listeners(port: int) -> Iterator[int]:
    """Yield the pids of processes that listen on a port, except those whose sockets this user cannot see."""
    inodes = {one.inode for one in listening_sockets() if one.port == port}
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and inodes & _sockets(process):
            yield int(process.name)


def sockets_of(pids: Iterable[int]) -> tuple[list[ListeningSocket], list[str]]:
    """Return the TCP sockets on which one of these processes listens, by port, and others in words for people.

    The others are the Unix sockets on which it listens, and its UDP sockets.
    """
    inodes = {inode for pid in pids for inode in _sockets(Path(f"/proc/{pid}"))}
    tcp = [one for one in listening_sockets() if one.inode in inodes]
    unix = [row for row in _rows("unix") if len(row) > 7 and int(row[3], 16) & _ACCEPTS]
    others = {f"the Unix socket {' '.join(row[7:])}" for row in unix if row[6] in inodes}
    others |= {f"UDP {join_address(one.host, one.port)}" for one in _inet_sockets("udp") if one.inode in inodes}
    return sorted(tcp, key=lambda one: (one.port, one.host)), sorted(others)


def command_of(port: int) -> str | None:
    """Return `process 7: python3 serve.py` for a process that listens on a port, if this user can see it."""
    for pid in listeners(port):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has just ended
        return f"process {pid}: {' '.join(command.split())[:120]}"
    return None


def _inet_sockets(protocol: str, state: str = "") -> list[ListeningSocket]:
    """Return the sockets of `tcp` or `udp` in a state; empty: in any state."""
    found = []
    for version, family in _VERSIONS.items():
        for row in _rows(f"{protocol}{version}"):
            if row[3].startswith(state):
                host, _, port = row[1].rpartition(":")
                found.append(ListeningSocket(_host(host, family), int(port, 16), row[9]))
    return found


def _rows(table: str) -> list[list[str]]:
    try:
        return [line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    except OSError:
        return []


def _host(text: str, family: socket.AddressFamily) -> str:
    """Return an address that the kernel writes as 32-bit words in its own byte order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    return socket.inet_ntop(family, b"".join(word.to_bytes(4, sys.byteorder) for word in words))


def _sockets(process: Path) -> set[str]:
    """Return the inodes of the sockets of a process; empty for a process of another user."""
    found = set[str]()
    with suppress(OSError):
        for entry in os.listdir(process / "fd"):
            with suppress(OSError):  # it has just been closed
                found.add(os.readlink(process / "fd" / entry))
    return {link[8:-1] for link in found if link.startswith("socket:[")}


class PortAllocator:
    """Allocates free ports to programs that have none of their own; to a service the same one again if possible."""

    def __init__(self) -> None:
        self._latest: dict[str, int] = {}
        """The latest port of each service."""
        self._in_use: set[int] = set()
        self.reserved: frozenset[int] = frozenset()
        """The ports that services are configured with; no other service receives them."""

    def allocate(self, service: str) -> int:
        """Return a free port. Raises OSError when there is none."""
        port = self._latest.get(service)
        excluded = self._in_use | self.reserved
        if port is not None and port not in excluded and is_free(port):
            return port
        return free_port(excluded)

    def keep(self, service: str, port: int) -> None:
        """Note that the service listens on this port, until `release`."""
        self._latest[service] = port
        self._in_use.add(port)

    def release(self, port: int) -> None:
        """Note that the service with this port has ended."""
        self._in_use.discard(port)

    def forget(self, service: str) -> None:
        """Forget a service that was removed."""
        self._latest.pop(service, None)


def free_port(excluded: Iterable[int] = ()) -> int:
    """Return a port that is free on all addresses, from below the ephemeral range if possible. Raises `OSError`.

    In that range, an outgoing connection can take the port between its choice and the program's start.
    """
    without = frozenset(excluded)
    below = range(FIRST_PORT, _first_ephemeral())
    for port in random.sample(below, min(ATTEMPTS, len(below))):
        if port not in without and is_free(port, host=""):
            return port
    while True:
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = int(probe.getsockname()[1])
        if port not in without:
            return port


def _first_ephemeral() -> int:
    """Return the first port of the ephemeral range; `FIRST_PORT`, so that there is none below, if it is not known."""
    try:
        return int(EPHEMERAL_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return FIRST_PORT


def is_free(port: int, *, reusing: bool = False, host: str = "127.0.0.1") -> bool:
    """Return whether a program can listen on the port at this address; "" means all addresses.

    With `reusing`, as a program that sets SO_REUSEADDR: old connections do not count.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reusing)
        try:
            probe.bind((host, port))
        except PermissionError:
            return True
        except OSError:
            return False
    return True
