"""Samples from Envoy's admin port. Counterpart: `reconciler.engine.sampling`.

Envoy itself selects the counters that were used: https://www.envoyproxy.io/docs/envoy/latest/operations/admin#get--stats

An answer is not trusted: an Envoy is a peer. Redirects are not followed, nothing is decompressed, and size, time, lines
and numbers are bounded. An answer that exceeds a bound, or that cannot be parsed, makes this reading unknown. Error
messages never contain bytes of the answer.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import aiohttp

from reconciler.core.address import split_address
from reconciler.core.traffic import Counters, EnvoyReading, Sample
from xds.bootstrap.stats_listener import READY, SCRAPE, STATS_PATH
from xds.names import service_name

FIELDS = {
    "upstream_rq_total": "requests",
    "upstream_rq_active": "active_requests",
    "upstream_cx_total": "connections",
    "upstream_cx_active": "active_connections",
    "upstream_cx_rx_bytes_total": "bytes",
    "upstream_cx_tx_bytes_total": "bytes",
}
STOP_LISTENING = ("/healthcheck/fail", "/drain_listeners")
QUERY = {
    "usedonly": "",
    "filter": r"^(cluster\..*\.upstream_((rq|cx)_(total|active)|cx_(rx|tx)_bytes_total)|server\.uptime)$",
}
MAX_LINES = 2 * 10_000 * len(FIELDS)
"""Twice the lines of 10,000 services, the number that zenvoy is built for."""
MAX_LINE_BYTES = 512
"""A namespace and a name have at most 317 characters; the rest is a statistic's name and a number."""
MAX_BYTES = 200 * MAX_LINES
MAX_SCRAPE_BYTES = 4 * MAX_BYTES
"""Prometheus' format adds labels to each statistic, and a line with its type."""
STATS_PORTS = range(9902, 9903)
"""The ports that an Envoy may name by default: the port that the chart uses."""
_LINE = re.compile(rb"(?:cluster\.(.+)\.(" + "|".join(FIELDS).encode() + rb")|server\.uptime): ([0-9]{1,18})")
_HEADERS = {"Accept-Encoding": "identity", "Accept": "text/plain"}
Admin = Path | str
"""A Unix socket, or `ip:port`; empty for an Envoy that named no port."""


class UnusableStatsError(Exception):
    """An answer or an address that cannot be used, or no answer. Its message contains no bytes of the answer."""


