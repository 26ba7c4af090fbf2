"""kill -9 of the reconciler, the holder and Envoy in each state: it recovers by itself.

Only what went through the process that was killed is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.e2e.harness import QUICK, Reply, Zenvoy, quick, request, until

KILLED = ("reconciler", "holder", "envoy")
STATES = ("ScaledToZero", "Waking", "Active", "Idle", "Draining")
NO_DEADLINE = {**QUICK, "idleAfter": "10m", "drainTimeout": "30s"}


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """For requests that are under way while something happens."""
    with ThreadPoolExecutor() as made:
        yield made


class Scene:
    """A service brought into a state, with the request that keeps it there, which ends once `gate` exists."""

    def __init__(self, z: Zenvoy, gate: Path, pool: ThreadPoolExecutor) -> None:
        self.z, self.gate, self.pool = z, gate, pool
        self.path = f"/until{gate}"
        self.under_way: Future[Reply] | None = None

    def ask(self, path: str = "/") -> Future[Reply]:
        return self.pool.submit(request, self.z.http_port, "web", path)

    def bring(self, state: str) -> None:
        z = self.z
        match state:
            case "ScaledToZero":
                z.asleep("web")
            case "Waking":
                self.under_way = self.ask()
                z.wait_status("somebody waits", "web", lambda view: view["state"] == state and view["held"] == 1)
            case "Active" | "Draining":
                z.wake("web")
                self.under_way = self.ask(self.path)
                until("the request is with the service", lambda: f"asked {self.path}" in z.output("web"))
                if state == "Draining":
                    until("it drains", self.drains)
            case "Idle":
                z.wake("web")
        view = z.wait_state("web", state)
        assert view["state"] == state

    def drains(self) -> bool:
        """Whether only the request that is under way keeps it awake."""
        view = self.z.status("web")
        if view["state"] in ("Active", "Idle"):
            self.z.ask("POST", "/v1/services/web/sleep")
        return bool(view["state"] == "Draining" and view["route"]["ackedAt"])

    def answered(self) -> None:
        """The request that was under way got its reply."""
        assert self.under_way
        self.gate.touch()
        reply = self.under_way.result()
        assert (reply.status, reply.body) in [(200, b"web /\n"), (200, f"web {self.path}\n".encode())]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("killed", KILLED)
def test_everything_recovers(zenvoy: Start, tmp_path: Path, pool: ThreadPoolExecutor, killed: str, state: str) -> None:
    gate = tmp_path / "gate"
    waits = [f"gate={gate}"] if state == "Waking" else []
    # A drain goes on for as long as a request is in flight and no second sample says so.
    interval = "1s" if state == "Draining" else "200ms"
    z = zenvoy({"name": "web", "command": quick("http", *waits)}, defaults=NO_DEADLINE, sampleInterval=interval)
    scene = Scene(z, gate, pool)
    scene.bring(state)
    pids, before = z.service_pids("web"), z.pids()
    said = len(z.lines())
    z.kill(killed)

    if killed != "envoy":
        meanwhile = scene.ask("/meanwhile")
        if killed == "holder" and state == "Waking":
            assert_lost(scene.under_way)
        elif scene.under_way:
            scene.answered()
        gate.touch()
        reply = meanwhile.result()
        assert (reply.status, reply.body) == (200, b"web /meanwhile\n")
    elif scene.under_way:
        assert_lost(scene.under_way)
        gate.touch()

    z.wait_line("it is said", lambda entry: entry["event"] == f"{killed} ended and is started again", said)
    assert until("Envoy answers", lambda: answer(z)) == b"web /after\n"
    until("it runs again", lambda: z.pids().get(killed, before[killed]) != before[killed])
    z.wait_state("web", "Active", "Idle")
    assert {name for name, pid in z.pids().items() if pid != before[name]} == {killed}
    if state in ("Active", "Idle", "Waking"):
        assert z.service_pids("web") == pids, "a service that runs is not touched"
    for path in ("/once", "/again"):
        z.sleep("web")
        z.asleep("web")
        assert request(z.http_port, "web", path).body == f"web {path}\n".encode()
    assert z.stop() == 0
    assert not z.leftovers()


def answer(z: Zenvoy) -> bytes | None:
    """What the service says, if Envoy is there."""
    try:
        reply = request(z.http_port, "web", "/after")
    except (OSError, HTTPException):
        return None
    assert reply.status == 200, reply
    return reply.body


def assert_lost(under_way: Future[Reply] | None) -> None:
    """It went through what was killed: it ends at once, and nobody makes up a reply."""
    assert under_way
    try:
        reply = under_way.result()
    except (OSError, HTTPException):
        return
    assert reply.status == 503
