"""Readiness of a started program: it accepts connections, and its HTTP or command probe succeeds.

A wake waits for this, so dials are 2 ms apart; a refused dial on the loopback device costs about 20 µs. Slow programs,
and many that start at once, are dialled less often. Only IPv4 is dialled.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass
from errno import EINPROGRESS, EISCONN
from signal import SIGKILL

from reconciler.local.processes.launch import launch_ready_command
from reconciler.local.processes.program import Program

GRID_SECONDS = 0.002
GRID_FOR_SECONDS = 2.0
SLOWER_BY = 1.3
SLOWEST_SECONDS = 0.05
SHARE_SECONDS = 0.0002
"""The shortest time between two dials to any service, so that dialling leaves time to programs that start."""
ANSWER_SECONDS = 2.0


@dataclass(slots=True)
class LastProbe:
    """The latest answer of a readiness probe that has not succeeded."""

    message: str | None = None
    lasts: bool = False
    """True if waiting does not change it, as far as one can see."""

    def note(self, message: str, lasts: bool = False) -> None:
        """Replace the answer."""
        self.message, self.lasts = message, lasts


class ReadinessProber:
    """Probes programs that start, in parallel."""

    def __init__(self, run: str, umask: int) -> None:
        """`run` names the state directory; `umask` is the umask of the programs."""
        self._run, self._umask = run, umask
        self._starting = 0

    async def until_ready(self, service: str, port: int, program: Program, last: LastProbe) -> None:
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

    async def _command_succeeds(self, service: str, program: Program, port: int, last: LastProbe) -> bool:
        """Return whether the program's `ready_command` exits with 0 in time."""
        name = program.ready_command[0]
        try:
            process = launch_ready_command(service, program, port, self._run, self._umask)
        except (OSError, ValueError) as error:
            last.note(f"{name} cannot be run: {error}", lasts=True)
            return False
        try:
            await asyncio.wait_for(process.wait(), ANSWER_SECONDS)
        except TimeoutError:
            last.note(f"{name} has not ended within {ANSWER_SECONDS:g} s")
            return False
        finally:
            with suppress(PermissionError):
                process.send_to_group(SIGKILL)
        last.note(f"{name} exits with {process.exit_code}")
        return process.exit_code == 0


def accepts(port: int) -> bool:
    """Return whether a process listens on the port, without waiting: the loopback device answers within the call."""
    target = ("127.0.0.1", port)
    try:
        with socket.socket() as dial:
            dial.setblocking(False)
            if dial.connect_ex(target) in (0, EINPROGRESS) and dial.connect_ex(target) in (0, EISCONN):
                # Without a listener, a dial from an ephemeral port can connect to itself.
                return bool(dial.getpeername() != dial.getsockname())
    except OSError:
        return False
    return False


async def _answers(port: int, path: str, last: LastProbe) -> bool:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            status = await _status(port, path)
    except TimeoutError:
        last.note(f"GET {path} is not answered within {ANSWER_SECONDS:g} s")
        return False
    except OSError as error:
        last.note(f"GET {path} is not answered: {error.strerror or error}")
        return False
    except (ValueError, IndexError, asyncio.LimitOverrunError):
        last.note(f"GET {path} is not answered with HTTP", lasts=True)
        return False
    last.note(f"GET {path} is answered with {status}", lasts=400 <= status < 500)
    return 200 <= status < 400


async def _status(port: int, path: str) -> int:
    """Return the status of `GET path`. Raises OSError, and ValueError or IndexError if the answer is not HTTP."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: zenvoy\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        return int((await reader.readline()).split()[1])
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
