"""Cost of serving a real Envoy over ADS: the first snapshot and one wake, with 1,000 and 10,000 services.

    python -m bench.xds [--mode delta|sotw]

CPU time is that of this process (`time.process_time`: translation, versions, encoding, gRPC, acknowledgements), not
Envoy's. Bytes are those that Envoy received on its ADS connection. The reference is encoding the same resources with
betterproto2.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.ports import free_port
from tests.xds.parts import Envoy, Mode, envoy, plane, until
from xds import ir
from xds.names import CDS, EDS, LDS, RDS
from xds.resources.clusters import load_assignment
from xds.resources.translation import parts
from xds.server import XdsServer

SIZES = (1_000, 10_000)
WAKES = 300
BATCH = 10
SAMPLE = 100
PROTOCOLS = (ir.ServiceProtocol.HTTP, ir.ServiceProtocol.H2C, ir.ServiceProtocol.HTTP, ir.ServiceProtocol.TLS)
HELD = tuple((ir.SocketAddress(f"127.64.{i // 250}.{i % 250 + 1}", 18001),) for i in range(max(SIZES)))
PODS = tuple(ir.SocketAddress(f"10.244.0.{i}", 8080) for i in range(1, 4))


@dataclass(frozen=True)
class Figures:
    """Results for one number of services."""

    snapshot_cpu_ms: float
    snapshot_wall_ms: float
    wake_cpu_ms: float
    wake_wall_ms: float
    wake_bytes: float


def services(count: int) -> list[ir.Upstream]:
    """Return services with names as in Kubernetes."""
    return [
        ir.Upstream(
            f"shop/service-{i}",
            PROTOCOLS[i % len(PROTOCOLS)],
            (f"service-{i}.shop", f"service-{i}.shop.svc", f"service-{i}.shop.svc.cluster.local"),
        )
        for i in range(count)
    ]


def naive_cpu_ms(some: list[ir.Upstream]) -> float:
    """Return the CPU time of encoding with betterproto2, extrapolated from a few rounds with some services."""
    sample = some[:SAMPLE]
    messages = [message for service, held in zip(sample, HELD, strict=False) for message in _decoded(service, held)]
    rounds = []
    for _ in range(4):  # the first round fills betterproto2's caches
        begin = time.process_time()
        for message in messages:
            bytes(message)
        rounds.append((time.process_time() - begin) * 1000)
    return min(rounds) * len(some) / len(sample)


def _decoded(service: ir.Upstream, held: tuple[ir.SocketAddress, ...]) -> Iterator[Any]:
    """Yield the resources of a service as betterproto2 messages."""
    # Imported last, because its thousands of classes slow down garbage collection during measurements.
    from tests.xds.oracle import MESSAGES

    made = parts(service)
    yield MESSAGES[CDS].parse(made.cluster)
    yield MESSAGES[EDS].parse(load_assignment(service.name, held))
    type_url, shared = (LDS, made.filter_chain) if made.filter_chain else (RDS, made.virtual_host)
    yield MESSAGES[type_url].parse(shared)


async def received_bytes(joined: Envoy) -> int:
    """Return the number of bytes that Envoy received."""
    name = "cluster.zenvoy_ads.upstream_cx_rx_bytes_total"
    return int((await joined.stats(name))[name])


class Stage:
    """A server with a number of services, and the Envoy that joined it."""

    def __init__(self, count: int) -> None:
        self.services = services(count)
        self.listen = ir.Listen(
            http=ir.SocketAddress("127.0.0.1", free_port()), tls=ir.SocketAddress("127.0.0.1", free_port())
        )
        self.acked = asyncio.Event()
        self.server = XdsServer(on_ack=lambda *_: self.acked.set(), on_node=lambda *_: None)
        self.chosen = self.services[:: max(1, count // WAKES)][:WAKES]
        self.snapshot_cpu = self.snapshot_wall = 0.0
        self.cpus: list[float] = []
        self.walls: list[float] = []
        self.bytes = 0

    async def start(self, stack: AsyncExitStack, mode: Mode) -> None:
        """Start both, and measure the first snapshot."""
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running = await stack.enter_async_context(plane(server=self.server))
        self.envoy = await stack.enter_async_context(envoy(directory, running.port, mode=mode))
        await until(self.server.nodes, "Envoy")
        cpu, wall = time.process_time(), time.perf_counter()
        self.server.configure(self.listen, self.services)
        for service, held in zip(self.services, HELD, strict=False):
            self.server.route(service.name, held)
        self.server.open()
        await until(lambda: all(self.server.nodes()["envoy-1"].versions.values()), "all types", 120)
        self.snapshot_cpu, self.snapshot_wall = time.process_time() - cpu, time.perf_counter() - wall
        self.bytes = await received_bytes(self.envoy)

    async def wake(self, some: list[ir.Upstream]) -> None:
        """Wake some services, one after another."""
        cpu = time.process_time()
        for service in some:
            begin = time.perf_counter()
            self.acked.clear()
            self.server.route(service.name, PODS)
            await self.acked.wait()
            self.walls.append(time.perf_counter() - begin)
        self.cpus.append((time.process_time() - cpu) / len(some))

    async def figures(self) -> Figures:
        """Return the results."""
        size = (await received_bytes(self.envoy) - self.bytes) / len(self.walls)
        cpu, wall = statistics.median(self.cpus), statistics.median(self.walls)
        return Figures(self.snapshot_cpu * 1000, self.snapshot_wall * 1000, cpu * 1000, wall * 1000, size)


async def measure_all(sizes: tuple[int, ...], mode: Mode) -> list[Figures]:
    """Measure several numbers of services; wakes take turns, so that other work on the machine affects all alike."""
    async with AsyncExitStack() as stack:
        stages = [Stage(size) for size in sizes]
        for stage in stages:
            await stage.start(stack, mode)
        for at in range(0, WAKES, BATCH):
            for stage in stages:
                await stage.wake(stage.chosen[at : at + BATCH])
        return [await stage.figures() for stage in stages]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=("delta", "sotw"), default="delta")
    mode = parser.parse_args().mode
    small, large = asyncio.run(measure_all(SIZES, mode))
    naive_small, naive_large = (naive_cpu_ms(services(size)) for size in SIZES)
    rows: tuple[tuple[str, float, float, str], ...] = (
        ("first snapshot, CPU ms", small.snapshot_cpu_ms, large.snapshot_cpu_ms, "<= 1000 at 10,000"),
        ("  the same, naive encoding alone, CPU ms", naive_small, naive_large, ""),
        ("  until Envoy has it all, wall ms", small.snapshot_wall_ms, large.snapshot_wall_ms, ""),
        ("one wake, CPU ms", small.wake_cpu_ms, large.wake_cpu_ms, "<= 2; ratio within 20 %"),
        ("one wake, bytes on the wire", small.wake_bytes, large.wake_bytes, "<= 1024; ratio within 20 %"),
        ("one wake, until Envoy's ACK, wall ms (median)", small.wake_wall_ms, large.wake_wall_ms, ""),
    )
    print(f"{f'xDS, {mode}, real Envoy':<46}{SIZES[0]:>10,}{SIZES[1]:>10,}{'ratio':>8}  goal")
    for name, one, other, goal in rows:
        print(f"{name:<46}{one:>10.2f}{other:>10.2f}{other / one:>8.2f}  {goal}")
    saved = naive_large / large.snapshot_cpu_ms
    print(f"All of the first snapshot takes 1/{saved:.1f} of the CPU of encoding it naively.")


if __name__ == "__main__":
    main()
