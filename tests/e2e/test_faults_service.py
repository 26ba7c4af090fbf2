"""A service that crashes while it is in use, crashes repeatedly, and is fixed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.conftest import Start
from tests.e2e.harness import QUICK, Zenvoy, quick, request, until

STAYS = {**QUICK, "idleAfter": "10m", "drainTimeout": "30s"}


def crash(z: Zenvoy, name: str) -> None:
    """End it as the kernel would for want of memory; return when its connections have ended too."""
    for pid in z.service_pids(name):
        process = psutil.Process(pid)
        os.kill(pid, signal.SIGKILL)
        process.wait()


async def test_service_crash_requests_are_answered(zenvoy: Start) -> None:
    """None was with the service when it ended, so none is lost: all others are held, or dialled again."""
    z = zenvoy({"name": "web", "command": quick("http")}, defaults=STAYS)
    z.wake("web")
    for number in range(5):
        old = z.service_pids("web")
        crash(z, "web")
        paths = [f"/{number}/{place}" for place in range(20)]
        replies = await asyncio.gather(*(asyncio.to_thread(request, z.http_port, "web", path) for path in paths))
        assert [reply.body.decode() for reply in replies] == [f"web {path}\n" for path in paths]
        assert z.service_pids("web") != old

    def ends() -> list[dict[str, Any]]:
        return [entry for entry in z.lines() if entry["event"] == "service ended by itself"]

    said = until("the log has all ends", lambda: found if len(found := ends()) >= 5 else None)
    assert [entry["how"] for entry in said] == ["killed by SIGKILL"] * 5
    crashes = [entry for entry in z.transitions("web") if entry["cause"] == "EndpointsLost"]
    assert len(crashes) == 5
    assert all("SIGKILL" in entry["reason"] for entry in crashes)


def test_service_crash_by_a_request_is_not_repeated(zenvoy: Start) -> None:
    z = zenvoy({"name": "web", "command": quick("http")}, defaults=STAYS)
    assert request(z.http_port, "web", "/crash").status == 503
    assert request(z.http_port, "web", "/after").body == b"web /after\n"
    assert z.output("web").count("started") == 2


def test_service_crash_loop_backs_off_until_fixed(zenvoy: Start, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    command = ["sh", "-c", f"echo started >> {starts}; echo no database at {{port}}; exit 7"]
    broken = {"name": "web", "command": command}
    z = zenvoy(broken, {"name": "other", "command": quick("http")}, defaults={**STAYS, "holdTimeout": "60s"})
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(request, z.http_port, "web", f"/{number}", timeout=60) for number in range(5)]
        z.wait_status("all wait", "web", lambda view: view["held"] == 5)
        view = z.wait_status("it says why", "web", lambda view: view["stalled"] and "exit" in view["stalled"])
        assert "code 7" in view["stalled"]
        assert "no database at" in view["stalled"]
        assert view["state"] == "Waking"
        began, before = time.monotonic(), starts.read_text().count("started")
        until("it is tried again", lambda: starts.read_text().count("started") >= before + 3)
        assert time.monotonic() - began > 0.5, "longer and longer pauses"
        assert request(z.http_port, "other").body == b"other /\n"
        z.write({**z.config, "services": [{"name": "web", "command": quick("http")}, z.config["services"][1]]})
        assert sorted(one.result().body for one in waiting) == [f"web /{number}\n".encode() for number in range(5)]
    view = z.wait_state("web", "Active", "Idle")
    assert view["stalled"] is None
    z.sleep("web")
    assert request(z.http_port, "web", "/again").body == b"web /again\n"


def test_service_slow_to_stop_is_woken_meanwhile(zenvoy: Start, pool: ThreadPoolExecutor) -> None:
    """A client that arrives while the old process ends waits for the next one."""
    z = zenvoy({"name": "web", "command": quick("http", "stubborn")}, defaults={**STAYS, "drainTimeout": "10m"})
    z.wake("web")
    (old,) = z.service_pids("web")
    z.sleep("web", has_ended=False)
    assert psutil.pid_exists(old)
    waiting = pool.submit(request, z.http_port, "web", "/pid")
    z.wait_status("it is held", "web", lambda view: view["held"] == 1)
    assert psutil.pid_exists(old)
    os.kill(old, signal.SIGKILL)
    reply = waiting.result()
    assert reply.status == 200
    assert int(reply.body) != old
    assert z.service_pids("web") == [int(reply.body)]


def test_service_child_ends_with_it(zenvoy: Start) -> None:
    """In a session of its own, and deaf to SIGTERM."""
    child = "trap '' TERM; while :; do sleep 1; done"
    command = ["sh", "-c", f'setsid sh -c "{child}" & exec "$@"', "sh", *quick("http")]
    z = zenvoy({"name": "web", "command": command}, defaults={**STAYS, "drainTimeout": "500ms"})
    assert request(z.http_port, "web").status == 200
    until("the child runs", lambda: len(z.service_pids("web")) >= 2)
    z.sleep("web")
    until("all have ended", lambda: not z.service_pids("web"))
    assert request(z.http_port, "web").status == 200
    assert z.stop() == 0
    assert not z.leftovers()
