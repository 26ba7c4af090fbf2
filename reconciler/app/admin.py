"""Answers to the admin API: services, explanations and commands. Implements `reconciler.ports.operations`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.engine import view
from reconciler.engine.engine import Engine
from reconciler.engine.view import moment
from reconciler.envoy.prometheus.settings import PrometheusSettings
from reconciler.envoy.xds_router import XdsRouter
from reconciler.ports.operations import COMMAND_EVENTS, Command
from reconciler.ports.replicas import Connected
from reconciler.server.holders import HolderStreams


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOperations:
    """Reads and commands one engine. Facts that only a machine or only a cluster has are None for the other one."""

    engine: Engine
    router: XdsRouter
    streams: HolderStreams
    prometheus: PrometheusSettings | None
    """None: samples come from `statistics`."""
    statistics: str
    """The source of samples without Prometheus, for people."""
    opened: Callable[[], bool]
    """Return whether Envoys are answered."""
    unready: Callable[[], str | None]
    """Return why clients are not served yet, or None if they are."""
    replicas: Callable[[], Mapping[str, Any] | None] = lambda: None
    """Return the leader and the connected replicas."""
    connected: Callable[[], Connected] = Connected
    """Return the replica of each Envoy and holder."""
    machine: Callable[[], Mapping[str, Any]] = lambda: dict.fromkeys(("records", "listens", "file"))
    """Return the states of the file with the records, of the listen addresses, and of the services file."""

    @property
    def _source(self) -> str:
        return f"Prometheus at {self.prometheus.url}" if self.prometheus else self.statistics

    def services(self) -> list[dict[str, Any]]:
        faults = self.router.server.faults()
        services = sorted(self.engine.services.items())
        return [view.summary(service) | {"rejected": faults.get(name)} for name, service in services]

    def service(self, name: str) -> dict[str, Any]:
        return view.summary(self.engine.services[name]) | {"rejected": self.router.server.faults().get(name)}

    def explain(self, name: str) -> dict[str, Any]:
        service, engine = self.engine.services[name], self.engine
        blocker = view.drain_blocker(service)
        return {
            "service": self.service(name),
            "settings": view.settings(service),
            "judged": view.judged(service),
            "drainBlocker": blocker.message if blocker else None,
            "drainBlockerReason": blocker.code if blocker else None,
            "sample": view.sampled(name, engine.sample, engine.unknown, self._source, time.time()),
            "envoys": self._routed(name),
            "holders": self._held(name),
            "standing": self.replicas(),
            "transitions": view.moves(engine.history.of(name)),
        }

    def overview(self) -> dict[str, Any]:
        engine = self.engine
        return {
            "ready": self.opened(),
            "unready": self.unready(),
            "services": len(engine.services),
            "rejected": dict(self.router.server.faults()),
            "failedBusyChecks": view.failed_busy_checks(engine.services),
            "sample": {
                **view.sample_fields(engine.sample, self._source, time.time()),
                "provider": "prometheus" if self.prometheus else "envoy",
                **view.unknown_fields(engine.unknown),
            },
            "envoys": [*self._own_envoys(), *({"id": id_, "away": True} for id_ in sorted(self.router.away()))],
            "holders": [
                {"id": one.name, "mode": one.mode, "connected": not one.gone, "rules": one.rules}
                for one in self.streams.known
            ],
            "standing": self.replicas(),
            **self.machine(),
        }

    def envoys(self) -> list[dict[str, Any]]:
        at, own = self.connected().envoys, {envoy["id"]: envoy for envoy in self._own_envoys()}
        known = {id_: {"id": id_, "replica": replica} for id_, replica in sorted(at.items())}
        return [known.get(id_, {}) | own.get(id_, {}) for id_ in {**own, **known}]

    def _own_envoys(self) -> list[dict[str, Any]]:
        return [
            {
                "id": node.id,
                "since": moment(node.since),
                "mode": node.mode,
                "versions": dict(node.versions),
                "nacks": node.nacks,
                "lastNack": node.nack and {"at": moment(node.nack.at), "message": node.nack.message},
            }
            for node in self.router.server.nodes().values()
        ]

    def holders(self) -> list[str]:
        return sorted({*self.streams.connected, *self.connected().holders})

    def tell(self, name: str, command: Command) -> dict[str, Any]:
        if event := COMMAND_EVENTS.get(command):
            self.engine.command(name, event)
        else:
            self.engine.pause(name, command is Command.PAUSE)
        return self.service(name)

    def _routed(self, name: str) -> dict[str, Any]:
        """Return the acknowledgements of the present route, by Envoy."""
        seen = [
            {"id": id_, "acked": version, "ackedAt": moment(at)}
            for id_, (version, at) in sorted(self.router.server.acked(name).items())
        ]
        away = [{"id": id_, "acked": None, "ackedAt": None} for id_ in sorted(self.router.away())]
        return {"version": self.router.server.version(name), "each": seen + away}

    def _held(self, name: str) -> list[dict[str, Any]]:
        return [
            {
                "id": holder.name,
                "mode": holder.mode,
                "connected": not holder.gone,
                "inForce": in_force,
                "held": count.held if count else 0,
                "relayed": count.relayed if count else 0,
                "released": count.released if count else 0,
                "refused": count.refused if count else 0,
                "gone": count.gone if count else 0,
            }
            for holder, count, in_force in self.streams.shares(name)
        ]
