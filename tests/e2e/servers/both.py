"""HTTP/1.1 and HTTP/2 on one port: the first bytes of a connection tell which. Arguments: PORT.

HTTP/2 is gRPC; `/test.Echo/Unary` answers with the request. HTTP/1.1 is a WebSocket that echoes, and `GET` is answered.
"""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from tempfile import TemporaryDirectory

import grpc
from websockets.asyncio.server import ServerConnection, unix_serve
from websockets.http11 import Request, Response

PREFACE = b"PRI * HTTP/2.0"


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def page(connection: ServerConnection, request: Request) -> Response | None:
    return None if "Upgrade" in request.headers else connection.respond(200, "a page\n")


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def main(port: int, folder: str) -> None:
    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begin = await reader.read(len(PREFACE))
        there, back = await asyncio.open_unix_connection(f"{folder}/{'rpc' if begin == PREFACE else 'web'}")
        back.write(begin)
        await asyncio.gather(copy(reader, back), copy(there, writer))

    async with (
        unix_serve(echo, f"{folder}/web", process_request=page, ping_interval=None),
        await asyncio.start_server(relay, "127.0.0.1", port) as server,
    ):
        await server.serve_forever()


rpc = grpc.server(ThreadPoolExecutor(4))
unary = grpc.unary_unary_rpc_method_handler(lambda request, _: request)
rpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Unary": unary}),))
with TemporaryDirectory() as own:
    rpc.add_insecure_port(f"unix:{own}/rpc")
    rpc.start()
    asyncio.run(main(int(sys.argv[1]), own))
