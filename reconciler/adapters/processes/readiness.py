"""Whether a started program can be used yet: it accepts a connection, and answers well if it is to be asked.

A service's wake waits for this, so dials come on a grid of 2 ms; a refused dial to the loopback costs some 20 µs. A
program that takes long is asked less often, and so are many that start at once. Only IPv4's loopback is dialled.
Counterpart: `unit.py`, which makes sure that it is still the program itself that answers.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from errno import EINPROGRESS, EISCONN

from reconciler.adapters.processes.program import Program, filled

GRID_SECONDS = 0.002
GRID_FOR_SECONDS = 2.0
SLOWER_BY = 1.3
SLOWEST_SECONDS = 0.05
SHARE_SECONDS = 0.0002
"""The least time between two dials, of whichever services: what dialling may take from programs that start."""
ANSWER_SECONDS = 2.0


class Dialler:
    """Dials the programs that start, side by side."""

    def __init__(self) -> None:
        self._starting = 0

    async def until_reachable(self, port: int, program: Program, ours: Mapping[str, str]) -> None:
        """Return once a dial to the port succeeded and the program answers well, in the way that it is to be asked.

        `ours` are variables for what is run to ask it.
        """
        self._starting += 1
        try:
            await self._until_accepted(port)
            while program.ready_path is not None and not await _answers_well(port, program.ready_path):
                await asyncio.sleep(SLOWEST_SECONDS)
            while program.ready_command and not await _is_said_ready(program, port, ours):
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


def accepts(port: int) -> bool:
    """Whether somebody listens there; does not wait. The kernel decides within the call on the loopback."""
    target = ("127.0.0.1", port)
    try:
        with socket.socket() as dial:
            dial.setblocking(False)
            if dial.connect_ex(target) in (0, EINPROGRESS) and dial.connect_ex(target) in (0, EISCONN):
                # With nobody listening, a port that the kernel also lends to dials can get connected to itself.
                return bool(dial.getpeername() != dial.getsockname())
    except OSError:
        return False
    return False


async def _answers_well(port: int, path: str) -> bool:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            status = await _status(port, path)
    except (OSError, TimeoutError, ValueError, IndexError, asyncio.LimitOverrunError):
        return False
    return 200 <= status < 400


async def _status(port: int, path: str) -> int:
    """The status of `GET path`. Raises OSError, and ValueError or IndexError for what is no HTTP answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: zenvoy\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        return int((await reader.readline()).split()[1])
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _is_said_ready(program: Program, port: int, ours: Mapping[str, str]) -> bool:
    """Whether the program's `ready_command` ends with 0, and in time."""
    command = [filled(part, port) for part in program.ready_command]
    environment = {**os.environ, "PORT": str(port), **program.variables(port), **ours}
    nowhere = asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=program.working_directory, env=environment, stdin=nowhere, stdout=nowhere, stderr=nowhere
        )
    except (OSError, ValueError):
        return False
    try:
        return await asyncio.wait_for(process.wait(), ANSWER_SECONDS) == 0
    except TimeoutError:
        return False
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
