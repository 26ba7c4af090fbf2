"""`zenvoy-tproxy run`: the holder's process from its start to its exit code. The only wiring of the package."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Literal, TextIO, cast

import structlog

from tproxy import address
from tproxy.control.identity import claimed
from tproxy.control.stream import KEEPALIVE_SECONDS, Stream
from tproxy.control.tls import Tls
from tproxy.holder import Holder
from tproxy.io.descriptors import Budget
from tproxy.io.health import HealthSocket, loop_answers
from tproxy.io.listener import CannotListen, Listener, Mode, open_socket
from tproxy.io.log_output import LogOutput, LogStream, replace_streams
from tproxy.io.loop import Loop
from tproxy.metrics import MetricsPort
from tproxy.redirect import netfilter
from tproxy.redirect.rules import DEFAULT_PORTS, Rules
from tproxy.redirect.self_check import LOOK_SECONDS, Diversion
from tproxy.wire import Hello

log = structlog.get_logger("tproxy")

RulesChoice = Literal["auto", "nft", "iptables", "keep"]


METRICS_RETRY_SECONDS = 1.0


class Exit(IntEnum):
    """Exit codes."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CANNOT_LISTEN = 3
    NO_RULES = 4
    CUT = 5
    """Connections were still held or relayed when the drain timed out, or a second signal came."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What `run` was told."""

    mode: Mode
    listen: str
    reconciler: str
    ports: tuple[int, int] = DEFAULT_PORTS
    rules: RulesChoice = "auto"
    look_at_rules: float = LOOK_SECONDS
    """Mode tproxy: seconds between two looks at whether they divert connections here."""
    metrics: str | None = None
    drain_timeout: float = 30.0
    keepalive: float = KEEPALIVE_SECONDS
    holder_id: str | None = None
    listen_file: Path | None = None
    health_socket: Path | None = None
    tls: Tls | None = None
    keeper: Path | None = None
    """The Unix socket of a keeper."""


def configure_log(style: Literal["plain", "json"]) -> None:
    """Let log lines go to standard error, for people or one JSON object each. No write blocks or fails from now on."""
    output = LogOutput(2, lambda text: text.encode(errors="backslashreplace"), _report_lost)
    replace_streams(output, output)
    renderer = structlog.processors.JSONRenderer() if style == "json" else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _escape,
            structlog.processors.format_exc_info if style == "json" else (lambda _logger, _method, event: event),
            renderer,
        ],
        logger_factory=lambda *_: structlog.WriteLogger(cast(TextIO, LogStream(output))),
    )


