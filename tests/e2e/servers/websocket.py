"""A WebSocket that echoes. Arguments: PORT [goodbye]. With the last, SIGTERM closes connections with code 1001."""

from __future__ import annotations

import asyncio
import signal
import sys

from websockets.asyncio.server import ServerConnection, serve


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def main(port: int, says_goodbye: bool) -> None:
    async with serve(echo, "127.0.0.1", port, max_size=None, ping_interval=None) as server:
        if says_goodbye:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.close)
        await server.wait_closed()


asyncio.run(main(int(sys.argv[1]), "goodbye" in sys.argv[2:]))
