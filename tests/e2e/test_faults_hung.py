"""Processes that are stopped (SIGSTOP) while clients wait: `zenvoy up` replaces them, and the clients are served."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException

from tests.e2e.conftest import Start
from tests.e2e.harness import SLOW_TO_SLEEP, Zenvoy, gated, quick, request, until

WEB, OTHER = ({"name": name, "command": quick("http")} for name in ("web", "other"))
PATIENT = {**SLOW_TO_SLEEP, "holdTimeout": "4m", "wakeTimeout": "4m"}
REPLACED_SECONDS = 240.0


def replaced(z: Zenvoy, before: dict[str, int], *names: str) -> bool:
    now = z.pids()
    return all(now.get(name, before[name]) != before[name] for name in names)


def served(z: Zenvoy, name: str) -> bool:
    try:
        return request(z.http_port, name, timeout=2).status == 200
    except (OSError, HTTPException):
        return False


def test_stopped_processes_are_replaced(zenvoy: Start, pool: ThreadPoolExecutor) -> None:
    """Stop the reconciler and the holder of one, and Envoy of another, at once: each takes as long as the bound."""
    gated_web = {"name": "web", "command": gated(quick("http"))}
    first, second = zenvoy(gated_web, OTHER, defaults=PATIENT), zenvoy(WEB, defaults=PATIENT)
    before, before_second = first.pids(), second.pids()
    second.kill("envoy", signal.SIGSTOP)
    held = pool.submit(request, first.http_port, "web", timeout=REPLACED_SECONDS)
    first.wait_status("it is held", "web", lambda view: view["held"] == 1)
    first.kill("reconciler", signal.SIGSTOP)
    first.kill("holder", signal.SIGSTOP)
    first.open_gate()
    waiting = pool.submit(request, first.http_port, "other", timeout=REPLACED_SECONDS)
    until("both are replaced", lambda: replaced(first, before, "reconciler", "holder"), REPLACED_SECONDS)
    until("Envoy is replaced", lambda: replaced(second, before_second, "envoy"), REPLACED_SECONDS)
    assert held.result().status == 200
    assert waiting.result().status == 200
    assert first.pids()["envoy"] == before["envoy"]
    until("the other serves", lambda: served(second, "web"))
    assert second.pids()["reconciler"] == before_second["reconciler"]
    for z, names in ((first, {"reconciler", "holder"}), (second, {"envoy"})):
        assert z.stop() == 0
        hung = {
            entry["event"].partition(" ")[0] for entry in z.lines() if entry["event"].endswith("hangs and is killed")
        }
        assert hung == names
        assert not z.leftovers()
