"""The holder's process, `zenvoy-tproxy run`, from its start to its exit code. The only place that wires all parts."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from pathlib import Path
from typing import Literal, TextIO, cast

import structlog

from tproxy import address
from tproxy.control.stream import ReconcilerStream, TlsFiles
from tproxy.holder import Holder
from tproxy.io import tcp
from tproxy.io.descriptors import Budget
from tproxy.io.health import HealthSocket
from tproxy.io.listener import CannotListen, Listener, Mode, open_socket
from tproxy.io.log_output import LogOutput, replace_streams
from tproxy.io.loop import Loop
from tproxy.metrics import MetricsPort
from tproxy.redirect import rules
from tproxy.redirect.self_check import SelfCheck
from tproxy.wire import HolderHello

log = structlog.get_logger("tproxy")

RulesChoice = Literal["auto", "nft", "iptables", "keep"]
LogStyle = Literal["plain", "json"]

METRICS_RETRY_SECONDS = 1.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
NETWORK_NAMESPACE = "/proc/self/ns/net"


class HolderExit(IntEnum):
    """Exit codes."""

    OK = 0
    CANNOT_LISTEN = 3
    NO_RULES = 4
    CUT = 5
    """Connections were still held or relayed at the drain timeout or at a second signal."""


def configure_log(style: LogStyle) -> None:
    """Log to standard error, as text or as one JSON object per line. From now on no write blocks or fails."""
    output = LogOutput(2, lambda text: text.encode(errors="backslashreplace"))
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
        logger_factory=lambda *_: structlog.WriteLogger(cast(TextIO, output)),
    )


def _escape(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape control characters, because messages of peers are logged too."""
    return {
        key: repr(value) if isinstance(value, str) and not value.isprintable() else value
        for key, value in event.items()
    }


def log_failure(error: Exception) -> None:
    """Log the failure of a callback of the loop, which continues."""
    log.error("a callback failed", exc_info=error)


