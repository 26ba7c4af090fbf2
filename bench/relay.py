"""The relay compared with other relays: CPU per GB, and the p99 of a small ping-pong. `python -m bench.relay`.

TARGETS lists the targets. The relays take turns in short rounds. Each ratio is the median over rounds of the ratio
within a round, and only the half of the rounds counts in which the rest of the machine was quietest; the limit is
printed. If permitted, relays and load run with real-time priority (SCHED_RR, with a rest after each run, because the
kernel reserves 5 % for other processes); otherwise a p99 mostly measures other work. Absolute times mean little. The
load comes from two single-threaded processes of a Go program, so that the relay is the bottleneck. All traffic is on
loopback.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.processes import go_ahead

HERE = Path(__file__).parent
ROOT = HERE.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "zenvoy-bench"
HOST = "127.0.0.1"
BULK_ROUNDS = 6
BULK_BYTES = 1_500_000_000
PING_ROUNDS = 24
"""Many short rounds: on a shared machine, a p99 mostly measures the scheduler, so only the median over many counts."""
PING_SECONDS = 0.3
PING_CONNECTIONS = 64
QUIET_PROCESSORS = 0.25
"""CPUs that other processes may use before the results, above all the p99, become meaningless."""
REST_SECONDS = 0.4
ONE_THREAD = {"GOMAXPROCS": "1"}
"""CPUs for the load only; the relays cannot use them."""
TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")

TARGETS = {("cpu", "go"): 1.0, ("cpu", "asyncio"): 0.5, ("p99", "go"): 0.8}
"""The maximum of zenvoy's result, as a multiple of the other relay's."""

HAPROXY = """
global
  maxconn 4096
defaults
  mode tcp
  option splice-auto
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen relay
  bind {host}:{port}
  server sink {host}:{target}
"""


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, user and system (proc(5), stat, fields 14 and 15)."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) * TICK_SECONDS


def machine_seconds() -> float:
    """Return the busy time of all CPUs (proc(5), stat: user, nice, system, irq, softirq)."""
    words = Path("/proc/stat").read_text().split(maxsplit=9)
    return sum(int(words[i]) for i in (1, 2, 3, 6, 7)) * TICK_SECONDS


@dataclass
class Contender:
    """A running relay and its results, one value per round."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    figures: dict[str, list[float]] = field(default_factory=dict)

    def note(self, **figures: float) -> None:
        """Record the results of a round."""
        for name, value in figures.items():
            self.figures.setdefault(name, []).append(value)


def free_port() -> int:
    """Return a free port."""
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def built(name: str) -> str:
    """Compile the Go program in a directory; return its path."""
    CACHE.mkdir(parents=True, exist_ok=True)
    program = CACHE / name
    subprocess.run(
        ["go", "build", "-o", program, HERE / name / "main.go"], check=True, env=os.environ | {"GOWORK": "off"}
    )
    return str(program)


def commands(target: int) -> Iterator[tuple[str, Callable[[int], list[str]]]]:
    """Return the name and the command of every relay that can run here."""
    go = built("relay_go")
    python = [sys.executable, "-m", "bench.relay_python"]
    yield "zenvoy", lambda port: [*python, "zenvoy", str(port), str(target)]
    yield "go", lambda port: [go, f"{HOST}:{port}", f"{HOST}:{target}"]
    yield "asyncio", lambda port: [*python, "asyncio", str(port), str(target)]
    haproxy = shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin")
    if haproxy is None:
        print("haproxy is not installed (apt-get install haproxy): left out")
        return

    def with_haproxy(port: int) -> list[str]:
        config = CACHE / "haproxy.cfg"
        config.write_text(HAPROXY.format(host=HOST, port=port, target=target))
        return [haproxy, "-db", "-q", "-f", str(config)]

    yield "haproxy", with_haproxy


