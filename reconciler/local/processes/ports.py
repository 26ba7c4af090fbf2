"""Free ports for programs that have no port of their own.

They are below the kernel's ephemeral range: otherwise an outgoing connection can take a port between its choice and the
program's start.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable
from pathlib import Path

EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""https://docs.kernel.org/networking/ip-sysctl.html"""
FIRST_PORT = 20_000
ATTEMPTS = 1_000


class PortAllocator:
    """Allocates free ports. A service receives the same port again if possible."""

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
    """Return a port that is free on all addresses, from below the ephemeral range if possible. Raises `OSError`."""
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
