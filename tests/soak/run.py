"""A run of the soak: clients, disturbances, and what they are allowed to cost.

Rule: a request without an answer is a fault, unless a process that carries it was killed while it was in flight. A kill
of the reconciler or the keeper, a step of the clock, and a full disk excuse nothing. A wrong or repeated answer is
always a fault.
"""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from reconciler.cli import control_client
from reconciler.local.processes.mark import mark
from reconciler.local.processes.procfs import children_of, run_id, take_census
from tests.e2e.harness import Zenvoy, until
from tests.soak.clients import KINDS, LOST, SERVICES, WrongAnswer, pause
from tests.soak.surroundings import SmallDisk, SteppedClock, step

IDLE_AFTER = "1s"
SAMPLE_SECONDS = 2.0
QUIET_SECONDS = 6.0
"""Mean time between two kills."""
COMPONENTS = ("reconciler", "holder", "keeper", "envoy")
PROGRAM = "program"
CARRIERS = frozenset({"holder", "envoy", PROGRAM})
"""Processes that requests in flight go through."""
GROWTH_FACTOR, GROWTH_BYTES, GROWTH_DESCRIPTORS = 1.25, 16 << 20, 32
CLIENTS_PER_SERVICE = 2
QUIETS_PER_STEP, QUIETS_PER_FILL = 2, 5
"""Mean times between two steps of the clock and between two full disks, in times between two kills."""


@dataclass(frozen=True, slots=True)
class Kill:
    """A kill, and the time at which the process was replaced (seconds, monotonic)."""

    victim: str
    service: str | None
    began: float
    over: float

    def excuses(self, service: str, sent: float, failed: float) -> bool:
        """Return whether a request that was in flight between two moments may be lost."""
        is_carrier = self.victim in CARRIERS and self.service in (None, service)
        return is_carrier and sent <= self.over and failed >= self.began


@dataclass(frozen=True, slots=True)
class Loss:
    """A request without its answer."""

    service: str
    unique: str
    sent: float
    failed: float
    error: str


@dataclass(slots=True)
class Report:
    """The result of a run."""

    requests: Counter[str] = field(default_factory=Counter)
    """Answered requests by protocol."""
    kills: list[Kill] = field(default_factory=list)
    steps: int = 0
    """Steps of the clock."""
    fills: int = 0
    """Times that the disk was full."""
    losses: list[Loss] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    wakes: int = 0
    usage: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """By component, resident bytes and descriptors over time."""

    @property
    def unexcused(self) -> list[Loss]:
        return [
            loss
            for loss in self.losses
            if not any(kill.excuses(loss.service, loss.sent, loss.failed) for kill in self.kills)
        ]

    @property
    def growth(self) -> list[str]:
        """The components that use more at the end than at the beginning, in words."""
        return [words for name, usage in self.usage.items() if (words := _growth(name, usage))]

    @property
    def faults(self) -> list[str]:
        lost = [f"{loss.service}: request {loss.unique} lost: {loss.error}" for loss in self.unexcused]
        return lost + self.wrong + self.growth


def _growth(name: str, usage: list[tuple[int, int]]) -> str | None:
    third = len(usage) // 3
    if third < 10:  # too short to tell
        return None
    first, last = usage[third : 2 * third], usage[-third:]
    memory = [median(bytes_ for bytes_, _ in part) for part in (first, last)]
    descriptors = [median(count for _, count in part) for part in (first, last)]
    if memory[1] > memory[0] * GROWTH_FACTOR + GROWTH_BYTES:
        return f"{name}: memory grew from {memory[0] / 1e6:.0f} to {memory[1] / 1e6:.0f} MB"
    if descriptors[1] > descriptors[0] * GROWTH_FACTOR + GROWTH_DESCRIPTORS:
        return f"{name}: descriptors grew from {descriptors[0]:.0f} to {descriptors[1]:.0f}"
    return None