def wait_for(port: int) -> None:
    """Wait until a process listens on the port."""
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection((HOST, port)).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@contextlib.contextmanager
def running(command: list[str], port: int, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the end of the block."""
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment)
    try:
        wait_for(port)
        yield process
    finally:
        process.kill()
        process.wait()


class Load:
    """The load program: its server, and the measured runs of its client."""

    def __init__(self, program: str, server_pid: int) -> None:
        self._program = program
        self._server_pid = server_pid

    def bulk(self, contender: Contender) -> None:
        """Run one round of one relay: one connection, in one direction."""
        cpu, others, (seconds,) = self._run("bulk", contender, BULK_BYTES)
        gigabytes = BULK_BYTES / 1e9
        contender.note(cpu=cpu / gigabytes, rate=gigabytes / seconds, bulk_others=others)

    def ping(self, contender: Contender) -> None:
        """Run one round of one relay: small messages in both directions over many connections."""
        cpu, others, (median, p99, rate) = self._run("ping", contender, PING_SECONDS, PING_CONNECTIONS)
        per_ping = cpu / (rate * PING_SECONDS) * 1e6
        contender.note(median=median, p99=p99, messages=rate, ping_cpu=per_ping, ping_others=others)

    def _run(self, use: str, contender: Contender, *args: object) -> tuple[float, float, list[float]]:
        """Return CPU seconds of the relay, CPUs used by other processes, and the output of the program."""
        command = [self._program, use, f"{HOST}:{contender.port}", *map(str, args)]

        def used() -> tuple[float, float]:
            relay, own = cpu_seconds(contender.process.pid), os.times()
            ours = relay + cpu_seconds(self._server_pid) + sum(own[:4])
            return relay, machine_seconds() - ours

        begin, (relay, others) = time.monotonic(), used()
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | ONE_THREAD)
        relay_after, others_after = used()
        busy = (others_after - others) / (time.monotonic() - begin)
        return relay_after - relay, busy, [float(word) for word in done.stdout.split()]


def in_turns(contenders: list[Contender], rounds: int, measure: Callable[[Contender], None]) -> None:
    """Yield each relay once per round; each round starts with another one, so that the order changes."""
    for number in range(rounds):
        for i in range(len(contenders)):
            time.sleep(REST_SECONDS)
            measure(contenders[(number + i) % len(contenders)])


def quiet_rounds(contenders: list[Contender], others: str) -> tuple[list[int], float]:
    """Return the half of the rounds in which other processes used the fewest CPUs, and their maximum."""
    rounds = [max(values) for values in zip(*(contender.figures[others] for contender in contenders), strict=True)]
    order = sorted(range(len(rounds)), key=rounds.__getitem__)[: (len(rounds) + 1) // 2]
    return order, rounds[order[-1]]


def keep_quiet_rounds(contenders: list[Contender]) -> None:
    """Discard the results of all other rounds."""
    for others, figures in (
        ("bulk_others", ("cpu", "rate")),
        ("ping_others", ("median", "p99", "messages", "ping_cpu")),
    ):
        rounds, busy = quiet_rounds(contenders, others)
        verdict = "quiet enough" if busy <= QUIET_PROCESSORS else "TOO BUSY to mean much"
        use = others.removesuffix("_others")
        print(f"{use}: {len(rounds)} rounds, others took up to {busy:.2f} processors: {verdict}")
        for contender in contenders:
            for figure in figures:
                contender.figures[figure] = [contender.figures[figure][i] for i in rounds]


def ratio(ours: Contender, other: Contender, figure: str) -> float:
    """Return zenvoy's result as a multiple of the other relay's, as the median over the rounds."""
    pairs = zip(ours.figures[figure], other.figures[figure], strict=True)
    return statistics.median(mine / theirs for mine, theirs in pairs)


COLUMNS = {
    "cpu": ("CPU s/GB", "{:.3f}"),
    "rate": ("GB/s", "{:.2f}"),
    "median": ("ping µs", "{:.0f}"),
    "p99": ("p99 µs", "{:.0f}"),
    "messages": ("pings/s", "{:.0f}"),
    "ping_cpu": ("CPU µs/ping", "{:.1f}"),
}


def report(contenders: list[Contender]) -> bool:
    """Print the table; return whether every target was met."""
    ours = contenders[0]
    keep_quiet_rounds(contenders)
    print(f"{'relay':10}" + "".join(f"{title:>13} (x)  " for title, _ in COLUMNS.values()))
    for other in contenders:
        cells = [f"{other.name:10}"]
        for figure, (_, style) in COLUMNS.items():
            value = style.format(statistics.median(other.figures[figure]))
            cells.append(f"{value:>11} ({ratio(ours, other, figure):4.2f}) ")
        print("".join(cells))
    print("(x): zenvoy's figure as a multiple of this one, the median over the rounds.")
    met = True
    for (figure, name), limit in TARGETS.items():
        measured = ratio(ours, next(other for other in contenders if other.name == name), figure)
        met = met and measured <= limit
        print(f"{figure} against {name}: {measured:.2f}, at most {limit}: {'met' if measured <= limit else 'MISSED'}")
    return met


def main() -> int:
    """Measure and report; return 1 if a target was missed."""
    print(go_ahead())
    if shutil.which("go") is None:
        print("there is no `go` on the PATH, and the load and the rival are written in Go: apt-get install golang-go")
        return 1
    program = built("relay_load")
    with contextlib.ExitStack() as stack:
        target = free_port()
        server = stack.enter_context(running([program, "serve", f"{HOST}:{target}"], target, **ONE_THREAD))
        load = Load(program, server.pid)
        contenders = []
        for name, command in commands(target):
            port = free_port()
            contenders.append(Contender(name, port, stack.enter_context(running(command(port), port))))
        in_turns(contenders, BULK_ROUNDS, load.bulk)
        in_turns(contenders, PING_ROUNDS, load.ping)
        return 0 if report(contenders) else 1


if __name__ == "__main__":
    sys.exit(main())
