"""Probes of programs: readiness while they start, with the diagnosis of slow ones, and busy checks while they run.

A program is ready once it accepts connections and its HTTP or command probe succeeds. A wake waits for this, so dials
are 2 ms apart; a refused dial on the loopback device costs about 20 µs. Slow programs, and many that start at once, are
dialed less often. Only IPv4 is dialed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from errno import EINPROGRESS, EISCONN
from signal import SIGKILL

from reconciler.core.address import join_address
from reconciler.core.busy import CHECK_SECONDS, check_failed, describe_end, of_exit_code, of_status
from reconciler.core.reasons import Blocker
from reconciler.http_get import NoStatus, get_status
from reconciler.local.processes.launch import Launcher
from reconciler.local.processes.pidfd import WatchedProcess
from reconciler.local.processes.program import Program
from reconciler.local.sockets import ListeningSocket

HOST = "127.0.0.1"
GRID_SECONDS = 0.002
GRID_FOR_SECONDS = 2.0
SLOWER_BY = 1.3
SLOWEST_SECONDS = 0.05
SHARE_SECONDS = 0.0002
"""The shortest time between two dials to any service, so that dialing leaves time to programs that start."""
ANSWER_SECONDS = 2.0
MOST_OTHERS = 3
"""Sockets in one message that are not TCP."""
NOT_RUNNING = check_failed("the program does not run")


@dataclass(slots=True)
class Unreadiness:
    """The reason why a program is not ready, such as the latest answer of its readiness probe."""

    message: str = "its readiness probe has not answered yet"
    lasts: bool = False
    """True if waiting does not change it, as far as one can see."""

    def note(self, message: str, lasts: bool = False) -> None:
        """Replace the reason."""
        self.message, self.lasts = message, lasts


class Prober:
    """Probes programs that start, in parallel, and asks running programs whether they work without a client."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._starting = 0

    async def until_ready(self, service: str, port: int, program: Program, last: Unreadiness) -> None:
        """Return once a dial succeeds and the program is ready; `last` receives each answer of its probe."""
        self._starting += 1
        try:
            await self._until_accepted(port)
            while program.ready_path is not None and not await _answers(port, program.ready_path, last):
                await asyncio.sleep(SLOWEST_SECONDS)
            while program.ready_command and not await self._command_succeeds(service, program, port, last):
                await asyncio.sleep(SLOWEST_SECONDS)
        finally:
            self._starting -= 1

    async def _until_accepted(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        slower_from = loop.time() + GRID_FOR_SECONDS
        pause = GRID_SECONDS
        while not accepts(port):
            await asyncio.sleep(max(pause, SHARE_SECONDS * self._starting))
            if loop.time() > slower_from:
                pause = min(pause * SLOWER_BY, SLOWEST_SECONDS)

    async def _command_succeeds(self, service: str, program: Program, port: int, last: Unreadiness) -> bool:
        """Return whether the program's `ready_command` exits with 0 in time."""
        command = program.ready_command
        try:
            process = self._launcher.start_command(service, program, command, port)
            code = await _exit_code(process, ANSWER_SECONDS)
        except TimeoutError:
            last.note(f"{command[0]} has not ended within {ANSWER_SECONDS:g} s")
            return False
        except (OSError, ValueError) as error:
            last.note(f"{command[0]} cannot be run: {error}", lasts=True)
            return False
        last.note(describe_end(command[0], code))
        return code == 0

    async def ask_busy(self, service: str, port: int, program: Program) -> Blocker | None:
        """Return the reason to keep a service awake, or None if it is idle."""
        if program.busy_path is None:
            return await self._ask_command(service, port, program)
        question = f"GET {program.busy_path}"
        try:
            return of_status(question, await get_status(HOST, port, program.busy_path, CHECK_SECONDS))
        except NoStatus as error:
            return check_failed(f"{question} {error}")

    async def _ask_command(self, service: str, port: int, program: Program) -> Blocker | None:
        command = program.busy_command
        try:
            process = self._launcher.start_command(service, program, command, port)
            return of_exit_code(command[0], await _exit_code(process, CHECK_SECONDS))
        except TimeoutError:
            return check_failed(f"{command[0]} has not ended within {CHECK_SECONDS:g} s")
        except (OSError, ValueError) as error:
            return check_failed(f"{command[0]} cannot be run: {error}")


async def _exit_code(process: WatchedProcess, seconds: float) -> int | None:
    """Return the exit code of the command of a probe, or None if it was killed. Raises `TimeoutError`."""
    try:
        await asyncio.wait_for(process.wait(), seconds)
    finally:
        with suppress(PermissionError):
            process.send_to_group(SIGKILL)
    return process.exit_code


def accepts(port: int) -> bool:
    """Return whether a process listens on the port, without waiting: the loopback device answers within the call."""
    target = (HOST, port)
    try:
        with socket.socket() as dial:
            dial.setblocking(False)
            if dial.connect_ex(target) in (0, EINPROGRESS) and dial.connect_ex(target) in (0, EISCONN):
                # Without a listener, a dial from an ephemeral port can connect to itself.
                return bool(dial.getpeername() != dial.getsockname())
    except OSError:
        return False
    return False


async def _answers(port: int, path: str, last: Unreadiness) -> bool:
    try:
        status = await get_status(HOST, port, path, ANSWER_SECONDS)
    except NoStatus as error:
        last.note(f"GET {path} {error}", lasts=error.is_not_http)
        return False
    last.note(f"GET {path} is answered with {status}", lasts=400 <= status < 500)
    return 200 <= status < 400


def unreadiness(
    port: int,
    program: Program,
    is_accepted: bool,
    probe: Unreadiness,
    sockets: Sequence[ListeningSocket],
    others: Sequence[str] = (),
) -> Unreadiness:
    """Return the reason; `sockets` are those on which its processes listen, and `others` those that are not TCP."""
    if is_accepted:
        return copy(probe)
    target = join_address(HOST, port)
    if not sockets:
        instead = f"; it listens on {', '.join(others[:MOST_OTHERS])}" if others else ""
        return Unreadiness(f"nothing listens on {target} yet{instead}")
    at = ", ".join(join_address(one.host, one.port) for one in sockets)
    if any(one.port == port for one in sockets):
        return Unreadiness(f"it listens on {at} and not on {target}; let it listen on {HOST}", lasts=True)
    remedy = 'pass it "{port}"' if program.port is None else f"set port: {sockets[0].port}"
    return Unreadiness(f"it listens on {at} and not on port {port}; {remedy}", lasts=True)
