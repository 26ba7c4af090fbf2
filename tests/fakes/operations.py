"""Fake operations on services that have only names."""

from __future__ import annotations

from reconciler.ports.operations import Command, View


class FakeOperations:
    """Ready operations with these services."""

    def __init__(self, *names: str) -> None:
        self._views: dict[str, View] = {name: {"name": name} for name in names}

    def unready(self) -> None:
        return None

    def services(self) -> list[View]:
        return list(self._views.values())

    def service(self, name: str) -> View:
        return self._views[name]

    def explain(self, name: str) -> View:
        return {"service": self._views[name]}

    def overview(self) -> View:
        return {"services": len(self._views)}

    def envoys(self) -> list[View]:
        return []

    def holders(self) -> list[str]:
        return []

    def tell(self, name: str, command: Command) -> View:
        return self._views[name]
