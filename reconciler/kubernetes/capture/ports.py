"""Ports of the proxies for captured Services: one for each ScaledService that has no `listen`. Pure.

The status of a ScaledService keeps its port, so that all replicas configure the same listener.
"""

from __future__ import annotations

from reconciler.kubernetes.types.scaled_service import ScaledService


class PortAssignments:
    """The assigned ports."""

    def __init__(self, ports: range) -> None:
        self._range = ports
        self._names: dict[int, str] = {}
        """The ScaledService of each assigned port."""
        self._ports: dict[str, int] = {}
        """The port of each ScaledService, also before its status shows it."""

    def assigned(self, name: str) -> int:
        """Return the port that was assigned to a ScaledService; 0 if none was."""
        return self._ports.get(name, 0)

    def port(self, item: ScaledService) -> int:
        """Return the port of the proxies for a ScaledService; 0 if it has none."""
        return item.spec.listen or self.assigned(item.metadata.key)

    def assign(self, item: ScaledService) -> None:
        """Assign a free port to a ScaledService that needs one, if there is one."""
        if not self.port(item) and (free := next((port for port in self._range if port not in self._names), 0)):
            self._set(item.metadata.key, free)

    def saw(self, name: str, item: ScaledService | None) -> None:
        """Note the port in a status, or that its ScaledService is gone. The port of another one is not taken over."""
        port, before = item.status.capture_port if item else 0, self.assigned(name)
        if port == before or (item and before and not port):
            return  # an assignment that is not written yet stays
        self.free(name)
        if port in self._range and port not in self._names:
            self._set(name, port)

    def free(self, name: str) -> None:
        """Take its port from a ScaledService."""
        if port := self._ports.pop(name, 0):
            del self._names[port]

    def _set(self, name: str, port: int) -> None:
        self._names[port], self._ports[name] = name, port
