"""Silent connections to the gRPC port, by a stranger without a certificate."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from reconciler.core.access import PROXY, RECONCILER
from reconciler.envoy.xds_router import MAX_CONNECTIONS, grpc_options
from reconciler.server.credentials.material import Server, channel
from tests.security.grpc_port import NAME, Authority

LOCAL, LIMIT = "127.0.0.1", 20


@pytest.mark.parametrize(("open_files", "most"), [(40, 20), (1_048_576, MAX_CONNECTIONS)])
def test_connections_follow_from_files_up_to_a_bound(open_files: int, most: int) -> None:
    assert dict(grpc_options(open_files))["grpc.max_allowed_incoming_connections"] == most


async def test_connections_without_handshake_are_bounded() -> None:
    """Connections beyond the limit are closed at once; a peer is accepted as soon as others have gone."""
    authority = Authority()
    own, peer = authority.material(RECONCILER.uri, (NAME,)), authority.material(PROXY.uri)
    server = grpc.aio.server(options=grpc_options(2 * LIMIT))
    port = server.add_secure_port(f"{LOCAL}:0", Server(lambda: own).credentials)
    await server.start()
    opened = [await asyncio.open_connection(LOCAL, port) for _ in range(2 * LIMIT)]
    try:
        reading = [asyncio.create_task(reader.read(1)) for reader, _ in opened]
        async with asyncio.timeout(60):
            while sum(task.done() for task in reading) < LIMIT:
                await asyncio.wait([task for task in reading if not task.done()], return_when=asyncio.FIRST_COMPLETED)
        for _, writer in opened:
            writer.close()
        await asyncio.gather(*reading, return_exceptions=True)
        options = [("grpc.ssl_target_name_override", NAME)]
        async with grpc.aio.secure_channel(f"{LOCAL}:{port}", channel(peer), options=options) as joining:
            await asyncio.wait_for(joining.channel_ready(), 60)
    finally:
        await server.stop(None)
