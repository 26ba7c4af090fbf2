"""The Python relays in `bench.relay`: `python -m bench.relay_python zenvoy|asyncio PORT TARGET_PORT`."""

from __future__ import annotations

import asyncio
import select
import socket
import sys

from tproxy.io.loop import Loop
from tproxy.relay.relay import Attempt, Relay, RelayedConnection

HOST = "127.0.0.1"


class _Owner:
    """An owner that ignores its connections."""

    def on_first_byte(self) -> None: ...

    def on_relay_ended(self, relayed: RelayedConnection) -> None: ...


def relay_with_zenvoy(port: int, target: int) -> None:
    """Run zenvoy's relay without a hold queue."""
    loop = Loop(print)
    relay, owner = Relay(loop), _Owner()
    listener = socket.create_server((HOST, port), backlog=1024)

    def accept(_events: int) -> RelayedConnection:
        client, _ = listener.accept()
        upstream = socket.create_connection((HOST, target))
        client.setblocking(False)
        upstream.setblocking(False)
        attempt = Attempt(skip=0, deadline=0.0, on_lost=lambda *_: None)  # nothing is repeated
        return relay.start(client.detach(), upstream.detach(), owner, attempt)

    loop.register(listener.fileno(), select.EPOLLIN, accept)
    loop.run()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def relay_with_asyncio(port: int, target: int) -> None:
    """Run a simple relay of two asyncio streams."""

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(HOST, target)
        try:
            await asyncio.gather(_copy(reader, upstream_writer), _copy(upstream_reader, writer))
        except ConnectionError:
            pass
        finally:
            writer.close()
            upstream_writer.close()

    server = await asyncio.start_server(accepted, HOST, port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    name, port, target = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if name == "zenvoy":
        relay_with_zenvoy(port, target)
    else:
        asyncio.run(relay_with_asyncio(port, target))
