from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from tests.tproxy.harness import PATIENCE_SECONDS, World, eventually, fail
from tproxy.io.loop import Loop


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(scope="session", autouse=True)
def _grpc() -> Iterator[None]:
    """Keep one gRPC object for all tests.

    grpc opens descriptors with its first object and closes them some time after its last one, which would disturb tests
    that count descriptors.
    """
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel("127.0.0.1:1") as channel, contextlib.suppress(grpc.RpcError):
        channel.unary_unary("/a/b")(b"", timeout=1)
    yield
    server.stop(None).wait()


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A loop that stops by itself if a test does not stop it."""
    loop = Loop(fail)
    loop.call_later(PATIENCE_SECONDS, loop.stop)
    yield loop
    loop.close()


@pytest.fixture
def world() -> Iterator[World]:
    before = open_descriptors()
    with World() as world:
        yield world
    gc.collect()
    eventually(lambda: open_descriptors() <= before, f"{before} descriptors are open")