@dataclass
class HolderProcess:
    """The process of one holder. Its public fields are options of `zenvoy-tproxy run`, whose help describes them."""

    mode: Mode
    listen: str
    reconciler: str
    ports: tuple[int, int]
    rules: RulesChoice
    rules_check_seconds: float
    metrics: str | None
    drain_timeout: float
    keepalive: float
    tcp_keepalive: int
    holder_id: str | None
    listen_file: Path | None
    health_socket: Path | None
    tls: TlsFiles | None
    keeper: Path | None
    _exit: HolderExit = HolderExit.OK
    _rules_port: int | None = None

    def run(self) -> HolderExit:
        """Run until a signal ends it. Raises CannotListen and rules.CannotInstall before it accepts connections."""
        with ExitStack() as stack:
            sock = stack.enter_context(open_socket(self.listen, self.mode))
            tcp.keep_alive(sock, self.tcp_keepalive)
            budget = Budget()
            self._loop = loop = Loop(log_failure)
            stack.callback(loop.close)
            holder_id = self.holder_id or claim_id(tcp.local_address(sock.fileno()), stack)
            hello = HolderHello(holder_id, self.mode)
            self._holder = holder = Holder(loop, budget, hello, self.keeper, self.tcp_keepalive)
            stack.callback(holder.keeper.close)
            holder.adopt()
            self._listener = listener = Listener(loop, sock, holder.accept, holder.count_shed)
            stack.callback(holder.relay.close)
            stack.callback(listener.close)
            if self.health_socket:
                stack.callback(HealthSocket(loop, self.health_socket).close)
            if self.metrics:
                self._open_metrics(stack, self.metrics)
            if self.mode == "tproxy":
                self._redirect(stack)
            if self.listen_file:
                _write_atomically(self.listen_file, listener.address)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._on_signal)
            stream = ReconcilerStream(self.reconciler, loop, holder, self.keepalive, self.tls)
            stack.callback(stream.close)
            log.info("listening", address=listener.address, mode=self.mode, descriptors=budget.limit)
            loop.run()
        log.info("ended", exit_code=int(self._exit))
        return self._exit

    def _open_metrics(self, stack: ExitStack, listen: str, logged: str = "") -> None:
        """Serve metrics as soon as the port is free; the holder works without. `logged` is the last logged error."""
        try:
            port = MetricsPort(listen, self._holder, self._listener)
        except OSError as error:
            reason = error.strerror or str(error)
            if reason != logged:
                log.error("cannot listen for --metrics, retrying every second", address=listen, error=reason)
            self._loop.call_later(METRICS_RETRY_SECONDS, lambda: self._open_metrics(stack, listen, reason))
            return
        stack.callback(port.close)
        log.info("metrics", address=port.address)

    def _redirect(self, stack: ExitStack) -> None:
        holder = self._holder
        redirected = self._install_rules()
        if redirected is not None:
            holder.set_redirected(redirected)
        stack.callback(self._remove_rules)
        holder.self_check = SelfCheck(
            self._loop, self.ports, self.rules_check_seconds, holder.assignments, holder.set_redirected
        )
        stack.callback(holder.self_check.stop)

    def _install_rules(self) -> bool | None:
        """Install or find the rules; return whether there are any, or None without a tool to find them with."""
        host, port = address.split(self._listener.address)
        if self.rules == "keep":
            found = rules.installed_port("nft") or rules.installed_port("iptables")
            if found is not None and found != port:
                raise rules.CannotInstall(f"the installed rules redirect to port {found}, not to {port}")
            if found is None and not any(map(shutil.which, ("nft", "iptables"))):
                return None
            return found is not None
        tool = rules.find_tool(self.rules)
        rules.install(rules.RedirectRules(port, self.ports, "inet" if ":" in host else "ip"), tool)
        self._rules_port = port
        log.info("rules installed", tool=tool, ports="{}-{}".format(*self.ports))
        return True

    def _remove_rules(self) -> None:
        if self._rules_port is None:
            return
        port, self._rules_port = self._rules_port, None
        try:
            rules.remove(port)
        except rules.CannotInstall as error:
            log.error("failed to remove the rules", error=str(error))

    def _on_signal(self, number: int, _frame: object) -> None:
        self._loop.call_soon_threadsafe(lambda: self._shut_down(signal.Signals(number).name))

    def _shut_down(self, signal_name: str) -> None:
        log.info("received a signal", name=signal_name)
        if self._listener.is_open:
            if self._holder.self_check:
                self._holder.self_check.stop()
            self._listener.close()
            self._remove_rules()
            self._holder.drain(self.drain_timeout, self._on_drained)
        else:
            self._on_drained(not (self._holder.held or self._holder.relayed))

    def _on_drained(self, in_time: bool) -> None:
        self._exit = HolderExit.OK if in_time else HolderExit.CUT
        self._loop.stop()


def claim_id(listen_address: str, stack: ExitStack) -> str:
    """Return the default id of a holder, which is claimed until the stack ends.

    The reconciler expects a holder that disappeared to return, so a restart keeps the id: it is derived from the boot
    of the machine, the network namespace, and the listening address. While an older process claims the id (it drains,
    with a descriptor of the same socket), the reconciler must not forget the connections that it relays. The id is then
    random, as it is if the machine cannot be identified.
    """
    host = os.uname().nodename
    claim = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    try:
        origin = f"{BOOT_ID.read_text().strip()} {os.readlink(NETWORK_NAMESPACE)} {listen_address}"
        digest = blake2b(origin.encode(), digest_size=6).hexdigest()
        claim.bind(f"\0zenvoy-tproxy-{digest}")
    except OSError:
        claim.close()
        return f"{host}-{uuid.uuid4().hex[:12]}"
    return f"{host}-{digest}"


def _write_atomically(path: Path, text: str) -> None:
    """Write a file. Raises `CannotListen`: an address that is not announced is of no use."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(f"{text}\n", encoding="ascii")
        temporary.replace(path)
    except OSError as error:
        raise CannotListen(f"cannot write --listen-file {path}: {error.strerror}") from None