class AdminStats:
    """A source of samples: the admin ports of all Envoys.

    `admins` returns the addresses of the present Envoys, by node id; `ports` are the ports that an address may have.
    """

    def __init__(
        self,
        admins: Callable[[], Mapping[str, Admin]],
        now: Callable[[], float],
        timeout: float,
        ports: range = STATS_PORTS,
    ) -> None:
        self._admins, self._now, self._timeout, self._ports = admins, now, timeout, ports
        self._sessions: dict[Admin, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    async def prometheus_text(self, envoy: str) -> bytes:
        """Return an Envoy's metrics in Prometheus' format. Raises `OSError` and `TimeoutError`."""
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(self._timeout):
                await self._fetch(self._admins()[envoy], SCRAPE, {"usedonly": ""}, MAX_SCRAPE_BYTES, parts.append)
        except (UnusableStatsError, aiohttp.ClientError) as error:
            raise OSError(_describe(error)) from error
        return b"".join(parts)

    async def stop_listening(self, envoy: str) -> bool:
        """Make an Envoy refuse new connections and ask its HTTP clients to close theirs.

        Return False if it does not answer.
        """
        try:
            async with asyncio.timeout(self._timeout):
                for path in STOP_LISTENING:
                    async with self._session(self._admins()[envoy]).post(path) as response:
                        response.raise_for_status()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False
        return True

    async def is_gone(self, envoy: str) -> bool:
        """Return whether no process listens at the admin port: an Envoy that is only slow is not gone."""
        try:
            async with asyncio.timeout(self._timeout), self._session(self._admins()[envoy]).get(READY):
                return False
        except aiohttp.ClientConnectorError:
            return True
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    async def sample(self) -> Sample:
        taken_at = self._now()
        admins = dict(self._admins())
        for gone in self._sessions.keys() - set(admins.values()):
            await self._sessions.pop(gone).close()
        answers = await asyncio.gather(*(self._read(admin) for admin in admins.values()))
        by_envoy = dict(zip(admins, answers, strict=True))
        readings = {envoy: answer for envoy, answer in by_envoy.items() if not isinstance(answer, str)}
        missing = {envoy: answer for envoy, answer in by_envoy.items() if isinstance(answer, str)}
        return Sample(taken_at, readings, missing)

    async def _read(self, admin: Admin) -> EnvoyReading | str:
        """Return the reading of an Envoy, or the reason why there is none."""
        if not admin:
            return "it did not report the address of its statistics; generate its bootstrap with --stats-address"
        try:
            async with asyncio.timeout(self._timeout):
                parser = Parser()
                process = await self._fetch(admin, STATS_PATH, QUERY, MAX_BYTES, parser.feed)
                return replace(parser.reading(), process=process)
        except TimeoutError:
            return f"its admin port did not answer within {self._timeout:g} s"
        except (UnusableStatsError, aiohttp.ClientError, OSError, ValueError) as error:
            return f"its admin port: {_describe(error)}"

    async def _fetch(
        self, admin: Admin, path: str, query: Mapping[str, str], most_bytes: int, take: Callable[[bytes], None]
    ) -> int:
        """Pass the body of an answer to `take`, in pieces; return the id of the process that answered, 0 if unknown.

        Raises `UnusableStatsError`, and the errors of aiohttp.
        """
        async with self._session(admin).get(path, params=query, headers=_HEADERS, allow_redirects=False) as response:
            if response.status != 200:
                raise UnusableStatsError(f"HTTP status {response.status}")
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise UnusableStatsError("its answer is compressed, although plain text was requested")
            process, received = _process_of(response), 0
            async for chunk in response.content.iter_any():
                received += len(chunk)
                if received > most_bytes:
                    raise UnusableStatsError(f"its answer exceeds {most_bytes} bytes")
                take(chunk)
        return process

    def _session(self, admin: Admin) -> aiohttp.ClientSession:
        if admin not in self._sessions:
            url = "http://envoy" if isinstance(admin, Path) else f"http://{self._checked(admin)}"
            connector = aiohttp.UnixConnector(str(admin), force_close=True) if isinstance(admin, Path) else None
            self._sessions[admin] = aiohttp.ClientSession(
                url,
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None),  # a timeout is set around the whole call
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._sessions[admin]

    def _checked(self, admin: str) -> str:
        """Return the address if it is allowed. Raises `UnusableStatsError`."""
        try:
            host, number = split_address(admin)
            ip_address(host)
        except ValueError:
            raise UnusableStatsError("its address is not ip:port") from None
        if number not in self._ports:
            first, last = self._ports[0], self._ports[-1]
            allowed = f"{first}" if first == last else f"{first}-{last}"
            raise UnusableStatsError(f"port {number} is not allowed; allowed by --stats-ports: {allowed}")
        return admin


class Parser:
    """An incremental parser of Envoy's plain text: `name: value` on each line."""

    def __init__(self) -> None:
        self._counted: dict[str, dict[str, int]] = {}
        self._uptime: float | None = None
        self._lines, self._rest = 0, b""

    def feed(self, data: bytes) -> None:
        """Parse the next piece. Raises `UnusableStatsError` for an unexpected or long line, or too many lines."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._add(line)
        if len(self._rest) > MAX_LINE_BYTES:
            raise UnusableStatsError(f"line {self._lines + 1} of its answer exceeds {MAX_LINE_BYTES} bytes")

    def reading(self) -> EnvoyReading:
        """Return the reading. Raises `UnusableStatsError` if the text is incomplete."""
        if self._rest:
            raise UnusableStatsError("its answer is cut short")
        if self._uptime is None:
            raise UnusableStatsError("its answer has no server.uptime")
        return EnvoyReading(self._uptime, {service: Counters(**values) for service, values in self._counted.items()})

    def _add(self, line: bytes) -> None:
        self._lines += 1
        if self._lines > MAX_LINES:
            raise UnusableStatsError(f"its answer exceeds {MAX_LINES} lines")
        found = _LINE.fullmatch(line) if len(line) <= MAX_LINE_BYTES else None
        if found is None:
            raise UnusableStatsError(f"line {self._lines} of its answer is not a requested statistic")
        cluster, figure, value = found.groups()
        if cluster is None:
            self._uptime = float(value)
            return
        field = FIELDS[figure.decode()]
        counters = self._counted.setdefault(service_name(cluster.decode(errors="replace")), {})
        counters[field] = counters.get(field, 0) + int(value)


def _process_of(response: aiohttp.ClientResponse) -> int:
    """Return the id of the process that listens on a Unix socket; 0 for another socket.

    By SO_PEERCRED of unix(7).
    """
    transport = response.connection.transport if response.connection else None
    peer = transport.get_extra_info("socket") if transport else None
    if peer is None or peer.family != socket.AF_UNIX:
        return 0
    pid, _, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(pid)


def _describe(error: Exception) -> str:
    """Describe an error without quoting the answer, as aiohttp may do."""
    match error:
        case UnusableStatsError():
            return str(error)
        case aiohttp.ClientConnectorError() | ConnectionError() | FileNotFoundError():
            return "it cannot be reached"
        case _:
            return f"its answer is not valid HTTP ({type(error).__name__})"
