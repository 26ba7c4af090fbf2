"""A real run for pictures and tests: `zenvoy up --with-prometheus` with services that are used in different ways.

Some sleep and wake again and again, one is always in use, one never, one cannot start, one fails at first and refuses
what is too much; and Envoy crashes once.
Counterpart: `answers.py`, which asks the Prometheus of the run.
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from grafana.answers import Prometheus
from tests.e2e.harness import LOCAL, Zenvoy, quick, request, until

SCRAPE_SECONDS = 0.5
PORTS_TIMEOUT_SECONDS = 30.0
TARGETS = 3
"""Envoy, the reconciler and the holder."""
TOO_MANY = 5
"""At once, of a service that may hold `MOST`."""
MOST = 3
SHOWN = "api"
"""The service to look at, of which there is most to see."""


def _slowly(seconds: float, command: list[str]) -> list[str]:
    return ["sh", "-c", f'sleep {seconds:g}; exec "$@"', "sh", *command]


def _stumbling(command: list[str]) -> list[str]:
    """It fails the first time."""
    return ["sh", "-c", 'mkdir stumbled 2>/dev/null && { echo "no schema yet"; exit 1; }; exec "$@"', "sh", *command]


SERVICES: tuple[dict[str, Any], ...] = (
    {"name": "shop", "command": quick("http")},
    {"name": "blog", "command": _slowly(0.3, quick("http"))},
    {"name": SHOWN, "command": _stumbling(_slowly(1.2, quick("http"))), "maxHeld": MOST},
    {"name": "db", "protocol": "tcp", "command": _slowly(0.6, quick("tcp"))},
    {"name": "preview", "command": quick("http"), "idleAfter": "1s"},
    {"name": "reports", "command": quick("http")},
    {
        "name": "broken",
        "command": ["sh", "-c", "echo port {port} is of no use: no database at 10.0.0.7; exit 1"],
        "wakeTimeout": "3s",
        "holdTimeout": "8s",
    },
)
DEFAULTS = {"idleAfter": "3s", "wakeTimeout": "20s", "holdTimeout": "20s", "drainTimeout": "5s"}


@dataclass(frozen=True, slots=True)
class Habit:
    """What is done to a service, how often, and after how long for the first time; in seconds."""

    act: Callable[[Zenvoy], None]
    every: float
    after: float = 0.0


def _asked(name: str, times: int = 1, pause: float = 0.3) -> Callable[[Zenvoy], None]:
    def act(zenvoy: Zenvoy) -> None:
        for _ in range(times):
            request(zenvoy.http_port, name)
            time.sleep(pause)

    return act


def _asked_at_once(name: str, times: int) -> Callable[[Zenvoy], None]:
    def act(zenvoy: Zenvoy) -> None:
        _together([lambda: _tried(_asked(name), zenvoy)] * times)

    return act


def _talked_to(name: str, lines: int) -> Callable[[Zenvoy], None]:
    def act(zenvoy: Zenvoy) -> None:
        with socket.create_connection((LOCAL, zenvoy.port(name)), timeout=PORTS_TIMEOUT_SECONDS) as connection:
            for number in range(lines):
                connection.sendall(f"{number}\n".encode())
                connection.recv(1000)
                time.sleep(1)

    return act


HABITS: tuple[Habit, ...] = (
    Habit(_asked("shop"), every=0.3),
    Habit(_asked("blog", times=12), every=15, after=1),
    Habit(_asked_at_once(SHOWN, TOO_MANY), every=16, after=2),
    Habit(_talked_to("db", lines=5), every=18, after=3),
    Habit(_asked("preview"), every=4.5, after=1),
    Habit(_asked("broken"), every=1, after=4),
    Habit(_asked("broken"), every=1, after=8),
)


@dataclass(frozen=True, slots=True)
class Scene:
    """A run of zenvoy and the Prometheus beside it."""

    zenvoy: Zenvoy
    prometheus: Prometheus
    began_at: float

    def play(self, seconds: float) -> float:
        """Let everybody follow their habits for so long; half-way through, Envoy crashes.

        Returns when it was over, in seconds since the epoch: what was begun then is waited for.
        """
        over, over_at = threading.Event(), time.time() + seconds
        timers = threading.Timer(seconds, over.set), threading.Timer(seconds / 2, self._crash_envoy)
        for timer in timers:
            timer.start()
        _together([partial(self._follow, habit, over) for habit in HABITS])
        for timer in timers:
            timer.cancel()
        return over_at

    def _crash_envoy(self) -> None:
        self.zenvoy.kill("envoy")

    def _follow(self, habit: Habit, over: threading.Event) -> None:
        pause = habit.after
        while not over.wait(pause):
            began = time.monotonic()
            _tried(habit.act, self.zenvoy)
            pause = max(0.0, habit.every - (time.monotonic() - began))


@contextmanager
def running(directory: Path, services: tuple[dict[str, Any], ...] = SERVICES) -> Iterator[Scene]:
    """A scene whose Prometheus has scraped everything once; all of it is ended after."""
    config = {"defaults": DEFAULTS, "sampleInterval": f"{SCRAPE_SECONDS:g}s", "services": list(services)}
    with Zenvoy(directory, config, options=("--with-prometheus",)) as zenvoy:
        told = zenvoy.wait_line("it tells where its Prometheus is", lambda entry: entry["event"] == "Prometheus")
        prometheus = Prometheus(told["at"])
        until("all is scraped", lambda: prometheus.targets_up() == TARGETS)
        yield Scene(zenvoy, prometheus, time.time())


def _tried(act: Callable[[Zenvoy], None], zenvoy: Zenvoy) -> None:
    """Being refused, and being cut off at the end, is part of the scene."""
    try:
        act(zenvoy)
    except (OSError, http.client.HTTPException):
        return


def _together(acts: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=act, daemon=True) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
