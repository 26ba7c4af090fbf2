"""kill -9 of the reconciler, the holder and Envoy in each state: it recovers by itself.

Only what went through the process that was killed is lost.
"""

from __future__ import annotations

import socket
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, QUICK, Reply, Zenvoy, quick, request, until

KILLED = ("reconciler", "holder", "envoy")
STATES = ("ScaledToZero", "Waking", "Active", "Idle", "Draining")
NO_DEADLINE = {**QUICK, "idleAfter": "10m", "drainTimeout": "30s"}


@pytest.fixture(scope="module")
def z(shared_zenvoy: Start, tmp_path_factory: pytest.TempPathFactory) -> Zenvoy:
    """Start one for all tests: each finds it as the kill -9 of the test before left it."""
    folder = tmp_path_factory.mktemp("gates", numbered=False)
    names = [f"{killed}-{state.lower()}" for killed in KILLED for state in STATES]
    waits = {name: [f"gate={folder / name}"] if name.endswith("waking") else [] for name in names}
    return shared_zenvoy(
        *({"name": name, "command": quick("http", *waits[name])} for name in names), defaults=NO_DEADLINE
    )


class Scene:
    """A service brought into a state, with the request that keeps it there, which ends once `gate` exists."""

    def __init__(self, z: Zenvoy, name: str, gate: Path, pool: ThreadPoolExecutor) -> None:
        self.z, self.name, self.gate, self.pool = z, name, gate, pool
        self.path = f"/until{gate}"
        self.under_way: Future[Reply] | None = None

    def ask(self, path: str = "/") -> Future[Reply]:
        return self.pool.submit(request, self.z.http_port, self.name, path)

    def bring(self, state: str) -> None:
        z, name = self.z, self.name
        match state:
            case "ScaledToZero":
                z.asleep(name)
            case "Waking":
                self.under_way = self.ask()
                z.wait_status("a client is waiting", name, lambda view: view["state"] == state and view["held"] == 1)
            case "Active" | "Draining":
                z.wake(name)
                z.wait_straight(name)
                self.under_way = self.ask(self.path)
                until("the request is with the service", lambda: f"asked {self.path}" in z.output(name))
                if state == "Draining":
                    until("it drains", self.drains)
            case "Idle":
                z.wake(name)
        z.wait_state(name, state)

    def drains(self) -> bool:
        """Return whether only the request in flight keeps it awake."""
        view = self.z.status(self.name)
        if view["state"] in ("Active", "Idle"):
            self.z.ask("POST", f"/v1/services/{self.name}/sleep")
        return bool(view["state"] == "Draining" and view["route"]["ackedAt"])

    def answered(self) -> None:
        """Assert that the request in flight got its reply."""
        assert self.under_way
        self.gate.touch()
        reply = self.under_way.result()
        assert reply.status == 200
        assert reply.body.decode() in (f"{self.name} /\n", f"{self.name} {self.path}\n")

    def lost(self) -> None:
        """Assert that a request through the killed process ends at once, without an invented reply."""
        assert self.under_way
        try:
            assert self.under_way.result().status == 503
        except (OSError, HTTPException):
            pass
        self.gate.touch()

    def reply(self) -> bytes | None:
        """Return the service's answer, if Envoy is there."""
        try:
            reply = request(self.z.http_port, self.name, "/after")
        except (OSError, HTTPException):
            return None
        assert reply.status == 200, reply
        return reply.body


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("killed", KILLED)
def test_killed_process_everything_recovers(
    z: Zenvoy, tmp_path_factory: pytest.TempPathFactory, pool: ThreadPoolExecutor, killed: str, state: str
) -> None:
    name = f"{killed}-{state.lower()}"
    scene = Scene(z, name, tmp_path_factory.getbasetemp() / "gates" / name, pool)
    scene.bring(state)
    pids, before = z.service_pids(name), z.pids()
    said = len(z.lines())
    z.kill(killed)

    if killed == "envoy":
        if scene.under_way:
            scene.lost()
    else:
        meanwhile = scene.ask("/meanwhile")
        if scene.under_way:
            scene.answered()
        reply = meanwhile.result()
        assert (reply.status, reply.body.decode()) == (200, f"{name} /meanwhile\n")

    z.wait_line("it is said", lambda entry: entry["event"] == f"{killed} ended and is started again", said)
    assert until("Envoy answers", scene.reply) == f"{name} /after\n".encode()
    until("it runs again", lambda: z.pids().get(killed, before[killed]) != before[killed])
    z.wait_state(name, "Active", "Idle")
    assert {one for one, pid in z.pids().items() if pid != before[one]} == {killed}
    if state in ("Active", "Idle", "Waking"):
        assert z.service_pids(name) == pids, "a service that runs is not touched"
    for path in ("/once", "/again"):
        z.sleep(name)
        z.asleep(name)
        assert request(z.http_port, name, path).body.decode() == f"{name} {path}\n"


class Line:
    """An open TCP connection to the service `db`, which has sent its process id."""

    def __init__(self, address: str, stack: ExitStack) -> None:
        host, _, port = address.rpartition(":")
        self._client = stack.enter_context(socket.create_connection((host, int(port)), timeout=60))
        self.pid = int(self._ask("pid"))

    def says(self, text: str) -> bool:
        return self._ask(text) == f"db {text}\n"

    def _ask(self, text: str) -> str:
        self._client.sendall(f"{text}\n".encode())
        answer = self._client.recv(100).decode()
        if not answer:
            raise ConnectionResetError("it ended")
        return answer


def test_killed_process_off_path_cuts_no_connection(zenvoy: Start) -> None:
    """A line that woke the service goes through Envoy and the holder; one straight to the hold address, as of another
    Envoy, through the holder alone; one that came while the service was awake, through Envoy alone."""
    z = zenvoy({"name": "db", "protocol": "tcp", "command": quick("tcp")}, defaults=NO_DEADLINE)
    listener = f"{LOCAL}:{z.port('db')}"
    with ExitStack() as stack:
        woke, straight = Line(listener, stack), Line(z.status("db")["holdAddress"], stack)
        z.wait_status("the holder relays both", "db", lambda view: view["relayed"] == 2)
        said = len(z.lines())
        z.kill("reconciler")
        assert woke.says("while it is away") and straight.says("while it is away")
        z.wait_line("it is back", lambda entry: entry["event"] == "reconciler ended and is started again", said)
        z.wait_status("it knows them", "db", lambda view: view["relayed"] == 2 and view["route"]["ackedAt"])
        assert woke.says("since it is back") and straight.says("since it is back")

        def later() -> Line | None:
            try:
                return Line(listener, stack)
            except OSError:
                return None

        z.kill("envoy")
        assert straight.says("while Envoy is away")
        direct = until("Envoy serves again", later)
        assert straight.says("since Envoy is back")
        z.wait_status("only one is relayed", "db", lambda view: view["relayed"] == 1)

        z.kill("holder")
        assert direct.says("while the holder is away")
        assert woke.pid == straight.pid == direct.pid, "the service was never started again"
    assert z.stop() == 0


def test_killed_processes_leave_nothing_behind(z: Zenvoy) -> None:
    assert z.stop() == 0
    assert not z.leftovers()
