"""A TCP forwarder, in place of the headless Service for Envoys and holders, and of a pod's address for a peer.

All pods of a test are processes of one machine, which would dial each other from the address that they dial.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

DIAL_SECONDS = 30.0
"""Longer than the machine is ever busy: to give up a replica that runs would look like its end."""


class Door:
    """Listens on an address, and leads to the first of `replicas` (`ip`, port) that takes a connection. In a thread."""

    def __init__(
        self,
        replicas: Sequence[tuple[str, int]],
        listen: tuple[str, int] = ("127.0.0.1", 0),
        source: str | None = None,
    ) -> None:
        """Prepare to listen; `source` is the address to dial from."""
        self.replicas = list(replicas)
        """In the order in which they are tried; may be changed at any time."""
        self.port = 0
        self._listen, self._source = listen, (source, 0) if source else None
        self._writers: dict[asyncio.StreamWriter, tuple[str, int] | None] = {}
        """Where each connection leads; None while that is dialled."""
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait(60)

    def cut(self) -> None:
        """End all connections; the clients reconnect."""
        self._loop.call_soon_threadsafe(self._cut, lambda _: True)

    def cut_elsewhere(self) -> None:
        """End the connections that do not lead to the first of `replicas`; the clients reconnect."""
        first = self.replicas[0]
        self._loop.call_soon_threadsafe(self._cut, lambda leads_to: leads_to not in (None, first))

    def _cut(self, chosen: Callable[[tuple[str, int] | None], bool]) -> None:
        for writer, leads_to in self._writers.items():
            if chosen(leads_to):
                writer.transport.abort()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._pass, *self._listen))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers[writer] = None
        try:
            for host, port in list(self.replicas):
                try:
                    dial = asyncio.open_connection(host, port, local_addr=self._source)
                    far_reader, far_writer = await asyncio.wait_for(dial, DIAL_SECONDS)
                except (OSError, TimeoutError):
                    continue
                self._writers[writer] = (host, port)
                try:
                    copies = _copy(reader, far_writer), _copy(far_reader, writer)
                    await asyncio.wait(map(asyncio.ensure_future, copies), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    far_writer.close()
                break
        finally:
            self._writers.pop(writer, None)
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
