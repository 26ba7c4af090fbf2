"""Samples from Envoy's admin port. Counterpart: `reconciler.ports.traffic`.

Only counters that were used, filtered by Envoy itself: https://www.envoyproxy.io/docs/envoy/latest/operations/admin#get--stats
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import aiohttp

from reconciler.core.traffic import Counters, EnvoyReading, Sample

FIELDS = {
    "upstream_rq_total": "requests",
    "upstream_rq_active": "active_requests",
    "upstream_cx_total": "connections",
    "upstream_cx_active": "active_connections",
    "upstream_cx_rx_bytes_total": "bytes",
    "upstream_cx_tx_bytes_total": "bytes",
}
PATH = "/stats"
SCRAPE = "/stats/prometheus"
QUERY = {
    "usedonly": "",
    "filter": r"^(cluster\..*\.upstream_((rq|cx)_(total|active)|cx_(rx|tx)_bytes_total)|server\.uptime)$",
}


_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)  # the time-out is around the whole call
Admin = Path | str
"""A Unix socket, or `ip:port`; empty for an Envoy that did not say where."""


class AdminStats:
    """Asks each Envoy's admin port; `admins` says which there are now and where, by node id."""

    def __init__(
        self,
        admins: Callable[[], Mapping[str, Admin]],
        now: Callable[[], float],
        timeout: float,
        service_of: Callable[[str], str],
    ) -> None:
        self._admins, self._now, self._timeout, self._service_of = admins, now, timeout, service_of
        self._sessions: dict[Admin, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    async def prometheus_text(self, envoy: str) -> str:
        """What Prometheus would scrape from an Envoy. Raises `aiohttp.ClientError`, `OSError` and `TimeoutError`."""
        async with (
            asyncio.timeout(self._timeout),
            self._session(self._admins()[envoy]).get(SCRAPE, params={"usedonly": ""}) as response,
        ):
            response.raise_for_status()
            return await response.text()

    async def sample(self) -> Sample:
        taken_at = self._now()
        admins = dict(self._admins())
        await self._forget(frozenset(self._sessions) - frozenset(admins.values()))
        answers = await asyncio.gather(*(self._read(admin) for admin in admins.values()))
        readings: dict[str, EnvoyReading] = {}
        missing: dict[str, str] = {}
        for envoy, answer in zip(admins, answers, strict=True):
            if isinstance(answer, str):
                missing[envoy] = answer
            else:
                readings[envoy] = answer
        return Sample(taken_at, readings, missing)

    async def _read(self, admin: Admin) -> EnvoyReading | str:
        if not admin:
            return "it did not say where its statistics are; its bootstrap lacks --stats-address"
        try:
            async with asyncio.timeout(self._timeout), self._session(admin).get(PATH, params=QUERY) as response:
                response.raise_for_status()
                return reading(await response.text(), self._service_of)
        except TimeoutError:
            return f"its admin port did not answer within {self._timeout:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return f"its admin port: {error or type(error).__name__}"

    def _session(self, admin: Admin) -> aiohttp.ClientSession:
        if admin not in self._sessions:
            if isinstance(admin, Path):
                connector: aiohttp.BaseConnector = aiohttp.UnixConnector(path=str(admin), force_close=True)
                self._sessions[admin] = aiohttp.ClientSession("http://envoy", connector=connector)
            else:
                self._sessions[admin] = aiohttp.ClientSession(f"http://{admin}", timeout=_NO_TIMEOUT)
        return self._sessions[admin]

    async def _forget(self, admins: frozenset[Admin]) -> None:
        for admin in admins:
            await self._sessions.pop(admin).close()


def reading(text: str, service_of: Callable[[str], str]) -> EnvoyReading:
    """Envoy's plain text: a line `name: value` each. Raises `ValueError` when it is not, or is cut short."""
    counted: dict[str, dict[str, int]] = {}
    uptime: float | None = None
    for line in text.splitlines():
        name, colon, value = line.rpartition(": ")
        if not colon:
            raise ValueError(f"not a statistic: {line!r}")
        if name == "server.uptime":
            uptime = float(value)
            continue
        cluster, _, figure = name.removeprefix("cluster.").rpartition(".")
        counters = counted.setdefault(service_of(cluster), {})
        field = FIELDS[figure]
        counters[field] = counters.get(field, 0) + int(value)
    if uptime is None:
        raise ValueError("the statistics have no server.uptime")
    return EnvoyReading(uptime, {service: Counters(**values) for service, values in counted.items()})
