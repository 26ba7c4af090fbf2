"""A real run of `zenvoy up --with-prometheus` that gives every panel something to show.

Services sleep and wake repeatedly, one is always in use, one never, one cannot start, one fails on its first start and
refuses excess connections, and Envoy crashes once.
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

from tests.e2e.harness import LOCAL, Zenvoy, quick, request, until
from tests.grafana.answers import Prometheus, Span, Viewer

SCRAPE_SECONDS = 0.5
PORTS_TIMEOUT_SECONDS = 30.0
POINTS = 300
"""Approximate number of points per series."""
TARGETS = 3
"""Envoy, the reconciler and the holder."""
CONCURRENT = 5
"""Simultaneous connections to a service with `maxHeld: MAX_HELD`."""
MAX_HELD = 3
SHOWN = "api"
"""The service that the service dashboard shows; it has the most varied history."""


def _slowly(seconds: float, command: list[str]) -> list[str]:
    return ["sh", "-c", f'sleep {seconds:g}; exec "$@"', "sh", *command]


def _failing_first(command: list[str]) -> list[str]:
    """Return a command that fails on its first start."""
    return ["sh", "-c", 'mkdir stumbled 2>/dev/null && { echo "no schema yet"; exit 1; }; exec "$@"', "sh", *command]


SERVICES: tuple[dict[str, Any], ...] = (
    {"name": "shop", "command": quick("http")},
    {"name": "blog", "command": _slowly(0.3, quick("http"))},
    {"name": SHOWN, "command": _failing_first(_slowly(1.2, quick("http"))), "maxHeld": MAX_HELD},
    {"name": "db", "protocol": "tcp", "command": _slowly(0.6, quick("tcp"))},
    {"name": "preview", "command": quick("http"), "idleAfter": "1s"},
    {"name": "reports", "command": quick("http")},
    {
        "name": "broken",
        "command": ["sh", "-c", "echo port {port}: no database at 10.0.0.7; exit 1"],
        "wakeTimeout": "3s",
        "holdTimeout": "8s",
    },
)
DEFAULTS = {"idleAfter": "3s", "wakeTimeout": "20s", "holdTimeout": "20s", "drainTimeout": "5s"}


@dataclass(frozen=True, slots=True)
class Habit:
    """A recurring client action; interval and initial delay in seconds."""

    act: Callable[[Zenvoy], None]
    every: float
    after: float = 0.0


def _request(name: str, times: int = 1, pause: float = 0.3) -> Callable[[Zenvoy], None]:
    def act(zenvoy: Zenvoy) -> None:
        for _ in range(times):
            request(zenvoy.http_port, name)
            time.sleep(pause)

    return act


def _request_at_once(name: str, times: int) -> Callable[[Zenvoy], None]:
    def act(zenvoy: Zenvoy) -> None:
        _together([lambda: _attempt(_request(name), zenvoy)] * times)

    return act


def _talk_to(name: str, lines: int) -> Callable[[Zenvoy], None]:
    def act(zenvoy: Zenvoy) -> None:
        with socket.create_connection((LOCAL, zenvoy.port(name)), timeout=PORTS_TIMEOUT_SECONDS) as connection:
            for number in range(lines):
                connection.sendall(f"{number}\n".encode())
                connection.recv(1000)
                time.sleep(1)

    return act


HABITS: tuple[Habit, ...] = (
    Habit(_request("shop"), every=0.3),
    Habit(_request("blog", times=12), every=15, after=1),
    Habit(_request_at_once(SHOWN, CONCURRENT), every=16, after=2),
    Habit(_talk_to("db", lines=5), every=18, after=3),
    Habit(_request("preview"), every=4.5, after=1),
    Habit(_request("broken"), every=1, after=4),
    Habit(_request("broken"), every=1, after=8),
)


@dataclass(frozen=True, slots=True)
class Scene:
    """A running zenvoy and its Prometheus."""

    zenvoy: Zenvoy
    prometheus: Prometheus
    began_at: float

    def play(self, seconds: float) -> float:
        """Run all habits for `seconds`, crash Envoy half-way through, and continue until every target is scraped.

        Return the end of that period, in seconds since the epoch. Actions already begun are awaited.
        """
        over, crash = threading.Event(), threading.Timer(seconds / 2, self._crash_envoy)
        habits = _started([partial(self._follow, habit, over) for habit in HABITS])
        crash.start()
        try:
            over.wait(seconds)
            crash.join()
            return until("the latest scrapes succeeded, and show the stall", self._scraped_now)
        finally:
            over.set()
            _join(habits)

    def _scraped_now(self) -> float | None:
        """Return the present time if Prometheus has all targets and the stalled service at this time."""
        now = time.time()
        is_up = len(self.prometheus.instant("up == 1", now)) == TARGETS
        return now if is_up and self.prometheus.instant('zenvoy_service_stalled_info{service="broken"}', now) else None

    def _crash_envoy(self) -> None:
        self.zenvoy.kill("envoy")

    def _follow(self, habit: Habit, over: threading.Event) -> None:
        pause = habit.after
        while not over.wait(pause):
            began = time.monotonic()
            _attempt(habit.act, self.zenvoy)
            pause = max(0.0, habit.every - (time.monotonic() - began))


@contextmanager
def running(directory: Path, services: tuple[dict[str, Any], ...] = SERVICES) -> Iterator[Scene]:
    """Run a scene; it starts once Prometheus has scraped every target."""
    config = {"defaults": DEFAULTS, "sampleInterval": f"{SCRAPE_SECONDS:g}s", "services": list(services)}
    with Zenvoy(directory, config, options=("--with-prometheus",)) as zenvoy:
        reported = zenvoy.wait_line("its Prometheus has an address", lambda entry: entry["event"] == "Prometheus")
        prometheus = Prometheus(reported["at"])
        until("all is scraped", lambda: prometheus.targets_up() == TARGETS)
        yield Scene(zenvoy, prometheus, time.time())


def viewer(scene: Scene, end: float) -> Viewer:
    """Return a viewer of the whole scene until `end`, with the service `SHOWN` chosen."""
    start = scene.began_at
    span = Span(start, end, max(SCRAPE_SECONDS, round((end - start) / POINTS, 1)))
    return Viewer(scene.prometheus, span, {"namespace": ".*", "services": ".*", "service": SHOWN}, SCRAPE_SECONDS)


def _attempt(act: Callable[[Zenvoy], None], zenvoy: Zenvoy) -> None:
    """Run an action; refused and interrupted connections are part of the scene."""
    try:
        act(zenvoy)
    except (OSError, http.client.HTTPException):
        return


def _together(acts: list[Callable[[], None]]) -> None:
    _join(_started(acts))


def _started(acts: list[Callable[[], None]]) -> list[threading.Thread]:
    threads = [threading.Thread(target=act, daemon=True) for act in acts]
    for thread in threads:
        thread.start()
    return threads


def _join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join()