def _escape(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape what a terminal would obey: messages of peers are logged too."""
    return {
        key: repr(value) if isinstance(value, str) and not value.isprintable() else value
        for key, value in event.items()
    }


def _report_lost(count: int, why: str) -> None:
    log.warning("log lines were lost", count=count, why=why)


def run(settings: Settings) -> Exit:
    """Run until a signal ends it. Raises CannotListen and netfilter.CannotInstall before anything was begun."""
    return _Process(settings).run()


class _Process:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._exit = Exit.OK
        self._signals = 0
        self._rules_port: int | None = None
        self._metrics: MetricsPort | None = None

    def run(self) -> Exit:
        settings = self._settings
        with ExitStack() as stack:
            sock = stack.enter_context(open_socket(settings.listen, settings.mode))
            budget = Budget()
            self._loop = loop = Loop(lambda error: log.error("a callback failed", exc_info=error))
            stack.callback(loop.close)
            hello = Hello(settings.holder_id or self._claimed(sock, stack), settings.mode)
            self._holder = holder = Holder(loop, budget, int(sock.family), hello, settings.keeper)
            stack.callback(holder.keeping.close)
            holder.adopt()
            self._listener = listener = Listener(loop, sock, self._accept, holder.overflowed)
            used, every = holder.assignments, settings.look_at_rules
            self._diversion = Diversion(
                loop, int(sock.family), settings.ports, every, used.__contains__, holder.diverted
            )
            stack.callback(holder.relay.close)
            stack.callback(listener.close)
            if settings.health_socket:
                stack.callback(self._open_health(settings.health_socket).close)
            if settings.metrics:
                stack.callback(self._close_metrics)
                self._open_metrics(settings.metrics)
            if settings.mode == "tproxy":
                self._divert(stack)
            if settings.listen_file:
                _write_atomically(settings.listen_file, listener.address)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._on_signal)
            stream = Stream(settings.reconciler, loop, holder, settings.keepalive, settings.tls)
            stack.callback(stream.close)
            stream.start()
            log.info("listening", address=listener.address, mode=settings.mode, descriptors=budget.limit)
            loop.run()
        log.info("ended", exit_code=int(self._exit))
        return self._exit

    def _accept(self, fd: int) -> None:
        if not self._diversion.takes(fd):
            self._holder.accept(fd)

    def _divert(self, stack: ExitStack) -> None:
        family: Literal["ip", "inet"] = "ip" if "[" not in self._listener.address else "inet"
        rules = self._install_rules(address.split(self._listener.address)[1], family)
        if rules is not None:
            self._holder.diverted(rules)
        stack.callback(self._remove_rules)
        self._diversion.start(rules)
        stack.callback(self._diversion.stop)

    def _claimed(self, sock: socket.socket, stack: ExitStack) -> str:
        host, port = sock.getsockname()[:2]
        name, claim = claimed(address.join(host, port))
        if claim:
            stack.enter_context(claim)
        return name

    def _open_health(self, path: Path) -> HealthSocket:
        try:
            return HealthSocket(self._loop, path)
        except OSError as error:
            raise CannotListen(f"cannot listen on {path} for --health-socket: {error.strerror}") from error

    def _open_metrics(self, listen: str, why: str = "") -> None:
        """Serve metrics as soon as the port is free; a holder without them still holds. `why` is in the log already."""
        holder, listener = self._holder, self._listener
        try:
            is_alive = partial(loop_answers, self._loop)
            self._metrics = MetricsPort(listen, holder, lambda: listener.is_open and holder.is_informed, is_alive)
        except OSError as error:
            now = error.strerror or str(error)
            if now != why:
                log.error("cannot listen for --metrics; it is tried again every second", address=listen, why=now)
            self._loop.call_later(METRICS_RETRY_SECONDS, lambda: self._open_metrics(listen, now))
            return
        log.info("metrics", address=self._metrics.address)

    def _close_metrics(self) -> None:
        if self._metrics:
            self._metrics.close()

    def _install_rules(self, port: int, family: Literal["ip", "inet"]) -> bool | None:
        """Whether there are rules; None: there is nothing to look with."""
        choice = self._settings.rules
        if choice == "keep":
            found = netfilter.installed("nft") or netfilter.installed("iptables")
            if found is not None and found != port:
                raise netfilter.CannotInstall(f"the rules that are installed divert to port {found}, not to {port}")
            if found is None and not any(map(shutil.which, ("nft", "iptables"))):
                return None
            return found is not None
        tool = netfilter.find_tool(choice)
        netfilter.install(Rules(port, self._settings.ports, family), tool)
        self._rules_port = port
        log.info("rules installed", tool=tool, ports="{}-{}".format(*self._settings.ports))
        return True

    def _remove_rules(self) -> None:
        if self._rules_port is None:
            return
        port, self._rules_port = self._rules_port, None
        try:
            netfilter.remove(port)
        except netfilter.CannotInstall as error:
            log.error("the rules could not be removed", why=str(error))

    def _on_signal(self, number: int, _frame: object) -> None:
        self._loop.call_soon_threadsafe(lambda: self._end(signal.Signals(number).name))

    def _end(self, name: str) -> None:
        self._signals += 1
        log.info("a signal", name=name)
        if self._signals == 1:
            self._diversion.stop()
            self._listener.close()
            self._remove_rules()
            self._holder.drain(self._settings.drain_timeout, self._ended)
        else:
            self._ended(not (self._holder.held or self._holder.relayed))

    def _ended(self, in_order: bool) -> None:
        self._exit = Exit.OK if in_order else Exit.CUT
        self._loop.stop()


def _write_atomically(path: Path, text: str) -> None:
    """Raises `CannotListen`: what nobody is told of is of no use."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(f"{text}\n", encoding="ascii")
        beside.replace(path)
    except OSError as error:
        raise CannotListen(f"cannot write --listen-file {path}: {error.strerror}") from None
