"""Whether an endpoint that Kubernetes calls ready takes connections: it is dialled before anybody is sent there.

Rules: one dial that succeeds is enough. Where dials from here get no answer (a NetworkPolicy drops them, say), or are
still refused after some seconds, Kubernetes is believed: whoever is sent there dials for himself.
"""

from __future__ import annotations

import asyncio
import socket

NO_ANSWER_SECONDS = 1.0
"""A dial that is neither accepted nor refused by then is dropped somewhere."""
REFUSED_FOR_SECONDS = 5.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, SLOWER_BY = 0.004, 0.1, 1.3
MOST_AT_ONCE = 256


class Dialler:
    """Dials side by side, within bounds."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)

    async def until_reachable(self, address: str) -> bool | None:
        """Return True once a dial to `ip:port` succeeded. Otherwise, once Kubernetes is to be believed without: False
        when dials are refused, None when they are not answered."""
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + REFUSED_FOR_SECONDS, FIRST_PAUSE_SECONDS
        while True:
            async with self._slots:
                accepted = await accepts(address)
            if accepted is not False or loop.time() > until:
                return accepted
            await asyncio.sleep(pause)
            pause = min(pause * SLOWER_BY, LONGEST_PAUSE_SECONDS)


async def accepts(address: str) -> bool | None:
    """Whether somebody listens there; None when nobody says so, one way or the other."""
    host, _, port = address.rpartition(":")
    ip = host.strip("[]")
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as dial:
            async with asyncio.timeout(NO_ANSWER_SECONDS):
                await asyncio.get_running_loop().sock_connect(dial, (ip, int(port)))
            # With nobody listening, a port that the kernel also lends to dials can get connected to itself.
            return bool(dial.getpeername() != dial.getsockname())
    except TimeoutError:
        return None
    except OSError:
        return False
