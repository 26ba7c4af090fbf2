"""Loopback ports for services that have no port of their own."""

from __future__ import annotations

import socket
from collections.abc import Iterable


class PortAllocator:
    """Allocates free ports. A service receives the same port again if possible."""

    def __init__(self) -> None:
        self._latest: dict[str, int] = {}
        """The latest port of each service."""
        self._in_use: set[int] = set()
        self._reserved: frozenset[int] = frozenset()

    def reserve(self, ports: Iterable[int]) -> None:
        """Set the ports that services are configured with; no other service receives them."""
        self._reserved = frozenset(ports)

    def allocate(self, service: str) -> int:
        """Return a free port. Raises OSError when there is none."""
        port = self._latest.get(service)
        if port is not None and port not in self._in_use | self._reserved and is_free(port):
            return port
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = int(probe.getsockname()[1])
            if port not in self._in_use | self._reserved:
                return port

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


def is_free(port: int, *, reusing: bool = False) -> bool:
    """Return whether a program can listen on the port.

    With `reusing`, as a program that sets SO_REUSEADDR: old connections do not count.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reusing)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            return True
        except OSError:
            return False
    return True
