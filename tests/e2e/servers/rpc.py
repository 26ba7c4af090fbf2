"""gRPC with bytes for messages. Arguments: PORT [FILE]. With the last, it listens only once that file exists.

/test.Echo/Unary   the request again, logged      /test.Echo/Down   the request's bytes, one message each
/test.Echo/Up      all requests, joined by commas /test.Echo/Both   each request again, when it comes
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc


def unary(request: bytes, _: grpc.ServicerContext) -> bytes:
    print(request[:20].decode(errors="replace"), flush=True)
    return request


def down(request: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
    for byte in request:
        yield bytes([byte])


METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Down": grpc.unary_stream_rpc_method_handler(down),
    "Up": grpc.stream_unary_rpc_method_handler(lambda requests, _: b",".join(requests)),
    "Both": grpc.stream_stream_rpc_method_handler(lambda requests, _: iter(requests)),
}

server = grpc.server(ThreadPoolExecutor(16))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", METHODS),))
while sys.argv[2:] and not os.path.exists(sys.argv[2]):
    time.sleep(0.01)
server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
server.wait_for_termination()
