"""HTTP/2 by prior knowledge, for curl. Arguments: PORT. Answers each request with its method, path and body."""

from __future__ import annotations

import asyncio
import sys

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded
from h2.exceptions import StreamClosedError


def send(http: H2Connection, stream: int, answer: bytearray) -> bool:
    """Send as much as the client takes now; whether that was all."""
    try:
        while answer and (window := http.local_flow_control_window(stream)):
            length = min(window, http.max_outbound_frame_size)
            http.send_data(stream, bytes(answer[:length]), end_stream=length >= len(answer))
            del answer[:length]
    except StreamClosedError:
        return True
    return not answer


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    http = H2Connection(H2Configuration(client_side=False))
    http.initiate_connection()
    bodies: dict[int, bytearray] = {}
    answers: dict[int, bytearray] = {}
    while True:
        for stream, answer in list(answers.items()):
            if send(http, stream, answer):
                del answers[stream]
        writer.write(http.data_to_send())
        await writer.drain()
        if not (data := await reader.read(65_536)):
            break
        for event in http.receive_data(data):
            if isinstance(event, RequestReceived):
                headers = dict(event.headers)
                bodies[event.stream_id] = bytearray(b"%b %b\n" % (headers[b":method"], headers[b":path"]))
            elif isinstance(event, DataReceived):
                bodies[event.stream_id] += event.data
                http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                http.send_headers(event.stream_id, [(":status", "200"), ("content-type", "text/plain")])
                answers[event.stream_id] = bodies.pop(event.stream_id)
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


asyncio.run(main())
