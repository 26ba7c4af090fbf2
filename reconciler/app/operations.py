"""What people may ask, answered by the engine and the router. Counterpart: `reconciler.ports.operations`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reconciler.adapters.holders import HolderStreams
from reconciler.adapters.xds_router import XdsRouter
from reconciler.core.events import SleepCommanded, WakeCommanded
from reconciler.engine.engine import Engine
from reconciler.engine.view import moment, view
from reconciler.ports.operations import Command


class EngineOperations:
    """Reads and commands one engine."""

    def __init__(self, engine: Engine, router: XdsRouter, holders: HolderStreams, opened: Callable[[], bool]) -> None:
        self._engine, self._router, self._holders, self._opened = engine, router, holders, opened

    def ready(self) -> bool:
        return self._opened()

    def services(self) -> list[dict[str, Any]]:
        return [view(service) for _, service in sorted(self._engine.services.items())]

    def service(self, name: str) -> dict[str, Any]:
        return view(self._engine.services[name])

    def envoys(self) -> list[dict[str, Any]]:
        return [
            {
                "id": node.id,
                "since": moment(node.since),
                "mode": node.mode,
                "versions": dict(node.versions),
                "nacks": node.nacks,
                "lastNack": node.nack and {"at": moment(node.nack.at), "message": node.nack.message},
            }
            for node in self._router.nodes().values()
        ]

    def holders(self) -> list[str]:
        return self._holders.connected

    def tell(self, name: str, command: Command) -> dict[str, Any]:
        match command:
            case Command.WAKE:
                self._engine.command(name, WakeCommanded("a person asked for it"))
            case Command.SLEEP:
                self._engine.command(name, SleepCommanded("a person asked for it"))
            case Command.PAUSE | Command.RESUME:
                self._engine.pause(name, command is Command.PAUSE)
        return self.service(name)
