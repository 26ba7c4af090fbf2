"""What serving real Envoy over ADS costs us: the first snapshot, and one wake, at 1,000 and at 10,000 services.

    python -m bench.xds [--mode delta|sotw]

CPU is this process's own (`time.process_time`: translation, versions, encoding, gRPC, acknowledgements), not Envoy's.
Bytes are Envoy's count of what it received on its ADS connection. Beside it, as the reference: encoding the same
resources in full with betterproto2.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.xds.parts import Envoy, Mode, Plane, envoy, free_port, plane, until
from xds import ir, messages
from xds.server import Server

SIZES = (1_000, 10_000)
WAKES = 300
BATCH = 20
SAMPLE = 100
PROTOCOLS = (ir.Protocol.HTTP, ir.Protocol.H2C, ir.Protocol.HTTP, ir.Protocol.TLS)
HELD = tuple((ir.Address(f"127.64.{i // 250}.{i % 250 + 1}", 18001),) for i in range(max(SIZES)))
PODS = tuple(ir.Address(f"10.244.0.{i}", 8080) for i in range(1, 4))


@dataclass(frozen=True)
class Figures:
    """One size's measurements."""

    snapshot_cpu_ms: float
    snapshot_wall_ms: float
    wake_cpu_ms: float
    wake_wall_ms: float
    wake_bytes: float


def services(count: int) -> list[ir.Service]:
    """Make services as Kubernetes would name them."""
    return [
        ir.Service(
            f"shop/service-{i}",
            PROTOCOLS[i % len(PROTOCOLS)],
            (f"service-{i}.shop", f"service-{i}.shop.svc", f"service-{i}.shop.svc.cluster.local"),
        )
        for i in range(count)
    ]


def naive_cpu_ms(some: list[ir.Service]) -> float:
    """Encode some services in full with betterproto2, and scale the best of a few rounds to all of them."""
    sample = some[:SAMPLE]
    rounds = []
    for _ in range(4):  # the first fills betterproto2's caches
        begin = time.process_time()
        for service, held in zip(sample, HELD, strict=False):
            bytes(messages.cluster(service.name, service.protocol))
            bytes(messages.load_assignment(service.name, held))
            if service.protocol is ir.Protocol.TLS:
                bytes(messages.tls_filter_chain(service.name, service.domains))
            else:
                bytes(messages.virtual_host(service.name, service.domains))
        rounds.append((time.process_time() - begin) * 1000)
    return min(rounds) * len(some) / len(sample)


async def received_bytes(joined: Envoy) -> int:
    """Return what Envoy has received from us."""
    name = "cluster.zenvoy_ads.upstream_cx_rx_bytes_total"
    return int((await joined.stats(name))[name])


async def first_snapshot(
    running: Plane, joined: Envoy, listen: ir.Listen, some: list[ir.Service]
) -> tuple[float, float]:
    """Serve the world to an Envoy that waits for it; return CPU and wall time in ms."""
    server = running.server
    await until(server.nodes, "Envoy")
    cpu, wall = time.process_time(), time.perf_counter()
    server.configure(listen, some)
    for service, held in zip(some, HELD, strict=False):
        server.route(service.name, held)
    server.open()
    await until(lambda: len(server.nodes()) == 1 and all(server.nodes()["envoy-1"].versions.values()), "all types", 120)
    return (time.process_time() - cpu) * 1000, (time.perf_counter() - wall) * 1000


async def wakes(
    running: Plane, joined: Envoy, some: list[ir.Service], acked: asyncio.Event
) -> tuple[float, float, float]:
    """Wake services one after another; return CPU and wall time in ms, and bytes, of one."""
    chosen = some[:: len(some) // WAKES][:WAKES]
    before = await received_bytes(joined)
    walls, cpus = [], []
    for at in range(0, WAKES, BATCH):
        cpu = time.process_time()
        for service in chosen[at : at + BATCH]:
            begin = time.perf_counter()
            acked.clear()
            running.server.route(service.name, PODS)
            await acked.wait()
            walls.append(time.perf_counter() - begin)
        cpus.append((time.process_time() - cpu) / BATCH)
    size = (await received_bytes(joined) - before) / WAKES
    return statistics.median(cpus) * 1000, statistics.median(walls) * 1000, size


async def measure(count: int, mode: Mode) -> Figures:
    """Measure with this many services."""
    some = services(count)
    listen = ir.Listen(http=ir.Address("127.0.0.1", free_port()), tls=ir.Address("127.0.0.1", free_port()))
    acked = asyncio.Event()
    server = Server(on_change=lambda _: acked.set(), on_node=lambda _: None)
    with tempfile.TemporaryDirectory() as directory:
        async with plane(server=server) as running, envoy(Path(directory), running.port, mode=mode) as joined:
            snapshot_cpu, snapshot_wall = await first_snapshot(running, joined, listen, some)
            wake_cpu, wake_wall, wake_bytes = await wakes(running, joined, some, acked)
    return Figures(snapshot_cpu, snapshot_wall, wake_cpu, wake_wall, wake_bytes)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=("delta", "sotw"), default="delta")
    mode = parser.parse_args().mode
    small, large = (asyncio.run(measure(size, mode)) for size in SIZES)
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
