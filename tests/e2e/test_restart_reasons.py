"""The reasons that `status`, `explain` and the log give after a restart: they name who ended the program."""

from __future__ import annotations

import os
import signal
from typing import Any

from tests.e2e.conftest import Start
from tests.e2e.harness import SLOW_TO_SLEEP, Zenvoy, quick, request, until


def web(*options: str) -> dict[str, Any]:
    return {"name": "web", "command": quick("http", *options)}


def reason(z: Zenvoy, since: int, cause: str) -> str:
    """Return the reason of the next transition with this cause, once `explain` has it, too."""
    entry = z.wait_line(cause, lambda entry: entry.get("cause") == cause and entry["service"] == "web", since)
    assert entry["reason"] in z.cli("explain", "web").stdout
    return str(entry["reason"])


def stop_all_at_once(z: Zenvoy) -> None:
    """Kill `up` and all its processes, so that none of them ends `web`, which is awake."""
    assert z.process
    # A record is stored a moment after its transition; that of Active is, once another one has followed.
    z.wait_state("web", "Idle")
    z.kill_together("up", "reconciler", "holder", "envoy")
    z.process.wait()


def test_reason_after_restart_names_who_ended_the_program(zenvoy: Start) -> None:
    z = zenvoy(web(), defaults=SLOW_TO_SLEEP)
    assert request(z.http_port, "web").status == 200

    assert z.stop(signal.SIGINT) == 0
    since = len(z.lines())
    z.start()
    assert reason(z, since, "ReplicasAtZero") == "stopped together with zenvoy up"
    assert z.status("web")["reason"] == "stopped together with zenvoy up"
    assert request(z.http_port, "web").status == 200

    [pid] = z.service_pids("web")
    stop_all_at_once(z)
    os.kill(pid, signal.SIGTERM)
    until("the program has ended", lambda: not z.service_pids("web"))
    since = len(z.lines())
    z.start()
    assert reason(z, since, "ReplicasAtZero") == "ended while zenvoy was not running"
    assert request(z.http_port, "web").status == 200

    stop_all_at_once(z)
    z.write({**z.config, "services": [web("as=changed")]})
    since = len(z.lines())
    z.start()
    assert "its program changed while zenvoy was not running" in reason(z, since, "EndpointsLost")
    assert request(z.http_port, "web").body == b"changed /\n"

    since = len(z.lines())
    z.kill("reconciler")
    z.wait_line("it is adopted", lambda entry: entry["event"] == "adopted process", since)
    z.wait_state("web", "Active", "Idle")
    z.write({**z.config, "services": [web("as=again")]})
    assert reason(z, since, "ProgramOutdated") == "its program changed"
    assert not [entry for entry in z.lines() if entry["event"] == "service ended by itself"]
    assert z.stop() == 0
    assert not z.leftovers()
