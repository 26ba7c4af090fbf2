"""Ports of the proxies for captured Services, one for each ScaledService. Pure.

The status of a ScaledService keeps its port, so that all replicas configure the same listener. A port is reused as late
as possible: nodes may still lead callers of its former Service to it.
"""

from __future__ import annotations

from collections.abc import Container

from reconciler.kubernetes.types.scaled_service import ScaledService


class PortAssignments:
    """The assigned ports."""

    def __init__(self, ports: range) -> None:
        self._range = ports
        self._latest = ports.start - 1
        self._names: dict[int, str] = {}
        """The ScaledService of each assigned port."""
        self._ports: dict[str, int] = {}
        """The port of each ScaledService, also before its status shows it."""

    def assigned(self, name: str) -> int:
        """Return the port of a ScaledService; 0 if it has none."""
        return self._ports.get(name, 0)

    def assign(self, name: str, in_use: Container[int] = ()) -> None:
        """Assign a port that is neither assigned nor in use to a ScaledService that has none, if there is one."""
        after = range(self._latest + 1, self._range.stop)
        free = (port for port in (*after, *self._range) if port not in self._names and port not in in_use)
        if not self.assigned(name) and (port := next(free, 0)):
            self._set(name, port)
            self._latest = port

    def saw(self, name: str, item: ScaledService | None) -> None:
        """Note the port in a status, or that its ScaledService is gone. The port of another one is not taken over."""
        port, before = item.status.capture_port if item else 0, self.assigned(name)
        if port == before or (item and before and not port):
            return  # an assignment that is not written yet stays
        self.free(name)
        if port in self._range and port not in self._names:
            self._set(name, port)
            self._latest = max(self._latest, port)

    def free(self, name: str) -> None:
        """Take its port from a ScaledService."""
        if port := self._ports.pop(name, 0):
            del self._names[port]

    def _set(self, name: str, port: int) -> None:
        self._names[port], self._ports[name] = name, port
