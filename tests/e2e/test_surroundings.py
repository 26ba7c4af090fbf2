"""`zenvoy up` in surroundings that fail, alone and together: each is tried with a reload and with a stop."""

from __future__ import annotations

import socket
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, SLOW_TO_SLEEP, Zenvoy, quick, request, until
from tests.soak.surroundings import SmallDisk

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
"""A locale without UTF-8, and without Python's own remedy, which other locales such as ISO 8859-1 do not get either."""
MISSING = {"name": "missing", "command": ["no-such-program", "{port}"], "holdTimeout": "1s"}
GREETING = "Grüße-→"


def web(*options: str) -> dict[str, Any]:
    return {"name": "web", "command": quick("http", *options)}


def services(greeting: str, is_missing: bool) -> list[dict[str, Any]]:
    greet = {"name": "greet", "command": quick("http", f"as={greeting}"), "workingDirectory": GREETING}
    others = [{"name": "db", "protocol": "tcp", "command": quick("tcp")}, greet]
    return [web(), *others, *([MISSING] if is_missing else [])]


def is_served(z: Zenvoy, greeting: str) -> bool:
    """Return whether each service that can run answers."""
    assert request(z.http_port, "web").body == b"web /\n"
    assert request(z.http_port, "greet").body == f"{greeting} /\n".encode()
    with socket.create_connection((LOCAL, z.port("db")), timeout=60) as client:
        client.sendall(b"x\n")
        return client.recv(100) == b"db x\n"


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOCAL, port)) != 0


@pytest.mark.parametrize(
    "failing",
    [
        {"locale", "missing"},
        pytest.param({"disk"}, marks=pytest.mark.root),
        pytest.param({"locale", "missing", "disk"}, marks=pytest.mark.root),
    ],
    ids=lambda failing: "-".join(sorted(failing)),
)
def test_up_reloads_and_stops_in_failing_surroundings(zenvoy: Start, failing: set[str], tmp_path: Path) -> None:
    (tmp_path / "z0" / GREETING).mkdir(parents=True)
    disk = SmallDisk(tmp_path / "z0" / "state") if "disk" in failing else nullcontext()
    with disk as small:
        z = zenvoy(
            *services(GREETING, "missing" in failing),
            defaults=SLOW_TO_SLEEP,
            environment=ASCII if "locale" in failing else {},
        )
        if small:
            small.fill()
        assert is_served(z, GREETING)
        if "missing" in failing:
            assert request(z.http_port, "missing").status == 503
        since = len(z.lines())
        z.write({**z.config, "services": [*services(GREETING, "missing" in failing), {**web(), "name": "added"}]})
        z.wait_line("it is applied", lambda entry: entry["event"] == "the file is applied", since)
        until("Envoy has it", lambda: request(z.http_port, "added").status == 200)
        assert is_served(z, GREETING)
        status = z.cli("status")
        assert status.returncode == 0 and "greet" in status.stdout
        if small:
            small.fill()
        assert z.stop() == 0
        assert not z.leftovers()
        assert all(map(is_free, (z.http_port, z.port("db"))))


def test_program_inherits_only_the_environment_of_up(zenvoy: Start) -> None:
    locale = {"LC_ALL": "", "LANG": "C", "PYTHONUTF8": "0"}  # Python sets LC_CTYPE of its own process then
    z = zenvoy(web(), defaults=SLOW_TO_SLEEP, environment=locale)
    for _ in range(2):
        assert request(z.http_port, "web").status == 200
        z.woken("web")
        [program] = [psutil.Process(pid) for pid in z.service_pids("web")]
        own = program.environ()
        added = {name: own.pop(name) for name in ("PORT", "ZENVOY_SERVICE")}
        assert added == {"PORT": str(program.net_connections()[0].laddr.port), "ZENVOY_SERVICE": "web"}
        assert own == psutil.Process(z.pids()["up"]).environ()
        z.sleep("web")
        z.kill("reconciler")
        until("the next reconciler is ready", lambda: z.cli("wait", "--timeout", "60s").returncode == 0)