class Soak:
    """Clients and disturbances against one `zenvoy up`. `sets_clock` needs a C compiler, and `fills_disk` root."""

    def __init__(
        self,
        directory: Path,
        seed: int,
        quiet_seconds: float = QUIET_SECONDS,
        *,
        sets_clock: bool = True,
        fills_disk: bool = True,
    ) -> None:
        # The output is kept where the disk is never full: it shows which requests a program received twice.
        self._outputs = {name: directory / f"{name}.out" for name in SERVICES}
        services = [_with_output(KINDS[kind].service(name), self._outputs[name]) for name, kind in SERVICES.items()]
        defaults = {"idleAfter": IDLE_AFTER, "wakeTimeout": "60s", "holdTimeout": "60s", "drainTimeout": "5s"}
        self._clock = SteppedClock(directory / "clock") if sets_clock else None
        environment = self._clock.environment if self._clock else {}
        self.zenvoy = Zenvoy(directory, {"defaults": defaults, "services": services}, environment=environment)
        self._disk = SmallDisk(self.zenvoy.state_dir) if fills_disk else None
        self.report = Report()
        self._seed, self._quiet_seconds = seed, quiet_seconds
        self._over = threading.Event()
        self._lock = threading.Lock()

    def run(self, seconds: float) -> Report:
        """Run for so long, then let every request end, and return the report."""
        with ExitStack() as stack:
            if self._disk:
                stack.enter_context(self._disk)
            zenvoy = stack.enter_context(self.zenvoy)
            threads = [threading.Thread(target=self._send, args=each) for each in self._clients()]
            threads += [threading.Thread(target=self._disturb), threading.Thread(target=self._measure)]
            threads += [threading.Thread(target=self._set, args=(self._clock,))] if self._clock else []
            threads += [threading.Thread(target=self._fill, args=(self._disk,))] if self._disk else []
            for thread in threads:
                thread.start()
            self._over.wait(seconds)
            self._over.set()
            for thread in threads:
                thread.join()
            # Not `Zenvoy.wakes`, which finds the latest transition in the log by the clock.
            moves = [(entry["source"], entry["target"]) for entry in zenvoy.transitions()]
            self.report.wakes = moves.count(("ScaledToZero", "Waking"))
            self.report.wrong += _repeated({name: path.read_text() for name, path in self._outputs.items()})
        return self.report

    def _clients(self) -> Iterable[tuple[str, str, int]]:
        for name, kind in SERVICES.items():
            yield from ((kind, name, number) for number in range(CLIENTS_PER_SERVICE))

    def _send(self, kind: str, name: str, number: int) -> None:
        chance = random.Random(f"{self._seed} {name} {number}")
        count = 0
        while not self._over.wait(pause(chance)):
            count += 1
            unique, sent = f"{name}-{number}-{count}", time.monotonic()
            try:
                KINDS[kind].ask(self.zenvoy, name, unique)
            except LOST as error:
                loss = Loss(name, unique, sent, time.monotonic(), str(error)[:300])
                with self._lock:
                    self.report.losses.append(loss)
            except WrongAnswer as error:
                with self._lock:
                    self.report.wrong.append(f"{name}: request {unique}: {error}")
            else:
                with self._lock:
                    self.report.requests[kind] += 1

    def _disturb(self) -> None:
        chance = random.Random(f"{self._seed} kills")
        while not self._over.wait(chance.expovariate(1 / self._quiet_seconds)):
            victim = chance.choice([*COMPONENTS, PROGRAM])
            began = time.monotonic()
            if victim == PROGRAM:
                service = chance.choice([*SERVICES])
                if not self._kill_program(service):
                    continue
                kill = Kill(victim, service, began, time.monotonic())
            else:
                self._replace(victim)
                kill = Kill(victim, None, began, time.monotonic())
            with self._lock:
                self.report.kills.append(kill)

    def _set(self, clock: SteppedClock) -> None:
        """Set the clock again and again."""
        chance, ahead = random.Random(f"{self._seed} clock"), 0
        while not self._over.wait(chance.expovariate(1 / (QUIETS_PER_STEP * self._quiet_seconds))):
            ahead = step(chance, ahead)
            clock.set(ahead)
            self.report.steps += 1

    def _fill(self, disk: SmallDisk) -> None:
        """Fill the disk again and again, each time for a while."""
        chance = random.Random(f"{self._seed} disk")
        while not self._over.wait(chance.expovariate(1 / (QUIETS_PER_FILL * self._quiet_seconds))):
            disk.fill()
            self.report.fills += 1
            self._over.wait(chance.uniform(0, 2 * self._quiet_seconds))
            disk.empty()

    def _kill_program(self, service: str) -> bool:
        pids = self._program(service)
        for pid in pids:
            with suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()
        until(f"{service}'s program has ended", lambda: not any(psutil.pid_exists(pid) for pid in pids))
        return bool(pids)

    def _replace(self, component: str) -> None:
        """Kill a component, and wait until another one serves in its place."""
        before = len(self.zenvoy.lines())
        old = until(f"{component} runs", lambda: self._components().get(component))
        os.kill(old, signal.SIGKILL)
        self.zenvoy.wait_line(
            f"{component} is started again",
            lambda entry: entry["event"] == f"{component} ended and is started again",
            before,
        )
        until(f"{component} runs again", lambda: self._components().get(component, old) != old)
        if component == "envoy":
            until("Envoy serves again", self._serves)

    def _components(self) -> dict[str, int]:
        """Return the process ids of the children of `up`. Their list on the disk is old while the disk is full."""
        return {name: seen.pid for name, seen in children_of(run_id(self.zenvoy.state_dir))}

    def _program(self, service: str) -> list[int]:
        """Return the processes of a service, regardless of the notes on the disk."""
        run = run_id(self.zenvoy.state_dir)
        return [seen.pid for seen in take_census(run).family(mark(run, service), None)]

    def _serves(self) -> bool:
        """Return whether clients are served at every listener."""
        try:
            return self.zenvoy.ask("GET", "/v1/overview")["unready"] is None
        except control_client.NotRunning:
            return False

    def _measure(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            assert self.zenvoy.process
            for name, pid in {"up": self.zenvoy.process.pid, **self._components()}.items():
                with suppress(psutil.NoSuchProcess):
                    process = psutil.Process(pid)
                    sample = process.memory_info().rss, process.num_fds()
                    with self._lock:
                        self.report.usage.setdefault(name, []).append(sample)


def _with_output(service: dict[str, Any], output: Path) -> dict[str, Any]:
    """Return the service with a command that appends its output to a file."""
    return {**service, "command": ["sh", "-c", 'exec "$@" >>"$0" 2>&1', str(output), *service["command"]]}


def _repeated(outputs: Mapping[str, str]) -> list[str]:
    """Return the requests that a program received twice."""
    found = []
    for name, output in outputs.items():
        received = Counter(re.findall(rf"{name}-\d+-\d+\b", output))
        found += [f"{name}: request {unique} came {count} times" for unique, count in received.items() if count > 1]
    return found
