"""Duration of the parts of a wake that zenvoy can influence, through a real Envoy.

There are two parts: from the first held connection to the reconciler's decision, and from the service's `listen()` to
the first byte at the client. The time until the service listens is not included.

The reference for the first part is one gRPC message between two processes with the same libraries. The reference for
the second is a client that starts the same service itself and connects every millisecond until it answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from bench.processes import ROOT, ZENVOY, free_port, running, say, wait_for
from bench.table import Row
from reconciler.cli.control_client import ask

WAKES = 40
SIGNAL_MS = 1.0
FIRST_BYTE_MS = 5.0
GRID_SECONDS = 0.001
PROTOCOLS = ("http", "tcp")
UPSTREAM = [sys.executable, "-I", "-S", str(ROOT / "bench" / "wake_upstream.py")]
REQUEST = {"http": b"GET / HTTP/1.1\r\nHost: http\r\nConnection: close\r\n\r\n", "tcp": b"when?\n"}
ECHO = "/bench.Echo/Stream"


@dataclass(frozen=True, slots=True)
class Wakes:
    """Results of one protocol in milliseconds, one value per wake."""

    signal: list[float]
    message: list[float]
    first_byte: list[float]
    polled: list[float]


def measure() -> list[Row]:
    """Return all rows."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as directory, zenvoy(Path(directory)) as (control, ports), echo() as message:
        for protocol in PROTOCOLS:
            say(f"wake: {WAKES} wakes by {protocol}")
            found = [wake(control, protocol, ports[protocol], message) for _ in range(WAKES)]
            wakes = Wakes(*(list(values) for values in zip(*found, strict=True)))
            rows += _rows(protocol, wakes)
    return rows


def _rows(protocol: str, wakes: Wakes) -> Iterator[Row]:
    middle = statistics.median
    what = f"{protocol}: first held to decision, median of {WAKES}"
    yield Row(what, middle(wakes.signal), "ms", "a gRPC message", middle(wakes.message), SIGNAL_MS)
    what = f"{protocol}: listen() to first byte, median of {WAKES}"
    yield Row(what, middle(wakes.first_byte), "ms", "client that dials every ms", middle(wakes.polled), FIRST_BYTE_MS)


def wake(control: Path, protocol: str, port: int, message: Callable[[], float]) -> tuple[float, float, float, float]:
    """Put the service to sleep and wake it; return signal, message, first byte, and polled start in milliseconds."""
    wait_for(lambda: _sleeps(control, protocol), f"{protocol} to sleep")
    first_byte = request(port, protocol)
    done = wait_for(lambda: _woken(state(control, protocol)), f"{protocol} to be woken") or {}
    return done["parts"]["signal"] * 1000, message(), first_byte, polled(protocol)


def state(control: Path, protocol: str) -> dict[str, Any]:
    """Return the service as in `zenvoy status -o json`."""
    found: dict[str, Any] = ask(control, "GET", f"/v1/services/{protocol}")
    return found


def _sleeps(control: Path, protocol: str) -> bool:
    """Return whether the service sleeps; repeat the sleep command if traffic has kept it awake."""
    found: str = state(control, protocol)["state"]
    if found in ("Active", "Idle"):
        ask(control, "POST", f"/v1/services/{protocol}/sleep")
    return found == "ScaledToZero"


def _woken(view: dict[str, Any]) -> dict[str, Any] | None:
    last: dict[str, Any] | None = view["lastWake"]
    quiet = view["state"] in ("Active", "Idle") and not view["relayed"]
    return last if last and last["total"] is not None and quiet else None


def request(port: int, protocol: str) -> float:
    """Send a request; return milliseconds from the service's `listen()` to the first byte of its answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        return _answer(client, protocol)


def polled(protocol: str) -> float:
    """Start the service without zenvoy, and connect until it answers; return milliseconds."""
    port = free_port()
    process = subprocess.Popen([*UPSTREAM, protocol, str(port)])
    try:
        while True:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0 and client.getsockname() != client.getpeername():
                    return _answer(client, protocol)
            time.sleep(GRID_SECONDS)
    finally:
        process.kill()
        process.wait()


def _answer(client: socket.socket, protocol: str) -> float:
    client.sendall(REQUEST[protocol])
    answer = client.recv(65536)
    first_byte_at = time.time()
    while data := client.recv(65536):
        answer += data
    return (first_byte_at - float(answer.split()[-1])) * 1000


@contextlib.contextmanager
def zenvoy(directory: Path) -> Iterator[tuple[Path, dict[str, int]]]:
    """Run `zenvoy up`; yield its control socket and the port of each protocol's service."""
    ports = {protocol: free_port() for protocol in PROTOCOLS}
    services = [
        {"name": protocol, "protocol": protocol, "command": [*UPSTREAM, protocol, "{port}"]} for protocol in PROTOCOLS
    ]
    services[1]["listen"] = f"127.0.0.1:{ports['tcp']}"
    file, log = directory / "services.yaml", directory / "log"
    listen = {"http": f"127.0.0.1:{ports['http']}"}
    file.write_text(json.dumps({"listen": listen, "services": services, "sampleInterval": "200ms"}))
    command = [str(ZENVOY), "up", str(file), "--state-dir", str(directory / "state"), "--log", "json"]
    with log.open("wb") as output, running(command, output=output) as process:
        wait_for(lambda: _serves(log, process), "zenvoy up to serve")
        yield directory / "state" / "control.sock", ports


def _serves(log: Path, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"zenvoy up ended: {log.read_text()}")
    return '"serving"' in log.read_text()


@contextlib.contextmanager
def echo() -> Iterator[Callable[[], float]]:
    """Yield a function that returns the milliseconds of one gRPC message after some silence.

    It sends the message from a grpcio thread to the loop of grpc.aio in another process.
    """
    times: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    with tempfile.TemporaryDirectory() as directory:
        target = f"unix:{directory}/echo.sock"
        with running([sys.executable, "-m", "bench.wake", target]), grpc.insecure_channel(target) as channel:
            grpc.channel_ready_future(channel).result(30)
            answers = channel.stream_stream(ECHO)(iter(times.get, None))

            def message() -> float:
                times.put(str(time.time()).encode())
                return float(next(answers))

            yield message
            times.put(None)


async def serve_echo(target: str) -> None:
    """Answer each message with the milliseconds since it was sent."""

    async def stream(times: AsyncIterator[bytes], _: object) -> AsyncIterator[bytes]:
        async for sent_at in times:
            yield str((time.time() - float(sent_at)) * 1000).encode()

    server = grpc.aio.server()
    method = grpc.stream_stream_rpc_method_handler(stream)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Stream": method}),))
    server.add_insecure_port(target)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve_echo(sys.argv[1]))
